"""`dataengine annotate` as a chain: what is finished is not done again, what fails is one line, what is kept survives."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import yaml

import annotators.anchor
import annotators.sfm
from annotators.cli import annotate, review
from annotators.clicks_file import read_clicks
from annotators.run import needs_second_pass, robot_masks
from annotators.spreads import leave_one_out, odd_even
from annotators.stages import key_of, load, load_json, save, save_json
from annotators.types import CameraTrack, Click, Solution
from dataengine import cli
from dataengine.errors import DataEngineError, StoreError
from dataengine.store.dataset import open_dataset
from tests.annotators.solved import SIZE, K, N, world


def track_of(solution, refusal=None):
    T = solution.T_world_cam.copy()
    T[:, :3, 3] /= solution.metres_per_unit
    none = np.empty(0, np.int64)
    covariance = np.broadcast_to(np.eye(6) * 1e-6, (N, 6, 6)).copy()
    return CameraTrack(
        T, covariance, np.ones(N, bool), (), np.empty((0, 3)), none, none, np.empty((0, 2)), 0.5, "global",
        {"translation": 0.001}, refusal,
    )  # fmt: skip


@pytest.fixture()
def capture_yaml(tmp_path):
    """The solved world as a capture on disk."""
    capture, _ = world()
    folder = tmp_path / "capture"
    for name in ("rgb", "depth", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(N):
        cv2.imwrite(str(folder / f"rgb/{i:06d}.png"), capture.rgb(i)[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{i:06d}.png"), np.rint(capture.depth_z_m(i) * 1000).astype(np.uint16))
        cv2.imwrite(str(folder / f"masks/{i:06d}.png"), capture.mask(i).astype(np.uint8) * 255)
    rows = [" ".join(map(str, [t, *q])) for t, q in zip(capture.times_s, capture.joints.positions_rad, strict=True)]
    (folder / "joints.csv").write_text("\n".join(rows) + "\n")
    numbers = {"fx_px": K[0, 0], "fy_px": K[1, 1], "cx_px": K[0, 2], "cy_px": K[1, 2], "width": SIZE[0], "height": SIZE[1]}
    spec = {
        "name": "solved", "images": "rgb", "depth": {"path": "depth"}, "masks": {"path": "masks"}, "robot": "panda", "fps": 5.0,
        "intrinsics": {k: float(v) if isinstance(v, np.floating) else v for k, v in numbers.items()}, "joints": {"path": "joints.csv"},
    }  # fmt: skip
    (folder / "capture.yaml").write_text(yaml.safe_dump(spec))
    return folder / "capture.yaml"


@pytest.fixture()
def solvers(monkeypatch):
    """Solvers that know the answer and count how often they are asked."""
    _, solution = world()
    asked = {"sfm": 0, "anchor": 0}

    def solve_cameras(capture, folder, static=(), masks=None, mapper="auto", seed=0, progress=None):
        asked["sfm"] += 1
        folder.mkdir(parents=True, exist_ok=True)
        progress("features", 1.0)
        return track_of(solution, asked.get("refusal"))

    def solve(capture, track, clicks, options=None, masks=None):
        asked["anchor"] += 1
        residual, inlier = np.zeros((len(clicks), 2)), np.ones(len(clicks), bool)
        return dataclasses.replace(solution, click_residual_px=residual, click_inlier=inlier, flags=asked.get("flags", ()))

    monkeypatch.setattr(annotators.sfm, "solve_cameras", solve_cameras)
    monkeypatch.setattr(annotators.anchor, "solve", solve)
    return asked


def write_clicks(path, frames=(0, 1, 2, 3)):
    rows = [{"frame": f, "landmark": name, "u_px": 50.0, "v_px": 40.0} for f in frames for name in ("elbow", "wrist")]
    path.write_text(json.dumps({"clicks": rows}))
    return path


def test_a_finished_stage_is_not_done_again(capture_yaml, solvers, tmp_path, capsys):
    out, clicks = tmp_path / "out", write_clicks(tmp_path / "clicks.json")
    assert annotate(capture_yaml, out, clicks) == 0
    first = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert solvers == {"sfm": 1, "anchor": 10}  # one whole, two halves; by clicks one whole and six without one
    assert open_dataset(out / "dataset").verify() == {} and (out / "qa.html").stat().st_size > 10_000
    assert "4 of 5 frames accepted" in capsys.readouterr().out
    assert annotate(capture_yaml, out, clicks) == 0
    assert solvers == {"sfm": 1, "anchor": 10}
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == first
    (out / "qa.html").unlink()
    annotate(capture_yaml, out, clicks)
    assert solvers == {"sfm": 1, "anchor": 10} and (out / "qa.html").is_file()
    annotate(capture_yaml, out, write_clicks(clicks, (0, 1)))
    assert solvers == {"sfm": 1, "anchor": 16}
    with open_dataset(out / "dataset").reader(0) as reader:
        assert reader.video().frame_count == N
    image = capture_yaml.parent / "rgb/000001.png"
    cv2.imwrite(str(image), 255 - cv2.imread(str(image)))
    annotate(capture_yaml, out, clicks)
    assert solvers["sfm"] == 2


def test_exit_codes_and_review(capture_yaml, solvers, tmp_path, capsys):
    from annotators.types import Flag

    out = tmp_path / "out"
    assert annotate(capture_yaml, out, write_clicks(tmp_path / "c.json"), strict=True) == 1, "one frame of five is rejected"
    assert review(out) == 1
    said = capsys.readouterr().out
    assert "frame 000004: keypoints uncertain" in said and "4 of 5 frames accepted, 0 flags" in said
    solvers["flags"] = (Flag("depth_scale", "too long", (1, 2)),)
    assert annotate(capture_yaml, out, write_clicks(tmp_path / "c.json", (1, 2))) == 0
    assert "depth_scale too long (frames 1, 2)" in capsys.readouterr().out
    for arguments in (["annotate", "review", str(tmp_path / "nothing")], ["annotate", "review"]):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_capture_without_camera_poses_is_refused_with_the_reason(capture_yaml, solvers, tmp_path, capsys):
    solvers["refusal"] = "too little texture: 3 points, at least 50 needed"
    assert cli.main(["annotate", str(capture_yaml), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "error: solved: too little texture: 3 points, at least 50 needed\n"
    assert cli.main(["annotate", str(capture_yaml), "--out", str(tmp_path / "out")]) == 2
    assert solvers["sfm"] == 1, "the refusal is kept like any other result"


def test_without_clicks_masks_and_depth_are_needed(capture_yaml, solvers, tmp_path):
    assert annotate(capture_yaml, tmp_path / "a") == 0
    text = yaml.safe_load(capture_yaml.read_text())
    del text["masks"]
    capture_yaml.write_text(yaml.safe_dump(text))
    with pytest.raises(DataEngineError, match="there are no clicks"):
        annotate(capture_yaml, tmp_path / "b")
    (tmp_path / "b" / "clicks").mkdir(parents=True)
    write_clicks(tmp_path / "b" / "clicks" / "clicks.json")
    assert annotate(capture_yaml, tmp_path / "b") == 0, "clicks of an earlier session are found"


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(capture_yaml, solvers, tmp_path, monkeypatch):
    from pathlib import Path

    out, clicks = tmp_path / "out", write_clicks(tmp_path / "c.json")
    real = Path.write_bytes

    def full(self, data):
        if self.name.startswith("solution.npz"):
            raise OSError(28, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError) as caught:
        annotate(capture_yaml, out, clicks)
    assert "\n" not in str(caught.value)
    assert (out / "sfm" / "track.npz").is_file() and not (out / "stages" / "solution.npz").exists()
    monkeypatch.setattr(Path, "write_bytes", real)
    assert annotate(capture_yaml, out, clicks) == 0
    assert solvers["sfm"] == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "is no list of clicks"),
        ('{"clicks": [{"frame": 0}]}', "is no list of clicks"),
        ('{"clicks": [{"frame": 9, "landmark": "elbow", "u_px": 1, "v_px": 1}]}', "click 1 is in frame 9, the capture has frames 0 to 4"),
        ('{"clicks": [{"frame": 0, "landmark": "elbo", "u_px": 1, "v_px": 1}]}', "unknown landmark 'elbo' \\(did you mean 'elbow'"),
    ],
)
def test_broken_clicks(tmp_path, text, message):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataEngineError, match=message) as caught:
        read_clicks(tmp_path / "c.json", world()[0])
    assert "\n" not in str(caught.value)
    with pytest.raises(DataEngineError, match="cannot read"):
        read_clicks(tmp_path / "none.json", world()[0])


def test_stage_files_come_back_as_they_were(tmp_path):
    _, solution = world()
    track = track_of(solution, "refused: too dark")
    for value in (solution, track):
        save(tmp_path / "s.npz", "k", value)
        read = load(tmp_path / "s.npz", "k", type(value))
        for field in dataclasses.fields(value):
            a, b = getattr(value, field.name), getattr(read, field.name)
            assert np.array_equal(a, b, equal_nan=True) if isinstance(a, np.ndarray) else a == b, field.name
        assert load(tmp_path / "s.npz", "other", type(value)) is None
    (tmp_path / "s.npz").write_bytes((tmp_path / "s.npz").read_bytes()[:300])
    assert load(tmp_path / "s.npz", "k", Solution) is None
    save_json(tmp_path / "j.json", "k", {"a": [1, 2]})
    assert load_json(tmp_path / "j.json", "k") == {"a": [1, 2]} and load_json(tmp_path / "j.json", "l") is None
    assert key_of("a", np.arange(3)) != key_of("a", np.arange(4)) and key_of({"b": 1, "a": 2}) == key_of({"a": 2, "b": 1})


def test_odd_and_even_frames_measure_how_far_the_base_moves():
    _, solution = world()
    clicks = tuple(Click(f, "elbow", (1.0, 1.0)) for f in range(4))

    def solve(some):
        moved = solution.T_world_base.copy()
        if some[0].frame == 1:
            moved[:, :3, 3] += (0.003, 0.004, 0)
        return dataclasses.replace(solution, T_world_base=moved, keypoints_cam_m=solution.keypoints_cam_m + (0.001 * some[0].frame))

    found = odd_even(solve, clicks)
    assert found["base_mm"] == pytest.approx(5) and found["base_deg"] == pytest.approx(0, abs=1e-4)
    assert found["keypoints_mm"] == pytest.approx(np.sqrt(3))
    assert odd_even(solve, clicks[:3]) == {}


def test_leaving_one_click_out_tries_the_worst_believed_ones():
    _, solution = world()
    clicks = tuple(Click(k, "elbow", (float(k), 1.0)) for k in range(9))
    residual = np.array([[k, 0.0] for k in range(9)])
    asked = []

    def solve(some):
        asked.append({c.frame for c in clicks} - {c.frame for c in some})
        shift = 0.001 * sum(asked[-1])
        return dataclasses.replace(solution, keypoints_cam_m=solution.keypoints_cam_m + (shift, 0, 0))

    found = leave_one_out(solve, clicks, residual, np.arange(9) != 8)
    assert asked == [set(), {7}, {6}, {5}, {4}, {3}, {2}]
    assert found["keypoints_mm"] == pytest.approx(7) and found["base_mm"] == 0

    def fail(some):
        raise DataEngineError("too few")

    assert leave_one_out(fail, clicks, residual, np.ones(9, bool)) == {}


def test_the_second_pass_masks_the_robot_that_moved():
    capture, solution = world()
    blind = dataclasses.replace(capture, mask=None)
    track = track_of(solution)
    assert needs_second_pass(blind, track, solution) and not needs_second_pass(capture, track, solution)
    still = dataclasses.replace(solution, joints_rad=np.repeat(solution.joints_rad[:1], N, 0))
    assert not needs_second_pass(blind, track, still)
    mask = robot_masks(blind, solution)
    assert (mask(0) & capture.mask(0)).sum() / (mask(0) | capture.mask(0)).sum() > 0.999
    lost = solution.T_world_cam.copy()
    lost[3] = np.nan
    assert not robot_masks(blind, dataclasses.replace(solution, T_world_cam=lost))(3).any()
