"""`--config FILE`: flags of `poaid run`, by their names, from a TOML file.

They are put before those of the command line, of which the last one counts. A key that is no flag is refused with its
name: a setting that is silently ignored is found out when it is needed.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from poaid.errors import UsageError

MAX_CONFIG_BYTES = 1 << 16
"""All flags together are two kilobytes."""
FLAG = "--config"

ConfigFile = Annotated[
    Path | None,
    typer.Option(FLAG, help="TOML file of flags without their dashes; those on the command line go before it."),
]


def insert_config(arguments: Sequence[str], command: Any) -> list[str]:
    """Return the arguments of a command with those of the file that they name in front.

    Args:
        arguments: behind the command's name.
        command: as `typer.main.get_command` gives it.

    Raises:
        UsageError: no such file, no TOML, a key that is no flag, or a value of another kind.
    """
    path = None
    for number, word in enumerate(arguments):
        if word == FLAG:
            path = next(iter(arguments[number + 1 :]), None)
        elif word.startswith(f"{FLAG}="):
            path = word.removeprefix(f"{FLAG}=")
    return list(arguments) if path is None else [*read_config(Path(path), command), *arguments]


def read_config(path: Path, command: Any) -> Iterator[str]:
    """Yield the flags of a file; see `insert_config`."""
    where = f"{FLAG} {path}"
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{where} cannot be read: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"{where} is larger than {MAX_CONFIG_BYTES} bytes: that is no file of flags")
    try:
        settings = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of 5,000 digits, or nested too deep
        raise UsageError(f"{where} is not TOML: {error!s:.200}") from error
    options = {name: option for option in command.params for name in option.opts if name.startswith("--")}
    for key, value in settings.items():
        option = options.get(f"--{key}")
        if option is None or f"--{key}" in (FLAG, "--help"):
            raise UsageError(f"{where}: unknown key {key!r:.80}: keys are flags without --, see `poaid run --help`")
        yield from _make_words(where, key, value, option)


def _make_words(where: str, key: str, value: Any, option: Any) -> Iterator[str]:
    """Yield a setting as words of a command line."""
    kinds: tuple[type, ...] = (str, int)
    wanted = "a text or a number"
    if option.is_flag:
        kinds, wanted = (bool,), "true or false"
    elif option.multiple:
        kinds, wanted = (list,), 'a list of texts, ["..."]'
    texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if type(value) not in kinds or (isinstance(value, list) and not texts):  # True is an int to isinstance
        raise UsageError(f"{where}: {key} = {json.dumps(value, default=str):.80} is not {wanted}")
    if isinstance(value, bool):
        no = next(iter(option.secondary_opts), None)
        yield from [f"--{key}"] if value else [no] if no else []
        return
    for item in value if isinstance(value, list) else [value]:
        yield f"--{key}={item}"
