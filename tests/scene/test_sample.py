"""What sample_scene promises: the same every time, every decision on its own, physically possible."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from dataengine.config.loader import load_spec
from dataengine.errors import RobotError
from dataengine.geometry import se3
from dataengine.geometry.camera import intrinsics
from dataengine.raycast.views import amodal_masks, render_labels
from dataengine.robot.catalogue import load_robot
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import load_link_meshes
from dataengine.scene.explain import explain, explain_rows
from dataengine.scene.sample import draw_split, sample_scene
from dataengine.scene.shapes import object_mesh
from dataengine.scene.spec import SceneSpec
from dataengine.scene.world import build_ray_world


@pytest.mark.parametrize("preset", ["hello", "smoke", "simrgbd_franka", "dream_panda", "cross_camera_azure", "xarm7", "ur5", "so101"])
def test_presets_give_scenes_that_survive_json_and_repeat(preset):
    spec = load_spec(preset)
    robot = load_robot(spec.robot.name)
    for video in range(3):
        scene = sample_scene(spec, video, robot)
        assert SceneSpec.model_validate_json(scene.model_dump_json()) == scene
        assert sample_scene(spec, video, robot) == scene
        assert scene.frames == len(scene.timestamp_s) == len(scene.camera.T_world_cam) == len(scene.robot.joint_position) == spec.frames
        ids = [o.instance_id for o in scene.objects if o.role in ("distractor", "occluder")]
        assert ids == list(range(1, len(ids) + 1)) and sum(o.instance_id == 255 for o in scene.objects) == 1


def _flat(scene):
    """Everything that is rendered, by path; objects by name, without their running number."""
    data = scene.model_dump(mode="json", exclude={"draws", "rejections", "spec_digest", "dataset"})
    objects = {o.pop("name"): o for o in data.pop("objects")}
    for o in objects.values():
        o.pop("instance_id")
    return {**data, **{f"object {name}": o for name, o in objects.items()}}


def _changed(panda, overrides, video, base="simrgbd_franka"):
    a, b = (_flat(sample_scene(load_spec(base, o), video, panda)) for o in ({}, overrides))
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


@pytest.mark.parametrize("video", range(6))
def test_a_distractor_more_changes_nothing_else(panda, video):
    spec = load_spec("simrgbd_franka", {"distractors.count": 4})
    more = load_spec("simrgbd_franka", {"distractors.count": 6})
    few, many = (_flat(sample_scene(s, video, panda)) for s in (spec, more))
    new = many.keys() - few.keys()
    assert 0 < len(new) <= 2 and all(name.split(".")[1] in ("4", "5") for name in new)
    assert {k: many[k] for k in few} == few


@pytest.mark.parametrize(
    "overrides, allowed",
    [
        ({"image.noise": 0.1}, {"image"}),
        ({"image.exposure_ev": 2.0}, {"image"}),
        ({"image.motion_blur": 0.5}, {"image", "camera"}),
        ({"depth_sensor.speckle": 0.2}, {"depth_sensor"}),
        ({"robot.material": "random"}, {"robot"}),
        ({"surroundings.lights": 4}, {"lights", "image", "object walls", "object floor"}),
        ({"surroundings.light_power_w": 9.0}, {"lights", "image"}),
        ({"surroundings.environment": "room"}, {"environment", "image", "object walls", "object floor"}),
        ({"surroundings.environment_strength": 1.0}, {"environment", "image"}),
        ({"surroundings.table_materials": ["stone"]}, {"object table"}),
        ({"render.quality": "draft"}, {"samples_per_pixel", "denoise_quality"}),
        ({"videos": 5}, set()),
        ({"name": "other"}, set()),
    ],
)
def test_a_changed_distribution_changes_what_it_names_and_no_more(panda, overrides, allowed):
    changed = set().union(*(_changed(panda, overrides, video) for video in range(3)))
    assert changed <= allowed
    assert bool(changed) == bool(allowed)


@pytest.mark.parametrize("video", range(4))
def test_moving_the_camera_leaves_robot_table_and_lamps(panda, video):
    changed = _changed(panda, {"camera.distance_m": 1.234, "distractors.occluders": 0}, video)
    assert not changed & {"robot", "lights", "environment", "object table", "depth_sensor"}


@pytest.mark.parametrize("other", ["xbox360", "realsense", "azure"])
def test_cross_camera_sets_differ_in_their_intrinsics_only(panda, other):
    for video in range(5):
        a = sample_scene(load_spec("cross_camera"), video, panda)
        b = sample_scene(load_spec(f"cross_camera_{other}"), video, panda)
        assert b.camera.fx_px != a.camera.fx_px
        lens = {"fx_px": a.camera.fx_px, "fy_px": a.camera.fy_px, "cx_px": a.camera.cx_px, "cy_px": a.camera.cy_px}
        same = b.model_copy(update={"camera": b.camera.model_copy(update=lens), "spec_digest": a.spec_digest, "dataset": a.dataset})
        assert same == a


def test_splits_follow_their_shares_and_nothing_but_seed_and_video():
    spec = load_spec("smoke", {"splits": {"train": 6, "val": 3, "test": 1}})
    names = np.array([draw_split(spec, v) for v in range(3000)])
    for name, share in (("train", 0.6), ("val", 0.3), ("test", 0.1)):
        assert (names == name).mean() == pytest.approx(share, abs=0.03)
    other = load_spec("hello", {"splits": {"train": 6, "val": 3, "test": 1}, "seed": spec.seed})
    assert all(draw_split(other, v) == names[v] for v in range(100))
    assert {draw_split(load_spec("smoke", {"splits": {"train": 0, "val": 0, "test": 2}}), v) for v in range(50)} == {"test"}


def _world_vertices(obj):
    return se3.transform(np.asarray(obj.T_world_object[0]), object_mesh(obj).vertices_m)


def _inside(hull, points):
    """Which points (N,d) lie inside a convex hull, deeper than a micrometre."""
    near = ((points > hull.min_bound) & (points < hull.max_bound)).all(1)
    near[near] = (points[near] @ hull.equations[:, :-1].T + hull.equations[:, -1] < -1e-6).all(1)
    return near


def _things(scene):
    return [o for o in scene.objects if o.role in ("distractor", "occluder")]


def test_things_rest_on_the_table_and_lie_within_its_top(franka_scenes):
    for scene in franka_scenes:
        table = next(o for o in scene.objects if o.role == "table")
        top = _world_vertices(table)
        assert top[:, 2].max() == pytest.approx(0, abs=1e-9)
        slab = ConvexHull(top[top[:, 2] > -0.01][:, :2])
        for obj in _things(scene):
            vertices = _world_vertices(obj)
            assert vertices[:, 2].min() == pytest.approx(0, abs=1e-9)
            assert _inside(slab, vertices[:, :2]).all(), obj.name


def test_things_do_not_penetrate_each_other_the_robot_or_the_camera(franka_scenes, panda):
    meshes = load_link_meshes(panda)
    for scene in franka_scenes:
        clouds = [_world_vertices(o) for o in _things(scene)]
        hulls = [ConvexHull(c) for c in clouds]
        T_world_link = np.asarray(scene.robot.T_world_base) @ forward_kinematics(panda, np.asarray(scene.robot.joint_position))
        robot = np.concatenate([se3.transform(T_world_link[:, m.link_index], m.vertices_m).reshape(-1, 3)[::3] for m in meshes])
        eyes = np.asarray(scene.camera.T_world_cam)[:, :3, 3]
        for i, hull in enumerate(hulls):
            others = [c for k, c in enumerate(clouds) if k != i]
            for points in (*others, robot, eyes):
                assert not _inside(hull, points).any(), (scene.video, scene.objects[i].name)


def test_cameras_see_the_robot_from_above_the_table_and_inside_the_room(franka_scenes, panda):
    for scene in franka_scenes:
        T = np.asarray(scene.camera.T_world_cam)
        assert se3.is_rigid(T) and T[:, 2, 3].min() > 0.04
        base_in_view = se3.inverse(T) @ np.asarray(scene.robot.T_world_base)
        assert (base_in_view[:, 2, 3] > 0).all()
        for walls in (o for o in scene.objects if o.name == "walls"):
            local = se3.transform(se3.inverse(np.asarray(walls.T_world_object[0])), np.concatenate([T[:, :3, 3]]))
            inner = np.array(walls.size_m)[:2] / 2 - walls.parameters[0]
            assert (np.abs(local[:, :2]) < inner).all()


def test_occluders_hide_a_part_of_the_robot_and_not_too_much(franka_scenes, panda):
    meshes = load_link_meshes(panda)
    links = range(len(meshes))
    shares = []
    for scene in franka_scenes:
        T_world_link = np.asarray(scene.robot.T_world_base) @ forward_kinematics(panda, np.asarray(scene.robot.joint_position))
        K = intrinsics(scene.camera.fx_px, scene.camera.fy_px, scene.camera.cx_px, scene.camera.cy_px)
        T_world_cam = np.asarray(scene.camera.T_world_cam[0])
        for obj in (o for o in scene.objects if o.role == "occluder"):
            alone = scene.model_copy(update={"objects": (obj,)})
            world = build_ray_world(alone, meshes, T_world_link)
            seen = render_labels(world.posed(0), K, T_world_cam, 640, 360).mesh_index
            amodal = amodal_masks(world.posed(0), world.T_world_mesh[0], [links], K, T_world_cam, 640, 360)[0]
            visible = (seen >= 0) & (seen < len(meshes))
            shares.append(1 - visible.sum() / amodal.sum())
    assert len(shares) >= 4 and max(shares) < 0.5
    assert np.mean(np.array(shares) > 0.005) > 0.6, "most of them cover robot pixels (the rest cover what the image cuts off)"


def test_motion_blur_ends_half_a_shutter_later(panda):
    spec = load_spec("simrgbd_franka", {"image.motion_blur": 0.5, "camera.path": "moving", "frames": 4, "camera.speed_m_s": 0.2})
    scene = sample_scene(spec, 0, panda)
    assert scene.camera.T_world_cam_end is not None
    middle, end = np.asarray(scene.camera.T_world_cam)[:, :3, 3], np.asarray(scene.camera.T_world_cam_end)[:, :3, 3]
    per_frame = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    half_shutter = np.linalg.norm(end - middle, axis=1)
    np.testing.assert_allclose(half_shutter[:-1] / per_frame, 0.25, atol=0.01)


def test_sensor_none_leaves_its_modalities_out(panda):
    spec = load_spec("smoke", {"depth_sensor.model": "none", "depth_sensor.ir": "none"})
    assert not {"depth_sim", "ir_left", "ir_right"} & set(sample_scene(spec, 0, panda).modalities)


def test_robots_without_the_named_keypoints_are_refused():
    with pytest.raises(RobotError, match="unknown keypoint set 'dream7'"):
        sample_scene(load_spec("smoke", {"robot.name": "ur5"}), 0, load_robot("ur5"))


def test_every_draw_is_explained(franka_scenes):
    scene = franka_scenes[0]
    text = explain(scene)
    rows = explain_rows(scene)
    assert len(rows) == len({key for key, _, _ in rows}) == len(scene.draws)
    for key in ("camera.distance_m", "robot.base_yaw_deg", "light.0.power_w", "table.material.kind", "environment.name"):
        line = next(line for line in text.splitlines() if line.startswith(key))
        draw = next(d for d in scene.draws if d.key == key)
        assert draw.distribution in line and (f"{draw.value:.6g}" if isinstance(draw.value, float) else draw.value) in line
    assert all(reason in text for reason in scene.rejections)
