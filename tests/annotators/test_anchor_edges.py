"""Outlines against the photograph's edges: a disc whose edge is known, and a robot drawn exactly."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from annotators.anchor import solve
from annotators.anchor_edges import edges_along, outline_points
from annotators.anchor_state import AnchorOptions
from annotators.anchor_surface import robot_shape, view_robot
from dataengine.geometry import se3
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics
from tests.annotators.anchor_scene import SIZE, K, Scene, make_scene

CENTRE, RADIUS = np.array([60.3, 49.6]), 30.2


def disc(centre: np.ndarray, radius: float, fine: int = 8) -> np.ndarray:
    """Share of each pixel (100, 120) that a disc covers."""
    v, u = np.mgrid[: 100 * fine, : 120 * fine]
    inside = np.hypot((u + 0.5) / fine - 0.5 - centre[0], (v + 0.5) / fine - 0.5 - centre[1]) < radius
    return inside.reshape(100, fine, 120, fine).mean(axis=(1, 3))


def test_the_outline_of_a_disc_is_where_the_disc_ends():
    px, normal, out = outline_points(disc(CENTRE, RADIUS) > 0.5, 200, np.random.default_rng(0))
    away = px + out[:, None] * normal - CENTRE
    assert len(px) > 100
    assert np.median(np.abs(np.linalg.norm(away, axis=1) - RADIUS)) < 0.12
    assert np.sum(normal * away, axis=1).min() > 0.97 * RADIUS  # outwards, along the radius


@pytest.mark.parametrize("shift_px", [-1.7, 0.0, 0.6, 2.3])
def test_an_edge_is_found_where_it_is(shift_px: float):
    turn = np.linspace(0, 2 * np.pi, 90)
    normal = np.stack([np.cos(turn), np.sin(turn)], -1)
    picture = 60 + 120 * disc(CENTRE, RADIUS + shift_px)
    found = edges_along(np.rint(picture).astype(np.uint8), CENTRE + RADIUS * normal, normal, 4.0)
    assert np.isfinite(found).all()
    assert np.abs(found - shift_px).max() < 0.3 and abs(np.mean(found) - shift_px) < 0.08


def test_a_plain_wall_has_no_edge():
    noise = np.random.default_rng(0).normal(120, 1.5, (100, 120)).astype(np.uint8)
    at = np.stack(np.meshgrid(np.arange(20, 100, 5.0), np.arange(20, 80, 5.0)), -1).reshape(-1, 2)
    assert np.isnan(edges_along(noise, at, np.tile([1.0, 0.0], (len(at), 1)), 4.0)).mean() > 0.95


def drawn(scene: Scene) -> Scene:
    """The same capture with photographs: a bright robot before blotches."""
    shape, links = robot_shape(load_robot("panda")), forward_kinematics(load_robot("panda"), scene.q)
    blotches = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(SIZE[1], SIZE[0])), (0, 0), 12)
    wall = 90 + 30 * blotches / blotches.std()
    double = np.diag([2.0, 2.0, 1.0]) @ K
    double[:2, 2] += 0.5

    def rgb(frame: int) -> np.ndarray:
        fine = view_robot(shape, scene.T_cam_base[frame] @ links[frame], double, (2 * SIZE[0], 2 * SIZE[1]), 1).mask
        share = cv2.resize(fine.astype(np.float32), SIZE, interpolation=cv2.INTER_AREA)
        return np.repeat((wall * (1 - share) + 210 * share).clip(0, 255).astype(np.uint8)[..., None], 3, axis=-1)

    return replace(scene, capture=replace(scene.capture, rgb=rgb))


def test_edges_sharpen_what_clicks_begin():
    scene = drawn(make_scene(3, frames=12, clicked=5))

    def error_m(edges: bool) -> tuple[float, float]:
        found = solve(scene.capture, scene.track, scene.clicks, AnchorOptions(use_depth=False, use_edges=edges))
        T_cam_base = se3.inverse(found.T_world_cam) @ found.T_world_base
        return float(np.median(np.linalg.norm((T_cam_base - scene.T_cam_base)[:, :3, 3], axis=1))), abs(found.metres_per_unit / 0.37 - 1)

    (clicks_m, clicks_scale), (edges_m, edges_scale) = error_m(False), error_m(True)
    assert edges_m < 0.5 * clicks_m and edges_m < 0.001
    assert edges_scale < max(0.5 * clicks_scale, 0.001)
