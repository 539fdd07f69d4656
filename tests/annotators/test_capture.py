"""Reading captures: every form of input, and one clear line for every kind of broken one."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotators.capture import load_capture
from annotators.capture_files import frame_number, natural, pair, read_depth, read_mask
from annotators.capture_spec import CaptureError, read_spec
from dataengine.errors import ConfigError, DataEngineError, RobotError
from dataengine.geometry.camera import intrinsics_to_colmap
from tests.annotators.captures import SIZE, K, write_capture


def edit(path, text, new):
    content = path.read_text()
    assert text in content
    path.write_text(content.replace(text, new, 1))


def test_a_capture_is_read_as_it_was_written(tmp_path):
    spec, capture = load_capture(write_capture(tmp_path))
    assert capture.name == "small" and capture.size == SIZE and capture.frames[:2] == ("000000", "000001")
    np.testing.assert_array_equal(capture.K, K)
    np.testing.assert_allclose(capture.times_s, np.arange(8) / 10)
    assert capture.rgb(3).shape == (64, 96, 3) and capture.rgb(3).dtype == np.uint8
    np.testing.assert_array_equal(capture.rgb(3), cv2.imread(str(tmp_path / "rgb/000003.png"))[..., ::-1])
    np.testing.assert_allclose(capture.depth_z_m(5), 1.205)
    assert capture.mask(0).dtype == bool and capture.mask(0).sum() == 40 * 20
    assert capture.joints.positions_rad.shape == (20, 8) and capture.joints.positions_rad[0, 3] == -2.0
    assert capture.infrared is None and capture.distortion is None and spec.joints_mode == "known"


def test_paths_follow_environment_variables(tmp_path, monkeypatch):
    path = write_capture(tmp_path / "data", images="${SOMEWHERE_ELSE}/rgb")
    with pytest.raises(CaptureError, match=r"capture.yaml:2:9: images: the environment variable SOMEWHERE_ELSE is not set"):
        load_capture(path)
    monkeypatch.setenv("SOMEWHERE_ELSE", str(tmp_path / "data"))
    assert load_capture(path)[1].size == SIZE


def test_all_forms_of_K_give_the_same_camera(tmp_path):
    path = write_capture(tmp_path)
    c = intrinsics_to_colmap(K)
    ros = {"width": 96, "height": 64, "k": K.ravel().tolist(), "d": [0.0] * 5}
    opencv = {"camera_matrix": {"rows": 3, "cols": 3, "data": K.ravel().tolist()}, "image_width": 96, "image_height": 64}
    forms = {
        "four.txt": "90 90 47.5 31.5\n",
        "commas.txt": "90, 0, 47.5\n0, 90, 31.5\n0, 0, 1\n",
        "cameras.txt": f"# Camera list\n1 PINHOLE 96 64 90 90 {c[0, 2]} {c[1, 2]}\n",
        "simple.txt": f"1 SIMPLE_RADIAL 96 64 90 {c[0, 2]} {c[1, 2]} 0\n",
        "camera_info.yaml": json.dumps(ros),
        "opencv.yaml": json.dumps(opencv),
        "short.yaml": "fx: 90\nfy: 90\ncx: 47.5\ncy: 31.5\n",
        "rows.yaml": json.dumps({"K": K.tolist()}),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        path.write_text(path.read_text().replace(read_spec(path)[0].intrinsics.file, name))
        np.testing.assert_allclose(load_capture(path)[1].K, K, atol=1e-12, err_msg=name)
    inline = write_capture(tmp_path / "b", intrinsics={"fx_px": 90.0, "fy_px": 90.0, "cx_px": 47.5, "cy_px": 31.5})
    np.testing.assert_array_equal(load_capture(inline)[1].K, K)


def test_a_bent_lens_is_straightened(tmp_path):
    """A dot drawn where the lens puts it is found where the ideal camera sees it."""
    bend = [-0.3, 0.05, 0.001, -0.002]
    path = write_capture(tmp_path, intrinsics={"file": "K.txt", "distortion": bend})
    ray = np.array([[[0.35, -0.2, 1.0]]])
    bent = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), K, np.array(bend))[0].ravel()
    image = np.zeros((64, 96), np.float32)
    v, u = np.mgrid[0:64, 0:96]
    image = 255 * np.exp(-((u - bent[0]) ** 2 + (v - bent[1]) ** 2) / 8)
    cv2.imwrite(str(tmp_path / "rgb/000002.png"), np.repeat(image[..., None], 3, 2).astype(np.uint8))
    seen = load_capture(path)[1].rgb(2)[..., 0].astype(float)
    centre = [(u * seen).sum() / seen.sum(), (v * seen).sum() / seen.sum()]
    np.testing.assert_allclose(centre, [47.5 + 90 * 0.35, 31.5 - 90 * 0.2], atol=0.25)
    assert np.hypot(*(bent - centre)) > 1


def test_forms_of_depth(tmp_path):
    metres = np.array([[0.5, np.nan], [np.inf, 1.25]], np.float32)
    np.save(tmp_path / "a.npy", metres)
    np.savez(tmp_path / "b.npz", data=np.array([[500, 0], [0, 1250]], np.uint16), timestamp=np.array(["x"]))
    cv2.imwrite(str(tmp_path / "c.png"), np.array([[500, 0], [0, 1250]], np.uint16))
    for name in ("a.npy", "b.npz", "c.png"):
        np.testing.assert_allclose(read_depth(tmp_path / name, None), [[0.5, 0], [0, 1.25]])
    np.testing.assert_allclose(read_depth(tmp_path / "c.png", 0.0001)[0, 0], 0.05)
    np.savez(tmp_path / "d.npz", depth=metres)
    with pytest.raises(CaptureError, match="expected under the key 'data'"):
        read_depth(tmp_path / "d.npz", None)
    cv2.imwrite(str(tmp_path / "e.png"), np.zeros((2, 2), np.uint8))
    with pytest.raises(CaptureError, match="8 bits per pixel"):
        read_depth(tmp_path / "e.png", None)


@pytest.mark.parametrize("on, off", [(255, 0), (1, 0), (7, 0)])
def test_masks_of_any_coding(tmp_path, on, off):
    cv2.imwrite(str(tmp_path / "m.png"), np.array([[on, off]], np.uint8))
    assert read_mask(tmp_path / "m.png", True).tolist() == [[True, False]]
    assert read_mask(tmp_path / "m.png", False).tolist() == [[False, True]]


def test_one_joint_file_per_frame_with_fingers_and_degrees(tmp_path):
    path = write_capture(tmp_path, joints={"path": "q", "unit": "deg"})
    (tmp_path / "q").mkdir()
    for f in range(8):
        np.savetxt(tmp_path / "q" / f"{f:06d}.txt", [10 + f, -30, 0, -120, 0, 90, 0, 0.02, 0.02])
    log = load_capture(path)[1].joints
    np.testing.assert_allclose(log.positions_rad[2], [*np.radians([12, -30, 0, -120, 0, 90, 0]), 0.02])
    np.testing.assert_array_equal(log.times_s, np.arange(8) / 10)


def test_columns_by_name_in_any_order(tmp_path):
    path = write_capture(tmp_path)
    (tmp_path / "joints.csv").write_text("0 -2.0 9 0.5\n0.5 -2.1 9 0.6\n")
    edit(path, "path: joints.csv", "path: joints.csv\n  columns: [panda_joint4, '-', panda_joint2]")
    q = load_capture(path)[1].joints.positions_rad
    np.testing.assert_allclose(q[1, [1, 3]], [0.6, -2.1])
    assert q[0, 0] == 0 and q[0, 5] == 0


def test_a_video_file_gives_its_frames_in_any_order(tmp_path):
    import av

    path = write_capture(tmp_path, images="film.mp4", depth=None, masks=None, joints=None, fps=None)
    levels = (np.arange(20) * 11 + 20).tolist()
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *SIZE, "yuv420p", 6
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    _, capture = load_capture(path)
    assert len(capture.frames) == 20 and capture.joints is None
    np.testing.assert_allclose(capture.times_s, np.arange(20) / 5, atol=1e-6)
    for i in (0, 1, 2, 15, 3, 19, 7, 8, 0):
        assert abs(int(capture.rgb(i).mean()) - levels[i]) <= 5, i
    (tmp_path / "film.mp4").write_bytes((tmp_path / "film.mp4").read_bytes()[:200])
    with pytest.raises(CaptureError, match="film.mp4 "):
        load_capture(path)


BAD = [
    ({"intrinsics": None}, "capture.yaml:1:1: intrinsics: 'intrinsics' is missing"),
    ({"intrinsics": {"file": "nowhere.txt"}}, "intrinsics.file: cannot read"),
    ({"intrinsics": {"fx_px": 90.0}}, "give either file or all of"),
    ({"intrinsics": {"file": "K.txt", "width": 192, "height": 128}}, "K belongs to images of 192×128, these have 96×64"),
    ({"intrinsics": {"fx_px": 180.0, "fy_px": 180.0, "cx_px": 95.5, "cy_px": 63.5}}, "K of another resolution"),
    ({"images": "nothing"}, "is not a folder"),
    ({"images": "rgb/*.jpg"}, "holds no files of the kinds"),
    ({"robot": "pandaa"}, "did you mean 'panda'"),
    ({"depht": {"path": "depth"}}, "depht: unknown key \\(did you mean 'depth'"),
    ({"depth": {"pth": "depth"}}, "depth.pth: unknown key \\(did you mean 'path'"),
    ({"depth": {"path": "depth", "unit_m": 1.0}}, "median depth is 1200 m, a wrong unit; unit_m: 0.001 would make it 1.20 m"),
    ({"depth": {"path": "depth", "unit_m": 0.000001}}, "a wrong unit"),
    ({"joints": {"path": "joints.csv", "unit": "grad"}}, "joints.unit: unknown value 'grad'"),
    ({"joints": {"mode": "known"}}, "mode 'known' needs a joint log"),
    ({"fps": 10.0, "timestamps": "t.txt"}, "exclude each other"),
    ({"robot": "ur5"}, "robot ur5 has no joint 'panda_joint1'"),
]  # fmt: skip


@pytest.mark.parametrize("changes, message", BAD)
def test_what_the_yaml_can_get_wrong(tmp_path, changes, message):
    with pytest.raises((ConfigError, CaptureError, RobotError), match=message) as caught:
        load_capture(write_capture(tmp_path, **changes))
    assert isinstance(caught.value, DataEngineError) and "\n" not in str(caught.value)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _resize(path):
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (48, 32)))


DAMAGE = {
    "an empty image": (lambda d: (d / "rgb/000004.png").write_bytes(b""), "000004.png is empty, truncated or no png file"),
    "half an image": (lambda d: _truncate(d / "rgb/000004.png"), "truncated"),
    "half a depth image": (lambda d: _truncate(d / "depth/000002.png"), "depth/000002.png is empty, truncated"),
    "an image of another size": (lambda d: _resize(d / "rgb/000004.png"), "is 48×32, 000000.png is 96×64"),
    "a mask of another size": (lambda d: _resize(d / "masks/000004.png"), "a mask of 48×32 for images of 96×64"),
    "a missing mask": (lambda d: (d / "masks/000004.png").unlink(), "there is no mask for 000004.png"),
    "two frames": (lambda d: [p.unlink() for p in (d / "rgb").iterdir() if p.name > "000001.png"], "2 images; at least 3"),
    "degrees": (lambda d: _scale(d / "joints.csv", 57.29578), "looks like degrees; set joints.unit: deg"),
    "another robot's log": (lambda d: _scale(d / "joints.csv", -3.0), "its limits are .*the log of another robot"),
    "too few joints": (lambda d: (d / "joints.csv").write_text("0 1 2\n1 1 2\n"), "2 joints per row, robot panda has 8"),
    "a ragged log": (lambda d: (d / "joints.csv").write_text("0 1 2\n1 1\n"), "rows of 2 and 3 columns"),
    "text in the log": (lambda d: (d / "joints.csv").write_text("t,a\n0,1\n1,x\n"), "row 2 holds something else than numbers"),
    "another time": (lambda d: _shift(d / "joints.csv", 1e9), "use one clock"),
}


def _scale(path, factor):
    header, *rows = path.read_text().splitlines()
    rows = [",".join([r.split(",")[0], *(str(float(x) * factor) for x in r.split(",")[1:8]), "0.02"]) for r in rows]
    path.write_text("\n".join([header, *rows]) + "\n")


def _shift(path, seconds):
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{float(r.split(',')[0]) + seconds}," + r.split(",", 1)[1] for r in rows)]) + "\n")


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_get_one_line(tmp_path, name):
    path = write_capture(tmp_path)
    damage, message = DAMAGE[name]
    damage(tmp_path)
    with pytest.raises(CaptureError, match=message) as caught:
        load_capture(path)
    assert "\n" not in str(caught.value)


CLOCKS = [("0\n1\n", "2 times for 8 images"), ("0\n1\n2\n2\n4\n5\n6\n7\n", "line 4 does not"), ("a\n", "it holds no numbers")]


@pytest.mark.parametrize("text, message", CLOCKS)
def test_wrong_timestamps(tmp_path, text, message):
    path = write_capture(tmp_path, fps=None, timestamps="t.txt")
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(CaptureError, match=message):
        load_capture(path)


def test_a_file_that_breaks_later_is_told_when_it_is_read(tmp_path):
    _, capture = load_capture(write_capture(tmp_path))
    _truncate(tmp_path / "rgb/000006.png")
    with pytest.raises(CaptureError, match="000006.png"):
        capture.rgb(6)


def test_missing_depth_of_one_frame_is_no_depth(tmp_path):
    path = write_capture(tmp_path)
    (tmp_path / "depth/000003.png").unlink()
    depth = load_capture(path)[1].depth_z_m
    assert not depth(3).any()
    np.testing.assert_allclose(depth(4), 1.204)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True), st.randoms())
def test_files_pair_by_their_numbers(tmp_path_factory, numbers, random):
    source = read_spec(write_capture(tmp_path_factory.mktemp("c"), frames=1))[1]
    from pathlib import Path

    frames = sorted((Path(f"img_{n}.png") for n in numbers), key=natural)
    others = [Path(f"depth_{n:07d}.npy") for n in numbers]
    random.shuffle(others)
    for frame, other in zip(frames, pair(source, "depth", frames, others), strict=True):
        assert frame_number(frame) == frame_number(other)
