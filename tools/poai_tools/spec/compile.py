"""Turn the normative pages of `specs/` into the package `poai_spec`, line for line.

The compiler is a mask: line N of `specs/chain/fork-choice.md` is line N of `poai_spec/chain/fork_choice.py`. Python
fences are kept, every other line becomes a comment, fences become blank lines. Nothing is reordered, joined or
injected, so a traceback, a coverage report or "go to definition" points into the page.
"""

from pathlib import Path, PurePath

MARK = "  [generated from {page} by `poai spec compile`: edit the page]"


def mask(markdown: str, page: str) -> str:
    """Return the Python module for one page, with as many lines as the page has.

    Raises:
        ValueError: a fence is opened inside another, or never closed.
    """
    lines, fence = [], ""
    for number, line in enumerate(markdown.splitlines(), 1):
        if line.startswith("```") and fence and line.rstrip() != "```":
            raise ValueError(f"{page}:{number}: a fence is opened inside another one; close the first")
        if line.startswith("```"):
            fence = "" if fence else line[3:].strip() or "text"
            lines.append("" if fence in ("", "python") else f"# {line}")
        elif fence == "python":
            lines.append(line.rstrip())
        else:
            lines.append(f"# {line}".rstrip() if line.strip() else "")
    if fence:
        raise ValueError(f"{page}: the last ```{fence} fence is never closed")
    lines[0] += MARK.format(page=page)
    return "\n".join(lines) + "\n"


def module_name(page: PurePath) -> str:
    """Return the file of a page's module: `chain/fork-choice.md` is `chain/fork_choice.py`, a README its package."""
    name = "__init__.py" if page.name == "README.md" else page.stem.replace("-", "_") + ".py"
    return str(page.with_name(name))


def page_name(module: PurePath) -> str:
    """Return the page that a module was made of: the other direction of `module_name`."""
    name = "README.md" if module.name == "__init__.py" else module.stem.replace("_", "-") + ".md"
    return str(module.with_name(name))


def generate(specs: Path) -> dict[str, bytes]:
    """Return every file of `poai_spec` as relative path and content."""
    pages = [path.relative_to(specs) for path in sorted(specs.rglob("*.md"))]
    files = {module_name(page): mask((specs / page).read_text("utf-8"), f"specs/{page}").encode() for page in pages}
    files |= {f"manifests/{p.name}": p.read_bytes() for p in sorted((specs / "manifests").glob("*.json"))}
    return files | {"py.typed": b""}


def compile_specs(root: Path, *, check: bool) -> list[str]:
    """Write `poai_spec` under `root`, or with `check` only compare; return the paths that differed."""
    target, files = root / "poai_spec", generate(root / "specs")
    found = {str(p.relative_to(target)): p.read_bytes() for p in sorted(target.rglob("*"))
             if p.is_file() and "__pycache__" not in p.parts}  # fmt: skip
    stale = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
    for name in [] if check else stale:
        path = target / name
        if name not in files:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
    return stale
