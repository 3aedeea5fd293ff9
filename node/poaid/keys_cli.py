"""`poaid generate-key`: make a key, and the file that keeps it."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from poaid.errors import UsageError


def generate_key(
    out: Annotated[
        Path, typer.Option("--out", help="Folder for the file, which is named as geth does; or the new file itself.")
    ] = Path(),
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="File whose first line is the password, for scripts.")
    ] = None,
    plain: Annotated[
        bool,
        typer.Option("--plain", help="Write the key without encryption, as DATA_DIR/miner.key holds it."),
    ] = False,
    show_private_key: Annotated[
        bool, typer.Option("--show-private-key", help="Print the private key, too. It stays in the terminal's history.")
    ] = False,
) -> None:
    """Make a key for --miner-address, encrypted with a password in a file that Ethereum's wallets can read."""
    from poaid.keys import (
        compute_address,
        format_address,
        get_keystore_name,
        make_key,
        write_keystore,
        write_plain_key,
    )

    if plain and password_file is not None:
        raise UsageError("--plain does not encrypt: leave out --plain or --password-file")
    password = None if plain else _get_password(password_file)
    key = make_key()
    address = compute_address(key)
    name = f"{address.hex()}.key" if plain else get_keystore_name(address, time.time_ns())
    path = out / name if out.is_dir() else out
    if password is None:
        write_plain_key(key, path)
        note = "not encrypted: whoever reads it owns the account"
    else:
        write_keystore(key, password, path)
        note = "encrypted: keep it and the password, neither can be made again"
    print(f"address: {format_address(address)}\nfile: {path} ({note})")
    if show_private_key:
        print(f"private key: {key.secret.hex()}")


def _get_password(file: Path | None) -> bytes:
    """Return the password of a file, or what is typed twice at the terminal."""
    from poaid.keys import read_password

    if file is not None:
        return read_password(file)
    if sys.stdin is None or not sys.stdin.isatty():  # None: closed by who started this
        raise UsageError("--password-file is missing, and there is no terminal to ask at: give it, or --plain")
    # Asked again until it is not empty and the same twice. The bytes are those that the terminal sent.
    return os.fsencode(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
