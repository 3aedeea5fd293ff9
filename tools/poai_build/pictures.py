"""The README's pictures: a testnet's last table, and the page of one of its nodes. Run by `make pictures`.

Chromium or Chrome must be on the path.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from poai_engine.errors import ModelError, make_line
from poaid.ports import RUNNING_FILE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),  # Chromium refuses root otherwise
]  # fmt: skip
BLOCKS, SHOWN_FROM = 20, 16
"""Height at which the testnet stops, and from which the page is taken: plots and list are filled by then."""
WAIT_S = 600
SIZES = {"page": (1180, 900), "page-phone": (390, 844)}


def find_browser() -> str:
    """Return the path of a browser.

    Raises:
        ModelError: there is none.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise ModelError(f"no browser on the path: install one of {', '.join(BROWSERS)}")
    return found


def wait_for_url(data_dir: Path, testnet: "subprocess.Popen[bytes]") -> str:
    """Return the page's address of the testnet's first node, once it runs.

    Raises:
        ModelError: the testnet has ended before.
    """
    file, deadline = data_dir / "node-0" / RUNNING_FILE, time.monotonic() + WAIT_S
    while not file.is_file():
        if testnet.poll() is not None or time.monotonic() > deadline:
            raise ModelError("the testnet did not start: run `poaid testnet` to see why")
        time.sleep(0.2)
    running = json.loads(file.read_text("utf-8"))
    return f"http://{running['host']}:{running['http_port']}/"


def take(browser: Browser, url: str, name: str, scheme: str, folder: Path) -> None:
    """Take one picture of the page."""
    width, height = SIZES[name]
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=1.5,
        bypass_csp=True,  # to wait for something by a script
    )
    page.goto(url)
    page.wait_for_function(
        f"Number(document.querySelector('#tip-height').textContent) >= {SHOWN_FROM}", timeout=WAIT_S * 1000
    )
    page.wait_for_selector("#quiz-answers li")
    page.screenshot(path=str(folder / f"{name}-{scheme}.png"))
    page.close()


def main(folder: Path) -> None:
    """Run a testnet and write its pictures into a folder."""
    executable = find_browser()
    with tempfile.TemporaryDirectory(prefix="poai-pictures-") as scratch:
        data_dir, poaid = Path(scratch) / "testnet", Path(sys.executable).with_name("poaid")
        command: list[str | Path] = [
            poaid,
            "testnet",
            "--blocks",
            str(BLOCKS),
            "--data-dir",
            data_dir,
            "--record",
            folder / "testnet.svg",
        ]
        with subprocess.Popen(command) as testnet:
            url = wait_for_url(data_dir, testnet)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
                for name, scheme in (("page", "light"), ("page", "dark"), ("page-phone", "dark")):
                    take(browser, url, name, scheme, folder)
                browser.close()
            if testnet.wait() != 0:
                raise ModelError("the testnet did not agree: see above")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (ModelError, OSError) as error:
        print(f"error: {make_line(str(error))}", file=sys.stderr)
        sys.exit(1)
