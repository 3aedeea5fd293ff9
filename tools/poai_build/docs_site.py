"""What the documentation site needs beyond Sphinx, MyST and Furo: an extension, loaded by `docs/conf.py`.

The pages are written for GitHub and stay as they are. This module

- makes the tables of contents from the lists of the pages named README (`add_contents`);
- shows the picture of a `<picture>` for wide screens (`show_picture`): Sphinx copies no image of raw HTML;
- gives every heading the anchor that GitHub gives it (`SlugFirst`);
- leads links to what is no page to the repository (`RepositoryLinks`);
- leads names of the specification, and rejection codes, to their definitions: in text (`link_text`) and in code
  (`link_code`);
- refuses a site that fetches anything from another host (`check_hosts`).
"""

import html
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.slugs import github_slugify
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.transforms import SphinxTransform

from poai_tools.spec.compile import mask
from poai_tools.spec.pages import find_definitions, find_raises

REPOSITORY = "https://github.com/Deep-Commit/poai"
CODES_PAGE = "docs/rejection-codes"
LISTED_PAGE = re.compile(r"(?:-|\||\| \d+ \|) \[[^\]]+\]\(([^)#:]+)\.md\)")
ROOM = re.compile(r"specs/\w+/README")
PICTURE = re.compile(r'<picture>.*?<img alt="([^"]*)" src="([^"]*)"></picture>')
FOREIGN = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
FOREIGN_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
# Pygments' spans of names, modules and strings. After a dot comes an attribute; what begins a line is the definition.
SPAN = re.compile(
    r'(?<!<span class="o">\.</span>)(?<!\n)(?<!<pre><span></span>)'
    r'<span class="(?:n|nn|s2)">(?:"|&quot;)?(?P<name>[\w./-]+)(?:"|&quot;)?</span>'
)
Target = tuple[str, str]
"""A page, by Sphinx's name for it, and an anchor on it."""


def find_listed_pages(markdown: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each section that lists pages, with these: the first link of every item of a list, or row of a table."""
    for section in re.split(r"^## ", markdown, flags=re.MULTILINE):
        title, *lines = section.splitlines()
        pages = [match[1] for match in map(LISTED_PAGE.match, lines) if match]
        if pages:
            yield title, pages


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append the tables of contents to a README: those of the root have captions, the others stand below their page."""
    if not docname.endswith("/README") or ROOM.fullmatch(docname):  # the pages of a room stand in the reading order
        return
    for title, pages in find_listed_pages(source[0]):
        caption = [f":caption: {title}"] if docname == app.config.root_doc else []
        source[0] += "\n".join(["\n```{toctree}", ":hidden:", *caption, "", *pages, "```\n"])


def show_picture(_app: Sphinx, _docname: str, source: list[str]) -> None:
    """Replace a `<picture>` by its image for wide screens."""
    source[0] = PICTURE.sub(r"![\1](\2)", source[0])


class SlugFirst(SphinxTransform):
    """Makes the slug of a heading its first id, which links and tables of contents use."""

    default_priority = 701  # after MyST's AddSlugIds

    def apply(self) -> None:
        """Reorder the ids of all sections, and tell MyST."""
        slugs = self.env.metadata[self.env.docname].get("myst_slugs", {})
        for section in self.document.findall(nodes.section):
            slug = section.get("slug")
            if slug in section["ids"]:
                section["ids"].sort(key=lambda name: name != slug)
                line, _, title = slugs[slug]
                slugs[slug] = (line, slug, title)


class RepositoryLinks(SphinxTransform):
    """Leads links to files that are no pages, and to folders, to the repository on GitHub."""

    default_priority = 702

    def apply(self) -> None:
        """Replace what MyST made of these links: downloads and unknown references."""
        links = [*self.document.findall(addnodes.download_reference), *self.document.findall(addnodes.pending_xref)]
        for link in links:
            if link.get("refdomain") is not None or not link["reftarget"] or link["reftarget"].startswith("#"):
                continue
            relative, path = self.env.relfn2path(link["reftarget"], self.env.docname)
            if Path(path).exists():
                kind = "tree" if Path(path).is_dir() else "blob"
                uri = f"{REPOSITORY}/{kind}/main/{Path(relative).as_posix()}"
                link.replace_self(nodes.reference("", "", *link.children, internal=False, refuri=uri))


@cache
def find_targets(specs: Path) -> dict[str, Target]:
    """Return where names, modules (`poai_spec.proof.quiz`) and rejection codes of the specification are defined."""
    targets: dict[str, Target] = {}
    for page in sorted(specs.rglob("[a-z]*.md")):
        name = page.relative_to(specs).with_suffix("").as_posix()
        text, docname = page.read_text("utf-8"), f"specs/{name}"
        headings = find_definitions(text)
        targets |= {name: (docname, github_slugify(heading)) for name, heading in headings.items() if len(name) > 1}
        targets |= {site.code: targets[site.owner] for site in find_raises(mask(text, page.name)) if site.code}
        targets[f"poai_spec.{name.replace('-', '_').replace('/', '.')}"] = (docname, "")
    return targets


def get_uri(app: Sphinx, docname: str, target: Target) -> str:
    """Return the link from a page to a target."""
    page, anchor = target
    return app.builder.get_relative_uri(docname, page) + (f"#{anchor}" if anchor else "")


def link_text(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Lead names and codes in text to their definitions, but in headings, in links, and below their own heading."""
    targets = find_targets(app.srcdir / "specs")
    for literal in list(doctree.findall(nodes.literal)):
        target, above = targets.get(literal.astext()), literal.parent
        while isinstance(above, nodes.Element) and not isinstance(above, nodes.reference | nodes.title | nodes.section):
            above = above.parent
        if target and isinstance(above, nodes.section) and (docname, above.get("slug")) != target:
            uri = get_uri(app, docname, target)
            literal.replace_self(nodes.reference("", "", literal.deepcopy(), refuri=uri, classes=["definition"]))


def link_code(app: Sphinx, pagename: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Lead names in highlighted Python to their definitions, and codes to their meaning."""
    targets = find_targets(app.srcdir / "specs")

    def link(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in targets:
            return match[0]
        target = (CODES_PAGE, name.partition("/")[0]) if "/" in name else targets[name]
        uri = html.escape(get_uri(app, pagename, target))
        return f'<a class="definition" href="{uri}">{match[0]}</a>'

    context["body"] = SPAN.sub(link, context.get("body", ""))


class FetchFinder(HTMLParser):
    """Collects what an HTML or SVG file makes a browser fetch; links to follow are not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the attributes of one element that a browser follows by itself."""
        names = {"src", "srcset", "poster", "data"} | (set() if tag == "a" else {"href", "xlink:href"})
        self.found += [value for name, value in attrs if name in names and value]


def find_foreign(path: Path) -> list[str]:
    """Return the addresses on other hosts from which a file of the site would fetch something."""
    text, finder = path.read_text("utf-8"), FetchFinder()
    if path.suffix != ".css":
        finder.feed(text)
    return [*filter(FOREIGN.match, finder.found), *FOREIGN_STYLE.findall(text)]


def check_hosts(app: Sphinx, exception: Exception | None) -> None:
    """Refuse a site that fetches scripts, styles, fonts or images from another host.

    Raises:
        ExtensionError: with the first such file.
    """
    if exception is not None:
        return
    for path in sorted(path for kind in ("html", "css", "svg") for path in app.outdir.rglob(f"*.{kind}")):
        for address in find_foreign(path):
            raise ExtensionError(f"{path.relative_to(app.outdir)} fetches {address}: keep a copy in docs/_static")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register everything with Sphinx."""
    app.add_transform(SlugFirst)
    app.add_transform(RepositoryLinks)
    app.connect("source-read", add_contents)
    app.connect("source-read", show_picture)
    app.connect("doctree-resolved", link_text)
    app.connect("html-page-context", link_code)
    app.connect("build-finished", check_hosts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
