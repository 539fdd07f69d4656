"""Where things appear: known points, planes, normals and ids against closed forms and the independent ray caster."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dataengine.errors import AssetError, RenderError
from dataengine.geometry import se3
from dataengine.geometry.camera import intrinsics, project
from dataengine.raycast.views import pixel_rays, render_labels
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import build_ray_world
from tests.render.blender.scenes import BLACK, HEIGHT, WHITE_SKY, WIDTH, floor, look_at, material, scene, thing

BELOW = se3.make(np.eye(3), [0.0, 0.0, -50.0])
"""Puts the robot out of sight."""


def camera_K(s: SceneSpec) -> NDArray[np.float64]:
    return intrinsics(s.camera.fx_px, s.camera.fy_px, s.camera.cx_px, s.camera.cy_px)


@pytest.mark.parametrize(
    "lens",
    [{}, {"fx_px": 150.0, "fy_px": 120.0}, {"fx_px": 115.0, "fy_px": 140.0, "cx_px": 70.25, "cy_px": 55.5}],
    ids=["square", "wide", "shifted"],
)
def test_known_points_appear_where_the_camera_model_says(toy, lens):
    """Black cards facing the camera before a white sky: the darkness's centroid is the projection of the card's centre."""
    T_world_cam = look_at((1.0, -2.0, 1.5), (0.1, 0.0, 0.2))
    centres = np.array([[-0.35, -0.15, 1.0], [0.3, 0.2, 1.1], [0.0, 0.0, 0.9], [-0.35, 0.25, 1.2], [0.35, -0.2, 1.0]])
    cards = [
        thing(k + 1, "box", (0.11, 0.09, 0.0002), T_world_cam @ se3.make(np.eye(3), c), material("metal", **BLACK), (0.0,))
        for k, c in enumerate(centres)
    ]
    s = scene(cards, T_world_cam, toy.joints, T_world_base=BELOW, environment=WHITE_SKY, lights=(), samples_per_pixel=256, camera=lens)
    passes = toy.render(s)
    dark = 1.0 - passes.rgb_linear[0].mean(-1).astype(float)
    expected = project(camera_K(s), centres)
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    for k, uv in enumerate(expected):
        rows, columns = np.nonzero(passes.object_id[0] == k + 1)
        near = (abs(v - rows.mean()) <= np.ptp(rows) / 2 + 4) & (abs(u - columns.mean()) <= np.ptp(columns) / 2 + 4)
        weight = np.where(near, dark, 0.0)
        found = np.array([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
        assert np.abs(found - uv).max() < 0.02


def test_depth_of_a_plane(toy):
    T_world_cam = look_at((1.0, -1.2, 1.1), (0.0, 0.0, 0.0))
    s = scene([floor(material())], T_world_cam, toy.joints, T_world_base=BELOW, samples_per_pixel=4)
    passes = toy.render(s)
    rays = pixel_rays(camera_K(s), WIDTH, HEIGHT) @ T_world_cam[:3, :3].T
    expected = (-T_world_cam[2, 3] / rays[:, 2]).reshape(HEIGHT, WIDTH)
    top = passes.object_id[0] == 255
    error_m = np.abs(passes.depth_z_m[0] - expected)[top]
    assert top.mean() > 0.5
    assert np.percentile(error_m, 99) < 5e-5


def test_normals_of_a_tilted_face_in_the_camera_frame(toy):
    T_world_cam = look_at((0.9, -0.9, 0.8), (0.0, 0.0, 0.0))
    R = se3.rotation_from_axis_angle((1.0, 0.0, 0.0), 0.4) @ se3.rotation_from_axis_angle((0.0, 0.0, 1.0), 0.3)
    s = scene(
        [thing(1, "box", (0.6, 0.6, 0.2), se3.make(R, np.zeros(3)), material(bump=0.0), (0.002,))],
        T_world_cam,
        toy.joints,
        T_world_base=BELOW,
    )
    normal = toy.render(s).normal_cam[0]
    hit = np.linalg.norm(normal, axis=-1) > 0
    assert np.allclose(np.linalg.norm(normal[hit], axis=-1), 1.0, atol=1e-5)
    faces_cam = np.concatenate([R.T, -R.T]) @ T_world_cam[:3, :3]  # the box's six outward normals
    facing = faces_cam[faces_cam[:, 2] < 0]
    angle = np.arccos(np.clip((normal[hit] @ facing.T).max(-1), -1, 1))
    assert np.mean(angle < 0.02) > 0.9  # the rest lies on bevels and edges
    assert len(facing) == 3 and all((np.abs(normal[hit] - n).max(-1) < 0.02).sum() > 20 for n in facing)


@pytest.mark.parametrize("samples", [1, 8])
def test_ids_and_depth_agree_with_the_ray_caster(toy, samples):
    rng = np.random.default_rng(5)
    shapes = [("sphere", ()), ("torus", ()), ("box", (0.01,)), ("mug", (0.006, 0.6)), ("cylinder", (0.01,)), ("cone", (0.3,))]
    objects = [
        thing(k + 1, shape, (0.24, 0.24, 0.2) if shape != "torus" else (0.3, 0.3, 0.08), se3.make(
            se3.rotation_from_axis_angle((0.0, 0.0, 1.0), rng.uniform(0, 6)), [0.45 * np.cos(k), 0.45 * np.sin(k), 0.1]), material(), p)
        for k, (shape, p) in enumerate(shapes)
    ]  # fmt: skip
    T_world_cam = np.stack([look_at((1.3, -0.8, 0.8), (0.0, 0.0, 0.1)), look_at((1.0, -1.2, 0.9), (0.0, 0.0, 0.1))])
    s = scene([*objects, floor(material("wood"))], T_world_cam, toy.joints, joint_position=((0.3,), (0.9,)), samples_per_pixel=samples)
    passes = toy.render(s)
    world = build_ray_world(s, toy.meshes, toy.link_poses(s))
    for f in range(2):
        view = render_labels(world.posed(f), camera_K(s), T_world_cam[f], WIDTH, HEIGHT)
        hit = view.mesh_index >= 0
        link = np.where(hit, world.link_of_mesh[view.mesh_index] + 1, 0)
        instance = np.where(hit, world.instance_of_mesh[view.mesh_index], 0)
        wrong = (link != passes.link_id[f]) | (instance != passes.object_id[f])
        assert wrong.sum() <= 2
        error_m = np.abs(view.depth_z_m - passes.depth_z_m[f])[hit & ~wrong]
        assert np.percentile(error_m, 99) < 5e-5
        assert ((passes.depth_z_m[f] == 0) == ~hit)[~wrong].all()
        assert set(np.unique(passes.link_id[f])) == {0, 1, 2}


def test_moving_objects_move(toy):
    poses = [se3.make(np.eye(3), [x, 0.0, 0.1]) for x in (-0.2, 0.2)]
    camera = look_at((0.0, -1.2, 0.4), (0.0, 0.0, 0.1))
    s = scene([thing(1, "sphere", (0.2, 0.2, 0.2), poses, material())], [camera, camera], toy.joints, T_world_base=BELOW)
    ids = toy.render(s).object_id
    columns = [np.nonzero(ids[f] == 1)[1].mean() for f in range(2)]
    expected = [project(camera_K(s), (se3.inverse(camera) @ T)[:3, 3])[0] for T in poses]
    assert np.allclose(columns, expected, atol=0.5)  # perspective pushes a ball's outline outwards by 0.3 px


def test_motion_blur_keeps_labels_sharp_and_centred(toy):
    """A camera that moves along x during the exposure: light is smeared evenly about the label, which stays where it was."""
    T = look_at((0.0, -1.0, 0.0), (0.0, 0.0, 0.0))
    end = T @ se3.make(np.eye(3), [0.05, 0.0, 0.0])
    card = thing(1, "box", (0.2, 0.3, 0.0002), T @ se3.make(np.eye(3), [0.0, 0.0, 1.0]), material("metal", **BLACK), (0.0,))
    common = {"T_world_base": BELOW, "environment": WHITE_SKY, "lights": (), "samples_per_pixel": 64}
    still = toy.render(scene([card], T, toy.joints, **common))
    moving = scene(
        [card], T, toy.joints, image={"motion_blur": 0.5}, camera={"T_world_cam_end": (tuple(map(tuple, end.tolist())),)}, **common
    )
    blurred = toy.render(moving)
    assert np.array_equal(still.object_id, blurred.object_id)
    assert np.allclose(still.depth_z_m, blurred.depth_z_m, atol=1e-6)
    row = 1.0 - blurred.rgb_linear[0, HEIGHT // 2].mean(-1)
    sharp = 1.0 - still.rgb_linear[0, HEIGHT // 2].mean(-1)
    u = np.arange(WIDTH)
    assert abs((row * u).sum() / row.sum() - (sharp * u).sum() / sharp.sum()) < 0.15
    assert ((row > 0.05) & (row < 0.95)).sum() >= 2 * 10  # 130 px/m times 0.1 m of travel, on both sides
    assert ((sharp > 0.05) & (sharp < 0.95)).sum() <= 6


def test_wrong_shape_of_poses_is_named(toy):
    s = scene([], look_at((1, 1, 1), (0, 0, 0)), toy.joints)
    with pytest.raises(RenderError, match=r"shape \(1, 5, 4, 4\), expected \(1, 2, 4, 4\)"):
        toy.renderer.render_video(s, np.zeros((1, 5, 4, 4)))


def test_unknown_environment_lists_the_packaged_ones(toy):
    s = scene([], look_at((1, 1, 1), (0, 0, 0)), toy.joints, environment=WHITE_SKY.model_copy(update={"kind": "hdri", "name": "forrest"}))
    with pytest.raises(AssetError, match="did you mean 'forest'.*city, courtyard"):
        toy.render(s)
