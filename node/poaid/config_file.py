"""`--config FILE`: flags of a command, by their names, from a TOML file.

What the command line says goes before what the file says. A key that is no flag, or a value of another kind, is refused
with its name: a setting that is silently ignored is found out when it is needed.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

import click
import typer

from poaid.errors import UsageError

MAX_CONFIG_BYTES = 1 << 16
"""All flags together are two kilobytes."""
FLAG = "--config"


def load_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Make a file's values the defaults of the command that is being parsed; a callback of an eager option.

    Raises:
        UsageError: no such file, no TOML, a key that is no flag, or a value of another kind.
    """
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = read_config(path, ctx.command)
    return path


def read_config(path: Path, command: click.Command) -> dict[str, Any]:
    """Return the values of a file by the names of the command's parameters; see `load_config`."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{FLAG} {path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_CONFIG_BYTES:
        raise UsageError(f"{FLAG} {path} is larger than {MAX_CONFIG_BYTES} bytes: that is no file of flags")
    try:
        settings = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of 5,000 digits, or nested too deep
        raise UsageError(f"{FLAG} {path} is not TOML: {error!s:.200}") from error
    options = find_options(command)
    values = {}
    for key, value in settings.items():
        if key not in options:
            raise UsageError(f"{FLAG} {path}: unknown key {key!r:.80}: keys are flags without --, see poaid run --help")
        option = options[key]
        values[str(option.name)] = _convert(path, key, value, option)
    return values


def find_options(command: click.Command) -> dict[str, click.Option]:
    """Return a command's options by the names that a file may use: long flags without their dashes."""
    return {
        name.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and not option.is_eager
        for name in option.opts
        if name.startswith("--")
    }


def _convert(path: Path, key: str, value: Any, option: click.Option) -> Any:
    """Return a value as click takes it; numbers may stand for texts, as on a command line, not texts for numbers."""
    found = f"{FLAG} {path}: {key} = {json.dumps(value, default=str):.80}"
    if option.multiple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f'{found} is no list of texts: write {key} = ["..."]')
        return value
    wanted = bool if option.is_flag else int if isinstance(option.type, click.types.IntParamType) else str
    if type(value) is int and wanted is str:
        return str(value)
    if type(value) is not wanted:  # True is an int to isinstance
        kind = {bool: "true or false", int: "a number", str: "a text"}[wanted]
        raise UsageError(f"{found} is not {kind}")
    return value
