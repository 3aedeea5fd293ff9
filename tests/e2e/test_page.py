"""The page in a real browser: what it shows, how it follows the node, and that it stays on its origin.

The node is a chain in memory behind the real server. Tests that take `url` and not `node` only read: they hold for any
node that has blocks.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from poai_build.pictures import FLAGS, find_browser
from poai_engine.errors import ModelError
from poai_engine.models.gguf_file import Vocabulary, read_vocabulary
from poai_engine.models.model_store import MODEL_DIR_VARIABLE
from poai_spec.basics.containers import Block
from poai_spec.basics.encoding import decode
from poai_spec.chain.block import Judge, make_judge
from poai_spec.chain.upgrades import get_rules
from poaid.models import load_engine
from poaid.store.database import Database
from poaid.view import Event, PeerView
from tests.harness.engines import Remembering
from tests.harness.memory_view import PEERS, MemoryView
from tests.harness.node import MINER, PACES, FakeClock, make_quick_network, mine, read_data
from tests.harness.shown_node import ShownNode

TIMEOUT_MS = 15_000
BLOCKS = 3 * len(PACES)
START = BLOCKS - 2
"""Height at which each test begins; two blocks are left to arrive."""
LISTED = 20
"""Blocks in the page's table."""
WIDTHS = (360, 700, 1280)
"""Pixels: a small phone, a tablet, a desktop."""
MIN_CONTRAST = 4.5
"""WCAG 2.2, level AA, for text of ordinary size."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        executable = find_browser()
    except ModelError:
        pytest.skip("no Chromium on PATH: install the package chromium (or google-chrome) to test the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class MinedForPage:
    """A chain, its judge, and the model's vocabulary."""

    judge: Judge
    headers: list[Any]
    blocks: list[Block]
    vocabulary: Vocabulary
    now: int


@pytest.fixture(scope="module")
def chain(mini_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinedForPage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODEL_DIR_VARIABLE, str(mini_path.parent))
        network, clock = make_quick_network(), FakeClock()
        judge = make_judge(
            network.config, network.questions, Remembering(load_engine("mini", get_rules(network.config, (), 0), 1))
        )
        with Database.create_or_open(tmp_path_factory.mktemp("page"), network, "mini") as store:
            headers = list(mine(store, judge, clock, PACES * (BLOCKS // len(PACES))).headers)
            blocks = [decode(Block, data) for data in read_data(store)]
        yield MinedForPage(judge, headers, blocks, read_vocabulary(mini_path), clock.now)


@pytest.fixture
def view(chain: MinedForPage) -> MemoryView:
    return MemoryView(chain.judge, chain.headers, chain.blocks, chain.vocabulary, MINER, START)


@pytest.fixture
def node(view: MemoryView) -> Iterator[ShownNode]:
    node = ShownNode(view)
    node.start()
    yield node
    node.stop()


@pytest.fixture
def url(node: ShownNode) -> str:
    return node.url


@dataclass
class Watched:
    """What a page did beside showing things."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def page(browser: Browser, watched: Watched) -> Iterator[Page]:
    with browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce") as context:
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.on("console", lambda message: watched.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("request", lambda request: watched.requests.append(request.url))
        yield page


def open_page(page: Page, url: str) -> None:
    """Open the page and wait until everything is there."""
    page.goto(url)
    expect(page.locator("#connection")).to_have_attribute("data-state", "live", timeout=TIMEOUT_MS)
    expect(page.locator("#blocks tbody tr").first).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.locator("#quiz")).to_have_attribute("aria-busy", "false", timeout=TIMEOUT_MS)


def read(page: Page, path: str) -> Any:
    """Return the JSON at a path of the page's node."""
    return page.request.get(f"http://{urlsplit(page.url).netloc}{path}").json()


def test_the_tip_is_that_of_the_status(page: Page, url: str) -> None:
    open_page(page, url)
    status = read(page, "/status")
    expect(page.locator("#tip-height")).to_have_attribute("data-height", str(status["height"]))
    expect(page.locator("#tip-hash")).to_have_attribute("data-hash", status["head"])
    expect(page.locator("#tip-hash")).to_have_text(status["head"][:10] + "…")
    expect(page.locator("#network")).to_have_text(status["network"])
    expect(page.locator("#activity b")).to_have_text(status["activity"])
    expect(page.locator("#peer-count")).to_have_text(str(status["peer_count"]))


def test_the_latest_blocks_are_listed(page: Page, url: str) -> None:
    open_page(page, url)
    hashes = [row.get_attribute("data-hash") for row in page.locator("#blocks tbody tr").all()]
    assert hashes == [block["hash"] for block in read(page, f"/blocks?count={LISTED}")]


def test_the_heads_quiz_is_shown_with_its_losses(page: Page, url: str) -> None:
    open_page(page, url)
    height = read(page, "/status")["height"]
    quiz = read(page, f"/quiz/{height}")
    expect(page.locator("#quiz-title")).to_have_text(f"Quiz of block {height}")
    assert quiz["text"] in (page.locator("#quiz-text").text_content() or "").replace("↵", "")
    tokens = page.locator("#quiz-answers li")
    expect(tokens).to_have_count(len(quiz["scored"]))
    for token, scored in zip(tokens.all(), quiz["scored"], strict=True):
        expect(token.locator(".number").first).to_have_text(f"{scored['loss'] / 65536:.2f} bits")
    expect(page.locator("#quiz-loss")).to_have_text(f"{quiz['loss'] / 65536:.2f} bits")
    marks = page.locator("#quiz-text mark").all_text_contents()
    assert [mark.replace("↵\n", "\n") for mark in marks] == [scored["text"] for scored in quiz["scored"]]


def test_nothing_leaves_the_origin_and_nothing_fails(page: Page, url: str, watched: Watched) -> None:
    open_page(page, url)
    page.locator("#peers tbody tr").first.wait_for()
    assert {urlsplit(address).netloc for address in watched.requests} == {urlsplit(url).netloc}
    assert {urlsplit(address).path for address in watched.requests} >= {"/", "/events", "/blocks", "/static/page.js"}
    assert watched.errors == []


def test_a_new_block_appears_without_a_reload(page: Page, node: ShownNode, watched: Watched) -> None:
    open_page(page, node.url)
    before = page.locator("#blocks tbody tr").first.get_attribute("data-hash")
    node.call(node.view.set_height, START + 1)
    block = node.view.get_block("head")
    assert block is not None
    first = page.locator("#blocks tbody tr").first
    expect(first).to_have_attribute("data-hash", block["hash"])
    expect(first).to_have_class(re.compile(r"\bnew\b"))
    expect(first).to_have_class(re.compile(r"\bselected\b"))
    expect(page.locator("#blocks tbody tr").nth(1)).to_have_attribute("data-hash", before or "")
    expect(page.locator("#blocks tbody tr")).to_have_count(LISTED)
    expect(page.locator("#tip-hash")).to_have_attribute("data-hash", block["hash"])
    expect(page.locator("#quiz")).to_have_attribute("data-hash", block["hash"])
    assert [urlsplit(address).path for address in watched.requests].count("/") == 1
    assert watched.errors == []


def test_a_reorganisation_replaces_the_list(page: Page, node: ShownNode) -> None:
    open_page(page, node.url)
    node.call(node.view.set_height, 3)
    rows = page.locator("#blocks tbody tr")
    expect(rows).to_have_count(4)  # genesis included
    assert [row.get_attribute("data-hash") for row in rows.all()] == [
        block["hash"] for block in node.view.list_blocks(None, LISTED)
    ]
    expect(page.locator("#quiz-title")).to_have_text("Quiz of block 3")


def test_a_selected_block_stays_until_the_head_is_followed(page: Page, node: ShownNode) -> None:
    open_page(page, node.url)
    page.locator(f"#blocks tr[data-height='{START - 5}'] button").click()
    expect(page.locator("#quiz-title")).to_have_text(f"Quiz of block {START - 5}")
    expect(page.locator("#block-height")).to_have_text(str(START - 5))
    node.call(node.view.set_height, START + 1)
    expect(page.locator("#tip-height")).to_have_attribute("data-height", str(START + 1))
    expect(page.locator("#quiz-title")).to_have_text(f"Quiz of block {START - 5}")
    expect(page.locator("#follow")).to_have_attribute("aria-pressed", "false")
    page.locator("#follow").click()
    expect(page.locator("#quiz-title")).to_have_text(f"Quiz of block {START + 1}")


def test_genesis_says_that_it_has_no_quiz(page: Page, node: ShownNode) -> None:
    node.call(node.view.set_height, 0)
    open_page(page, node.url)
    expect(page.locator("#quiz-note")).to_have_text("Genesis has no quiz: nobody mined it.")
    node.call(node.view.set_height, 1)
    expect(page.locator("#quiz-title")).to_have_text("Quiz of block 1")
    expect(page.locator("#quiz-note")).to_be_hidden()


def test_a_lost_node_is_told_and_found_again(page: Page, node: ShownNode) -> None:
    open_page(page, node.url)
    node.stop()
    expect(page.locator("#connection")).to_have_attribute("data-state", "lost")
    expect(page.locator("#connection")).to_have_text(re.compile("the node does not answer since .*; trying again"))
    node.view.set_height(START + 2)  # nobody listens now
    node.start()
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    expect(page.locator("#blocks tbody tr").first).to_have_attribute("data-height", str(START + 2))


def test_what_a_peer_says_is_text(page: Page, node: ShownNode, watched: Watched) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    node.view.peers[0] = PeerView(**{**PEERS[0], "peer_id": hostile, "address": hostile})
    node.view.changes["network"] = node.view.changes["reason"] = hostile
    open_page(page, node.url)
    expect(page.locator("#peers tbody td").nth(1)).to_have_text(hostile)
    expect(page.locator("#network")).to_have_text(hostile)
    expect(page.locator("#reason")).to_have_text(hostile)
    assert page.locator("main img").count() == 0
    assert watched.errors == []


def test_a_sync_shows_how_far_it_is(page: Page, node: ShownNode) -> None:
    sync = {"height": 250, "goal": 1_000, "blocks_left": 750, "seconds_left": 3_000.0}
    node.view.changes |= {"activity": "syncing", "reason": "behind its peers", "sync": sync}
    open_page(page, node.url)
    expect(page.locator("#sync-text")).to_have_text("block 250 of 1,000, 750 to replay, about 50 min left")
    node.call(node.view.changes.clear)
    node.call(node.view.emit, Event("status", node.view.get_status()))
    expect(page.locator("#sync")).to_be_hidden()


def test_a_node_alone_says_so(page: Page, node: ShownNode) -> None:
    node.view.peers.clear()
    open_page(page, node.url)
    expect(page.locator("#no-peers")).to_be_visible()
    expect(page.locator("#peers")).to_be_hidden()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(page: Page, url: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    open_page(page, url)
    page.locator("#peers tbody tr").first.wait_for()
    page.locator("#block-details").evaluate("details => { details.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = "[...document.querySelectorAll('main *')].filter(e => !e.closest('thead, .hidden'))"
    outside = (
        f"{shown}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert page.evaluate(outside) == []


CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), poor = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
    if (!text || !element.checkVisibility() || element.closest("noscript, .hidden, .skip, thead")) continue;
    const backgrounds = [];
    for (let e = element; e; e = e.parentElement) backgrounds.unshift(getComputedStyle(e).backgroundColor);
    const ground = light(paint(backgrounds)), ink = light(paint([...backgrounds, getComputedStyle(element).color]));
    const ratio = (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
    if (ratio < %s) poor.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS[::2])
def test_every_text_can_be_read(page: Page, url: str, scheme: Any, width: int, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    open_page(page, url)
    page.locator("#peers tbody tr").first.wait_for()
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png", full_page=True)
    assert page.evaluate(CONTRAST % MIN_CONTRAST) == []


def test_the_keyboard_reaches_every_block(page: Page, url: str) -> None:
    open_page(page, url)
    page.locator("#blocks tbody button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    second = page.locator("#blocks tbody tr").nth(1)
    expect(second).to_have_class(re.compile(r"\bselected\b"))
    expect(second.locator("button")).to_have_attribute("aria-current", "true")


def test_plots_tell_their_values(page: Page, url: str) -> None:
    open_page(page, url)
    blocks = read(page, "/blocks?count=100")
    losses = [block["loss"] / 65536 for block in blocks if block["height"] > 0]
    label = page.locator("#plot-loss svg").get_attribute("aria-label") or ""
    assert label.endswith(f": {min(losses):.1f} bits to {max(losses):.1f} bits")
    times = [(later["time"] - earlier["time"]) / 1000 for later, earlier in pairwise(blocks) if earlier["height"] > 0]
    interval = page.locator("#plot-interval output")
    expect(interval).to_have_text(f"{times[0]:.1f} s")
    page.locator("#plot-loss svg").hover(position={"x": 1, "y": 30})
    expect(page.locator("#plot-loss output")).to_have_text(f"block 1: {losses[-1]:.1f} bits")
