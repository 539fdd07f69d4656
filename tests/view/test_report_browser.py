"""The report in a real browser, where one is installed (Debian package `chromium`)."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest

from dataengine.quality.coverage import coverage
from dataengine.view.report import ReportInfo, write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1300,1200", "--virtual-time-budget=5000",
)  # fmt: skip

if BROWSER:  # the text of the page is tested everywhere; this file adds what only a browser can tell

    def open_page(path, fragment: str, folder) -> str:
        run = subprocess.run(
            [BROWSER, *FLAGS, f"--user-data-dir={folder}", "--dump-dom", f"{path.as_uri()}#{fragment}"],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return run.stdout

    def readout(dom: str) -> dict[str, str]:
        table = re.search(r'<table id="readout".*?</table>', dom, re.S)
        assert table
        rows = re.findall(r"<th>(.*?)</th><td>(.*?)</td>", table[0], re.S)
        return {name: html.unescape(re.sub(r"<[^>]+>", "", value)).replace("−", "-") for name, value in rows}

    @pytest.mark.slow
    def test_hovering_tells_the_labels_of_that_pixel(tmp_path, synthetic):
        videos = [synthetic(seed=1), synthetic(seed=2)]
        path = write_report(tmp_path / "report.html", ReportInfo("demo", "out/demo", checks=9), coverage(videos), videos)
        video, f = videos[1], 2
        images = {name: array[f] for name, array in video.images.items()}
        on_robot = np.argwhere((images["mask_link"] > 0) & (images["depth_sim"] > 0))
        on_box = np.argwhere((images["mask_object"] == 3) & (images["depth_sim"] > 0))
        for v, u in (on_robot[(on_robot % 2 == 0).all(1)][50], on_box[(on_box % 2 == 0).all(1)][50]):
            dom = open_page(path, f"video=1&frame={f}&panel=depth_sim&x={u}&y={v}", tmp_path / f"profile{u}")
            assert f'data-ready="1/{f}"' in dom
            shown = readout(dom)
            assert shown["pixel"] == f"{u}, {v}"
            assert float(shown["depth, true"].split()[0]) == pytest.approx(float(images["depth_z"][v, u]), abs=2e-4)
            assert float(shown["depth, sensor"].split()[0]) == pytest.approx(float(images["depth_sim"][v, u]), abs=2e-4)
            error_mm = 1000 * float(images["depth_sim"][v, u] - images["depth_z"][v, u])
            assert float(shown["error"].split()[0]) == pytest.approx(error_mm, abs=0.31)
            link, thing = images["mask_link"][v, u], images["mask_object"][v, u]
            assert shown["link"] == (video.names.links[link - 1] if link else "–")
            assert shown["object"] == ({3: "box_3"}.get(int(thing), "?") if thing else "–")
            assert [float(c) for c in shown["normal x y z"].split()] == pytest.approx(images["normals"][v, u] / 127, abs=0.006)
            assert "dataengine replay out/demo 2 2" in dom
            assert dom.count("<circle cx") + dom.count("<circle xmlns") >= 7
