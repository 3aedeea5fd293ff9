"""`poaid run --config FILE`: every flag, nothing but flags, and the command line goes before it."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from poaid.cli.config_file import MAX_CONFIG_BYTES
from poaid.cli.main import app, complete_arguments
from poaid.errors import UsageError

ROOT = Path(__file__).parents[4]


def get_options() -> list[Any]:
    command: Any = typer.main.get_command(app)
    return list(command.commands["run"].params)


def parse(tmp_path: Path, text: str, *arguments: str) -> list[str]:
    file = tmp_path / "poaid.toml"
    file.write_text(text, "utf-8")
    return complete_arguments(["--config", str(file), *arguments])


def test_every_flag_may_stand_in_a_file(tmp_path: Path) -> None:
    lines, words = [], []
    for option in get_options():
        key = option.opts[0].removeprefix("--")
        if key in ("config", "help"):
            continue
        if option.is_flag:
            lines.append(f"{key} = true")
            words.append(f"--{key}")
        elif option.multiple:
            lines.append(f'{key} = ["a", "b"]')
            words += [f"--{key}=a", f"--{key}=b"]
        else:
            lines.append(f"{key} = 7")
            words.append(f"--{key}=7")
    assert len(lines) > 20
    assert parse(tmp_path, "\n".join(lines))[1:-2] == words


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    words = parse(tmp_path, 'p2p-port = 5\nmdns = false\nno-mine = false\nmodel-path = "m"', "--p2p-port", "6")
    assert words[0] == "run"
    assert words[1:-4] == ["--p2p-port=5", "--no-mdns", "--model-path=m"]
    assert words[-2:] == ["--p2p-port", "6"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p2p_port = 1", "unknown key 'p2p_port': keys are flags without --, see `poaid run --help`"),
        ('config = "x"', "unknown key 'config'"),
        ("[run]\np2p-port = 1", "unknown key 'run'"),
        ("mdns = 1", "mdns = 1 is not true or false"),
        ("p2p-port = true", "p2p-port = true is not a text or a number"),
        ("target = 0.5", "target = 0.5 is not a text or a number"),
        ('peer-multiaddr = "/ip4/..."', 'is not a list of texts, ["..."]'),
        ("peer-multiaddr = [1]", 'peer-multiaddr = [1] is not a list of texts, ["..."]'),
        ("p2p-port = ", "is not TOML: "),
        ("a = " + "[" * 5_000, "is not TOML: "),
        ("#" * (MAX_CONFIG_BYTES + 1), "that is no file of flags"),
    ],
)
def test_what_is_no_setting_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(tmp_path, text)
    assert str(error.value).startswith(f"--config {tmp_path / 'poaid.toml'}")
    assert message in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("words", [("--config", "none.toml"), ("--config=none.toml",)])
def test_no_file(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"--config none.toml cannot be read: No such file or directory"):
        complete_arguments(["run", *words])


def test_the_service_starts_with_its_file() -> None:
    file = ROOT / "deploy" / "poaid.toml"
    words = complete_arguments(["run", "--config", str(file)])
    assert words[1:-2] == [f"--{key}={value}" for key, value in tomllib.loads(file.read_text("utf-8")).items()]
