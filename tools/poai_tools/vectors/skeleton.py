"""A skeleton for a client in another language: the protocol, all signatures, and a small program that runs."""

import shlex
from pathlib import Path

import poai_spec
from poai_tools.vectors.disk import write
from poai_tools.vectors.errors import VectorsError
from poai_tools.vectors.files import make_signatures
from poai_tools.vectors.languages import LANGUAGES

TEMPLATES = Path(__file__).parent / "templates"


def format_signatures() -> str:
    """Return the signature of every function as markdown."""
    lines, suite = [], ""
    for row in make_signatures()["functions"]:
        if row["suite"] != suite:
            suite = row["suite"]
            lines += [f"### {suite}", ""]
        names = ", ".join(row["definitions"])
        where = f"page {row['page']}" if names == row["function"] else f"page {row['page']}: {names}"
        lines += [f"- `{row['function']}` ({where}): {row['summary']}"]
        lines += [f"  - {way}: {_format_fields(row[way])}" for way in ("input", "output")]
    return "\n".join(_separate(lines))


def _format_fields(fields: dict[str, str]) -> str:
    return ", ".join(f"`{name}`: {kind}" for name, kind in fields.items()) or "no fields"


def _separate(lines: list[str]) -> list[str]:
    """Put an empty line before each heading but the first."""
    return [line for n, text in enumerate(lines) for line in (["", text] if n and text.startswith("#") else [text])]


def write_skeleton(folder: Path, language: str) -> list[Path]:
    """Write README.md and an example client into a new or empty folder; return the files.

    Raises:
        VectorsError: the folder is not empty or cannot be written, or there is no example in this language.
    """
    if language not in LANGUAGES:
        names = ", ".join(LANGUAGES)
        raise VectorsError(
            f"no example in {language!r}, only in {names}; its README.md holds the protocol for any language", status=2
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise VectorsError(f"{folder} is not an empty folder: name a new one", status=2)
    chosen, quoted = LANGUAGES[language], shlex.quote(str(folder))
    build = f"$ {chosen.build.format(folder=quoted)}\n" if chosen.build else ""
    values = {
        "VERSION": poai_spec.__version__,
        "FILE": next(iter(chosen.files)),
        "BUILD": build,
        "COMMAND": chosen.run.format(folder=quoted),
        "FUNCTIONS": format_signatures(),
    }
    text = (TEMPLATES / "README.md").read_text("utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    for name, template in chosen.files.items():
        write(folder / name, (TEMPLATES / template).read_text("utf-8"))
    write(folder / "README.md", text)
    return [folder / name for name in ("README.md", *chosen.files)]
