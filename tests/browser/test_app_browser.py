"""The annotation app in a real browser, where one is installed."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from annotators.app.board import FIELD_RAD, PX
from annotators.app.keys import KEYS
from annotators.app.main import App, run_app
from dataengine.view.viewer_server import ViewError
from tests.annotators.staged import Staged
from tests.browser.conftest import BROWSER, dismiss_toast, open_page, settle, wait_until

ROOT = Path(__file__).parents[2]

if BROWSER:  # what needs no browser is tested in tests/annotators

    @pytest.fixture(scope="module")
    def staged(render_tiny) -> Staged:
        """A video that shows the whole robot."""
        return Staged(render_tiny(video=3).video)

    @pytest.fixture
    def app(staged: Staged, tmp_path: Path, free_port: int) -> Iterator[App]:
        opened = App(staged.capture, staged.points, staged.solve, staged.suggest, tmp_path, "127.0.0.1", free_port)
        yield opened
        opened.stop()

    def on_screen(page, size: tuple[int, int], uv_px, eye: tuple[float, float, float] | None = None) -> tuple[float, float]:
        """Where a pixel of the board lies on the page; ``eye`` of the browser's camera, default: the whole picture.

        viser takes a pointer's position as the corner of the screen pixel it is in, hence the halves.
        """
        box = page.locator("canvas").first.bounding_box()
        if eye is None:
            tall = max(size[1], size[0] / (box["width"] / box["height"])) * PX * 1.03
            eye = (0.0, 0.0, -tall / 2 / np.tan(FIELD_RAD / 2))
        focal = box["height"] / 2 / np.tan(FIELD_RAD / 2) / -eye[2]
        x, y = ((uv_px[0] - (size[0] - 1) / 2) * PX - eye[0]) * focal, ((uv_px[1] - (size[1] - 1) / 2) * PX - eye[1]) * focal
        return box["x"] + box["width"] / 2 + x - 0.5, box["y"] + box["height"] / 2 + y - 0.5

    @pytest.mark.slow
    def test_clicking_solving_undoing_and_a_second_browser(app: App, browser, staged: Staged, tmp_path: Path):
        page = open_page(browser, app.server.get_port())
        wait_until(lambda: app.editor is not None, page)
        dismiss_toast(page)
        size, (client,) = staged.capture.size, app.server.get_clients().values()
        settle(page, client)
        assert app.frame == 0
        truth = staged.pixels(0)
        names = [point.name for point in staged.points]

        # Clicks land on the pixel under the pointer, keys 1 … 7 choose the landmark.
        for index in (0, 1, 2, 3, 4, 6):
            page.keyboard.press(str(index + 1))
            wait_until(lambda index=index: app.landmark == index, page)
            page.mouse.click(*on_screen(page, size, truth[names[index]]))
            wait_until(lambda index=index: app.clicks and app.clicks[-1].landmark == names[index], page)
            np.testing.assert_allclose(app.clicks[-1].uv_px, truth[names[index]], atol=0.02)

        # Six clicks start the solver; its suggestion is told and G goes there.
        wait_until(lambda: app.answer.suggestion is not None, page)
        page.locator("#status").get_by_text("Next (G): hand_corner_left in frame 3: 4.9 → 3.9 mm", exact=True).wait_for()
        wait_until(lambda: page.locator("#clicks").get_by_text("0.0 px").count() == 6, page)
        residuals = [row.inner_text().split("\t") for row in page.locator("#clicks tr").all()[1:]]
        assert len(residuals) == 6 and all(re.fullmatch(r"0\.0 px", row[-1]) for row in residuals)

        assert app.landmark == 6  # showing ✓ behind a landmark's name must not change the choice
        # Undo, redo, nudge, delete by keys.
        whole = app.clicks
        page.keyboard.press("Control+z")
        wait_until(lambda: app.clicks == whole[:-1], page)
        page.keyboard.press("Control+Shift+z")
        wait_until(lambda: app.clicks == whole, page)
        page.keyboard.press("Shift+ArrowRight")
        wait_until(lambda: app.clicks[-1].uv_px[0] == pytest.approx(whole[-1].uv_px[0] + 0.25, abs=1e-3), page)
        page.keyboard.press("Delete")
        wait_until(lambda: len(app.clicks) == 5, page)
        for _ in range(8):
            page.keyboard.press("Control+z")
        wait_until(lambda: app.clicks == (), page)
        for _ in range(6):
            page.keyboard.press("Control+y")
        wait_until(lambda: app.clicks == whole, page)
        assert len(json.loads((tmp_path / "clicks.json").read_text())["clicks"]) == 6

        # Zoomed in, a drag shows the loupe and moves the click it starts at to where it ends.
        page.keyboard.press("x")
        wait_until(lambda: abs(client.camera.position[2]) * 5 < size[0] * PX / np.tan(FIELD_RAD / 2), page)
        settle(page, client)
        eye = tuple(client.camera.position)
        start = whole[-1].uv_px
        end = (start[0] + 4.37, start[1] - 3.21)
        page.mouse.move(*on_screen(page, size, start, eye))
        page.mouse.down()
        page.mouse.move(*on_screen(page, size, end, eye), steps=4)
        wait_until(lambda: app._aim is not None, page)
        page.locator("#loupe img").wait_for()
        page.mouse.up()
        wait_until(lambda: app.clicks[-1].uv_px != start, page)
        np.testing.assert_allclose(app.clicks[-1].uv_px, end, atol=0.05)

        # A second browser looks on; what it clicks and presses changes nothing. It takes over when the first one goes.
        other = open_page(browser, app.server.get_port())
        other.get_by_text("another browser is editing").wait_for()
        before, frame = app.clicks, app.frame
        dismiss_toast(other)
        other.mouse.click(*on_screen(other, size, truth["hand"]))
        other.keyboard.press("Control+z")
        other.keyboard.press("f")
        other.wait_for_timeout(1500)
        assert (app.clicks, app.frame) == (before, frame)
        page.close()
        other.get_by_role("button", name="Undo").wait_for()
        assert other.get_by_text("another browser is editing").count() == 0
        other.keyboard.press("f")
        wait_until(lambda: app.frame == frame + 1, other)
        other.keyboard.press("h")
        other.get_by_role("dialog").wait_for()
        for key in KEYS:
            if key.action != "pick_landmark":
                assert other.get_by_role("dialog").get_by_text(key.label, exact=True).count() == 1, key
        other.close()

    @pytest.fixture
    def serve(staged: Staged, tmp_path: Path, free_port: int) -> Iterator[Callable[[], subprocess.Popen]]:
        (tmp_path / "record").write_bytes(pickle.dumps(staged.video))
        started: list[subprocess.Popen] = []

        def start() -> subprocess.Popen:
            command = [sys.executable, "-m", "tests.browser.serve_app", str(tmp_path / "record"), str(tmp_path / "work"), str(free_port)]
            started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
            wait_until(lambda: listening(free_port) or started[-1].poll() is not None)
            return started[-1]

        yield start
        for process in started:
            process.kill()
            process.wait()

    def new_place(page, known: list[str]) -> str | None:
        """`u, v` under the loupe once it is another than those known."""
        shown = page.locator("#loupe")
        text = shown.inner_text().split(" px")[0].strip() if shown.count() else ""
        return text if text and text not in known else None

    def listening(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    @pytest.mark.slow
    def test_kill_9_while_clicking_loses_nothing(serve, browser, staged: Staged, tmp_path: Path, free_port: int):
        server = serve()
        page = open_page(browser, free_port)
        page.get_by_role("button", name="Undo").wait_for()
        dismiss_toast(page)
        names, told = [point.name for point in staged.points[:4]], []
        for index, name in enumerate(names):
            page.keyboard.press(str(index + 1))
            page.locator("#guide b").get_by_text(name, exact=True).wait_for()
            page.mouse.click(*on_screen(page, staged.capture.size, staged.pixels(0)[name]))
            page.locator(f"#clicks tr:nth-child({index + 2})").wait_for()  # the browser was told, so the journal has it
            told.append(wait_until(lambda: new_place(page, told), page))
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        page.close()
        serve()
        page = open_page(browser, free_port)
        page.locator("#clicks tr:nth-child(5)").wait_for()
        assert "4 clicks" in page.locator("#status").inner_text()
        page.close()
        clicks = json.loads((tmp_path / "work" / "clicks.json").read_text())["clicks"]
        assert [click["landmark"] for click in clicks] == names
        assert [f"{click['u_px']:.2f}, {click['v_px']:.2f}" for click in clicks] == told

    def test_a_port_in_use_is_one_line_and_leaves_the_journal_free(staged: Staged, tmp_path: Path):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            for _ in range(2):
                with pytest.raises(ViewError, match=f"^port {port} of 127.0.0.1 is in use; close what runs there or give another --port$"):
                    run_app(staged.capture, staged.points, staged.solve, staged.suggest, tmp_path, port=port)
