"""`poaid generate-key`: make a key, and the file that keeps it."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from poaid.errors import NodeError, UsageError


def generate_key(
    out: Annotated[
        str,
        typer.Option(
            "--out",
            help="Folder for the file, named as geth does (with a / at the end it is made); or the file itself.",
        ),
    ] = ".",
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
    path = Path(out) / name if _is_folder(out) else Path(out)
    if password is None:
        write_plain_key(key, path)
        note = "not encrypted: whoever reads it owns the account"
    else:
        write_keystore(key, password, path)
        note = "encrypted: keep it and the password, neither can be made again"
    print(f"address: {format_address(address)}\nfile: {path} ({note})")
    if show_private_key:
        print(f"private key: {key.secret.hex()}")


def _is_folder(out: str) -> bool:
    """Tell whether `--out` is a folder; one that is named as such is made, for its owner alone."""
    path = Path(out)
    if out.endswith("/"):
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise NodeError(f"{out} cannot be made: {error.strerror}; give another --out") from error
    return path.is_dir()


def _get_password(file: Path | None) -> bytes:
    """Return the password of a file, or what is typed twice at the terminal."""
    from poaid.keys import read_password

    if file is not None:
        return read_password(file)
    if sys.stdin is None or not sys.stdin.isatty():  # None: closed by who started this
        raise UsageError("--password-file is missing, and there is no terminal to ask at: give it, or --plain")
    # Asked again until it is not empty and the same twice. The bytes are those that the terminal sent.
    return os.fsencode(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
