"""Quality control on captures made in memory, each with one fault."""

import dataclasses

import cv2
import numpy as np
import pytest

from annotators.capture_checks import around, inspect, refuse_hopeless
from annotators.capture_spec import CaptureError, CaptureSpec
from annotators.static_camera import static_segments
from annotators.types import Capture
from tests.annotators.captures import picture

W, H = 320, 240
N = 16


def film(images, **changes):
    K = np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])
    times = np.arange(len(images)) / 30
    return dataclasses.replace(
        Capture("film", tuple(f"{i:04d}" for i in range(len(images))), (W, H), K, times, lambda i: images[i], "panda"), **changes
    )


@pytest.fixture(scope="module")
def world():
    return picture(np.random.default_rng(0), (W + 120, H + 120))


def window(world, x, y, rng):
    """The world seen at an offset, with camera noise."""
    shift = np.array([[1, 0, -x], [0, 1, -y]], float)
    image = cv2.warpAffine(world, shift, (W, H), flags=cv2.INTER_CUBIC).astype(float)
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clean(world):
    rng = np.random.default_rng(1)
    return [window(world, 3.0 * i, 1.5 * i, rng) for i in range(N)]


def kinds(capture):
    return [(f.kind, f.frames) for f in inspect(capture)]


def test_a_clean_capture_raises_no_flag(clean):
    assert inspect(film(clean, depth_z_m=lambda i: np.ones((H, W), np.float32))) == []


def test_each_fault_is_told_with_its_frames(clean):
    soft = [cv2.GaussianBlur(im, (0, 0), 2.5) if i in (4, 9) else im for i, im in enumerate(clean)]
    assert kinds(film(soft)) == [("blur", (4, 9))]
    all_soft = [cv2.GaussianBlur(im, (0, 0), 4) for im in clean]
    assert kinds(film(all_soft)) == [("blur", tuple(range(N)))]
    assert kinds(film([np.minimum(im, 5) if i == 7 else im for i, im in enumerate(clean)]))[-1][0] == "exposure"
    bright = [np.clip(im.astype(int) * 4, 0, 255).astype(np.uint8) if i == 3 else im for i, im in enumerate(clean)]
    assert ("exposure", (3,)) in kinds(film(bright))
    assert kinds(film([clean[5] if i == 6 else im for i, im in enumerate(clean)])) == [("duplicate", (6,))]
    names = tuple(f"{i + 2 * (i > 8):04d}" for i in range(N))
    lost = inspect(film(clean, frames=names))
    assert [(f.kind, f.frames) for f in lost] == [("missing_frames", (9,))] and lost[0].text.startswith("2 frames")
    late = np.arange(N) / 30 + 0.1 * (np.arange(N) > 8)
    assert kinds(film(clean, times_s=late)) == [("timestamps", (9,))]
    empty = film(clean, depth_z_m=lambda i: np.full((H, W), float(i != 2), np.float32))
    assert kinds(empty) == [("depth_missing", (2,))]


@pytest.mark.parametrize(
    "K",
    [
        [[300, 0, 230], [0, 300, 119.5], [0, 0, 1]],
        [[40, 0, 159.5], [0, 40, 119.5], [0, 0, 1]],
        [[3000, 0, 159.5], [0, 3000, 119.5], [0, 0, 1]],
        [[300, 0, 159.5], [0, 330, 119.5], [0, 0, 1]],
    ],
)
def test_implausible_intrinsics(clean, K):
    assert kinds(film(clean[:3], K=np.array(K, float))) == [("intrinsics", ())]


def test_neighbours_leave_the_value_itself_out():
    assert around(np.array([1.0, 9.0, 1.0, 1.0])).tolist() == [1.0, 1.0, 1.0, 1.0]


def robot_at(image, i):
    """A big textured thing that wanders through the picture and its mask."""
    out, x = image.copy(), 40 + 9 * i
    out[60:200, x : x + 100] = picture(np.random.default_rng(7), (100, 140))
    mask = np.zeros((H, W), bool)
    mask[60:200, x : x + 100] = True
    return out, mask


@pytest.mark.parametrize("masked", [True, False])
def test_a_moving_robot_does_not_look_like_a_moving_camera(world, masked):
    """Rest for 6 frames, go for 5, rest again for 5; all the time a robot moves and the lamps flicker."""
    rng = np.random.default_rng(2)
    at = [0] * 6 + [4, 8, 12, 16, 20] + [20] * 4
    frames = [robot_at(window(world, x, 0, rng), i) for i, x in enumerate(at)]
    lit = [np.clip(im * (1 + 0.1 * np.sin(i)), 0, 255).astype(np.uint8) for i, (im, _) in enumerate(frames)]
    capture = film(lit, mask=(lambda i: frames[i][1]) if masked else None)
    seen = []
    assert static_segments(capture, seen.append) == ((0, 6), (10, 15))
    assert seen == list(range(15))


def test_creeping_is_moving(world):
    rng = np.random.default_rng(3)
    slow = film([window(world, 0.12 * i, 0, rng) for i in range(12)])
    assert all(end - start <= 4 for start, end in static_segments(slow))
    assert static_segments(film([window(world, 0, 0, rng) for _ in range(3)])) == ((0, 3),)


def test_no_texture_is_compared_pixel_by_pixel():
    rng = np.random.default_rng(4)
    flat = [np.clip(120 + rng.normal(0, 1, (H, W, 3)), 0, 255).astype(np.uint8) for _ in range(5)]
    assert static_segments(film(flat)) == ((0, 5),)


def test_one_view_with_unknown_joints_is_refused(clean):
    spec = CaptureSpec.model_validate({"name": "a", "images": "rgb", "intrinsics": {"file": "K"}, "robot": "panda"})
    still = film(clean)
    with pytest.raises(CaptureError, match="the camera never moves, joint angles are unknown"):
        refuse_hopeless(spec, still, ((0, N),))
    refuse_hopeless(spec, still, ((0, 8),))
    refuse_hopeless(spec, film(clean, mask=lambda i: np.ones((H, W), bool)), ((0, N),))
