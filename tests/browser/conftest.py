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
