"""A real headless browser: Debian's `chromium`, driven by playwright, WebGL in software."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic")
PATIENCE_S = 120


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield opened
        opened.close()


def wait_until(condition: Callable[[], Any], page: Any = None) -> Any:
    """The first true value of ``condition``; a page is kept alive meanwhile. AssertionError after two minutes."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited two minutes in vain"
        if page is None:
            time.sleep(0.05)
        else:
            page.wait_for_timeout(50)
    return value


def open_page(browser: Any, port: int, width: int = 820, height: int = 420) -> Any:
    """A page that shows the server's scene."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(1000 * PATIENCE_S)
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector("canvas")
    return page


def dismiss_toast(page: Any) -> None:
    """viser warns of software rendering, over the picture."""
    page.get_by_text("Software WebGL rendering detected").wait_for()
    page.locator("[class*=Notification-closeButton]").first.click()
    page.get_by_text("Software WebGL rendering detected").wait_for(state="detached")


def settle(page: Any, client: Any) -> None:
    """Wait until the browser itself says that its window has the final shape and that its camera stands still."""
    box = page.locator("canvas").first.bounding_box()
    wait_until(lambda: abs(client.camera.aspect - box["width"] / box["height"]) < 0.01, page)
    quiet: list[float] = [0.0, 0]

    def still() -> bool:
        quiet[1] = quiet[1] + 1 if client.camera.update_timestamp == quiet[0] else 0
        quiet[0] = client.camera.update_timestamp
        return quiet[1] > 40

    wait_until(still, page)
