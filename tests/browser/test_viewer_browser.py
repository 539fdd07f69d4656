"""`dataengine view` in a real browser, where one is installed."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataengine.store.dataset import open_or_create
from dataengine.view.viewer import Viewer, open_viewer
from tests.browser.conftest import BROWSER, dismiss_toast, open_page, settle, wait_until

if BROWSER:  # what needs no browser is tested in tests/view

    @pytest.fixture
    def viewer(tmp_path: Path, tiny_rendered, free_port: int) -> Iterator[Viewer]:
        dataset = open_or_create(tmp_path / "set", {}, "0" * 64, "tiny")
        dataset.add(0, tiny_rendered.video, "train")
        dataset.add(1, tiny_rendered.video, "val")
        opened = open_viewer(dataset, None, "127.0.0.1", free_port)
        end = threading.Event()
        thread = threading.Thread(target=opened.run, args=(end.is_set,))
        thread.start()
        yield opened
        end.set()
        thread.join()
        opened.stop()

    def canvas_pixels(page) -> np.ndarray:
        clip = page.locator("canvas").first.bounding_box()
        return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip, animations="disabled"))).convert("RGB"))

    @pytest.mark.slow
    def test_page_shows_the_scene_moves_the_robot_and_tells_a_clicked_pixel(viewer: Viewer, browser, tiny_rendered):
        page = open_page(browser, viewer.server.get_port())
        video = tiny_rendered.video
        (client,) = wait_until(lambda: tuple(viewer.server.get_clients().values()), page)
        # Content: not one flat colour. Many colours come from the point clouds and the picture.
        wait_until(lambda: len(np.unique(canvas_pixels(page).reshape(-1, 3), axis=0)) > 500, page)

        # The slider moves the robot: keys on the focused slider, then the server's own poses.
        link = video.names.links.index("panda_hand")
        poses = video.frames["T_world_cam"] @ video.frames["T_cam_link"][:, link]
        np.testing.assert_allclose(viewer.robot["panda_hand"].position, poses[0, :3, 3], atol=1e-9)
        page.locator("[role=slider]").first.focus()
        page.keyboard.press("ArrowRight")
        wait_until(lambda: viewer.frame == 1, page)
        wait_until(lambda: np.allclose(viewer.robot["panda_hand"].position, poses[1, :3, 3], atol=1e-9), page)
        assert np.linalg.norm(poses[1, :3, 3] - poses[0, :3, 3]) > 1e-5

        dismiss_toast(page)
        settle(page, client)

        # Through the camera, a click in the canvas tells the stored values of that pixel.
        page.get_by_role("button", name="Through the camera").click()
        wait_until(lambda: np.allclose(client.camera.position, video.frames[1]["T_world_cam"][:3, 3], atol=1e-3), page)
        settle(page, client)
        box = page.locator("canvas").first.bounding_box()
        height, width = video.size
        focal = box["height"] / 2 / np.tan(client.camera.fov / 2)
        K = video.frames[1]["K"]
        for u, v in ((25, 60), (80, 48), (140, 70)):
            x = box["x"] + box["width"] / 2 + (u - (width - 1) / 2) / K[0, 0] * focal
            y = box["y"] + box["height"] / 2 + (v - (height - 1) / 2) / K[1, 1] * focal
            page.mouse.click(x - 0.5, y - 0.5)  # viser takes a pointer's position as the corner of the screen pixel it is in
            wait_until(lambda u=u, v=v: viewer.pixel == (u, v), page)
            for value in viewer.values:
                assert value.stored == tuple(np.atleast_1d(video.images[value.name][1, v, u]).tolist())
            table = page.locator(f"table[data-pixel='{u},{v}']")
            table.wait_for()
            shown = {row.locator("th").inner_text(): row.locator("td").inner_text() for row in table.locator("tr").all()}
            assert set(video.images) < set(shown)
            assert float(shown["depth_z"].split()[0]) == pytest.approx(float(video.images["depth_z"][1, v, u]), abs=6e-5)

    @pytest.mark.slow
    def test_keys_play_and_videos(viewer: Viewer, browser):
        page = open_page(browser, viewer.server.get_port())
        wait_until(viewer.server.get_clients, page)
        page.wait_for_timeout(500)
        page.keyboard.press("f")
        wait_until(lambda: viewer.frame == 1, page)
        page.keyboard.press("d")
        wait_until(lambda: viewer.frame == 0, page)
        page.keyboard.press("Space")
        wait_until(lambda: viewer.controls.play.value, page)
        seen = set()
        wait_until(lambda: seen.add(viewer.frame) or seen == {0, 1}, page)
        viewer.controls.play.value = False
        viewer.controls.video.value = "1"
        wait_until(lambda: viewer.video == 1, page)
        viewer.controls.layers["Robot"].value = False
        wait_until(lambda: not viewer.server.scene.get_handle_by_name("/robot").visible, page)
        viewer.controls.point_colour.value = "mask_link"
        viewer.controls.arrange.value = "on top of each other"
        wait_until(lambda: not viewer._clouds["Measured depth"][1].any(), page)
