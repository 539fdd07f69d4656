"""Scale from fiducial tags and from an infrared pair, against geometry that is known exactly."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from annotators.anchor_inputs import gather
from annotators.anchor_scale import fiducial_scale, fuse, stereo_scale, triangulate
from annotators.anchor_state import AnchorOptions
from annotators.capture_spec import FiducialsSpec
from annotators.types import CameraTrack, Capture
from dataengine.geometry import camera, se3
from tests.annotators import sfm_scene as corner
from tests.annotators.anchor_scene import SIZE, K, make_scene, make_track

UNIT_M = 0.37
SIDE_M = 0.08
PLACES = {3: (-0.12, 0.02), 11: (0.06, -0.05)}
"""Centres of two tags on the table, metres."""
EYES = [se3.look_at((0.5 * np.sin(a), -0.55 + 0.05 * a, 0.6), (0, 0, 0)) for a in np.linspace(-0.6, 0.6, 7)]


def table_with_tags(T_world_cam: np.ndarray, offset_m: dict[int, float]) -> np.ndarray:
    """RGB picture of printed tags on the plane z = 0; `offset_m` shifts a tag along x."""
    fine, cell = 4, 20
    big = np.diag([fine, fine, 1.0]) @ K
    big[:2, 2] += (fine - 1) / 2
    picture = np.full((fine * SIZE[1], fine * SIZE[0]), 200, np.uint8)
    for tag, (x, y) in PLACES.items():
        print_px = 10 * cell  # eight modules and a white border of one
        sheet = np.full((print_px, print_px), 255, np.uint8)
        tags = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_APRILTAG_36H11)
        sheet[cell:-cell, cell:-cell] = cv2.aruco.generateImageMarker(tags, tag, 8 * cell)
        half = SIDE_M / 2 * 10 / 8
        corners = np.array([(-half, half, 0), (half, half, 0), (half, -half, 0), (-half, -half, 0)]) + (x + offset_m.get(tag, 0), y, 0)
        uv = camera.project(big, se3.transform(se3.inverse(T_world_cam), corners)).astype(np.float32)
        ends = np.array([(-0.5, -0.5), (print_px - 0.5, -0.5), (print_px - 0.5, print_px - 0.5), (-0.5, print_px - 0.5)], np.float32)
        H = cv2.getPerspectiveTransform(ends, uv)
        size = picture.shape[::-1]
        covered = cv2.warpPerspective(np.full_like(sheet, 255), H, size, flags=cv2.INTER_NEAREST) > 0
        picture[covered] = cv2.warpPerspective(sheet, H, size, flags=cv2.INTER_LINEAR)[covered]
    small = cv2.resize(picture, SIZE, interpolation=cv2.INTER_AREA)
    return np.repeat(small[..., None], 3, axis=-1)


def tagged(side_m: float | None, moving: bool = False) -> tuple[Capture, CameraTrack]:
    pictures = [table_with_tags(T, {3: 0.03 * (f % 2)} if moving else {}) for f, T in enumerate(EYES)]
    names = tuple(map(str, range(len(EYES))))
    capture = Capture("tags", names, SIZE, K, np.arange(len(EYES)) / 10, lambda i: pictures[i], "panda", tag_side_m=side_m)
    T = np.stack(EYES)
    T[:, :3, 3] /= UNIT_M
    nothing, n = np.zeros(0, np.int64), len(EYES)
    track = CameraTrack(
        T, np.zeros((n, 6, 6)), np.ones(n, bool), (), np.zeros((0, 3)), nothing, nothing, np.zeros((0, 2)), 0.3, "arithmetic"
    )
    return capture, track


def test_tags_of_known_side_give_the_scale():
    found = fiducial_scale(*tagged(SIDE_M))
    assert found is not None and found.source == "fiducials"
    assert found.metres_per_unit == pytest.approx(UNIT_M, rel=0.004)
    assert 0.002 <= found.sigma / found.metres_per_unit < 0.006


def test_a_tag_that_moves_is_left_out():
    found = fiducial_scale(*tagged(SIDE_M, moving=True))
    assert found is not None
    assert found.metres_per_unit == pytest.approx(UNIT_M, rel=0.006)  # from the other tag


def test_without_a_side_or_without_tags_there_is_no_scale():
    capture, track = tagged(None)
    assert fiducial_scale(capture, track) is None
    assert fiducial_scale(replace(capture, tag_side_m=SIDE_M, rgb=lambda i: np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)), track) is None
    assert FiducialsSpec().side_m is None


def test_triangulation_is_exact_for_exact_rays():
    point = np.array([0.1, -0.05, 0.02])
    T = np.stack(EYES)
    uv = camera.project(K, se3.transform(se3.inverse(T), point[None]))[:, 0]
    np.testing.assert_allclose(triangulate(K, T, uv), point, atol=1e-12)


def stereo_capture(baseline_m: float, told_m: float) -> tuple[Capture, CameraTrack]:
    """The exactly known corner through a rectified pair, and its points as structure from motion would see them."""
    poses = corner.arc(4)
    right = poses.copy()
    right[:, :3, 3] += baseline_m * poses[:, :3, 0]
    pairs = [(corner.picture(a)[..., 0], corner.picture(b)[..., 0]) for a, b in zip(poses, right, strict=True)]
    rng, (w, h) = np.random.default_rng(0), corner.SIZE
    uv = rng.uniform((20, 20), (w - 20, h - 20), (4, 300, 2)).round()
    points = np.concatenate([on_the_planes(T, px) for T, px in zip(poses, uv, strict=True)])
    T = poses.copy()
    T[:, :3, 3] /= UNIT_M
    frame = np.repeat(np.arange(4), 300)
    track = CameraTrack(
        T, np.zeros((4, 6, 6)), np.ones(4, bool), (), points / UNIT_M, np.arange(1200), frame, uv.reshape(-1, 2), 0.3, "arithmetic"
    )
    capture = replace(corner.capture([corner.picture(T) for T in poses]), infrared=lambda i: pairs[i], ir_baseline_m=told_m)
    return capture, track


def on_the_planes(T_world_cam: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Where the pixels' rays meet the corner: the nearest of its three planes."""
    rays = np.concatenate([(uv - corner.K[:2, 2]) / corner.K[[0, 1], [0, 1]], np.ones((len(uv), 1))], axis=1) @ T_world_cam[:3, :3].T
    eye = T_world_cam[:3, 3]
    away = np.stack([(offset - eye[axis]) / rays[:, axis] for axis, offset in ((0, -1.0), (1, -0.8), (2, 0.0))])
    return eye + np.where(away > 0, away, np.inf).min(axis=0)[:, None] * rays


@pytest.mark.parametrize("told_m", [0.05, 0.055])
def test_the_baseline_of_an_infrared_pair_gives_the_scale(told_m: float):
    found = stereo_scale(*stereo_capture(0.05, told_m))
    assert found is not None and found.source == "stereo"
    assert found.metres_per_unit == pytest.approx(UNIT_M * told_m / 0.05, rel=0.005)  # a baseline told wrong is a scale told wrong


def test_tags_take_part_in_the_solve_and_a_wrong_ruler_is_flagged():
    scene = make_scene(2, frames=12, clicked=6)
    T = np.stack([EYES[0]] * 12)
    T[:, :3, 3] += np.linspace(-0.2, 0.2, 12)[:, None] * EYES[0][:3, 0]
    pictures = [table_with_tags(one, {}) for one in T]
    track = make_track(T, True, np.random.default_rng(0))
    capture = replace(scene.capture, rgb=lambda i: pictures[i], tag_side_m=SIDE_M)
    inputs = gather(capture, track, scene.clicks, AnchorOptions(), None)
    assert [scale.source for scale in inputs.scales] == ["fiducials"]
    assert inputs.scales[0].metres_per_unit == pytest.approx(UNIT_M, rel=0.01)
    wrong = gather(replace(capture, tag_side_m=1.05 * SIDE_M), track, scene.clicks, AnchorOptions(), None).scales
    flags = fuse([*inputs.scales, replace(wrong[0], source="stereo")])[1]
    assert [flag.kind for flag in flags] == ["scale_disagreement"]
