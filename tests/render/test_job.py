"""SceneSpec → Video with the ray caster in Blender's place: contents, subsets, sensors, repeatability."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dataengine.config.loader import load_spec
from dataengine.quality.validate import validate_video
from dataengine.record.modalities import NAMES
from dataengine.record.video import Video
from dataengine.render.job import Rendered, Robot, prepare_robot, render_video, world_link_poses
from dataengine.robot.catalogue import load_robot
from dataengine.robot.meshes import load_link_meshes
from dataengine.scene.sample import sample_scene
from dataengine.scene.spec import SceneSpec
from tests.conftest import TestRender
from tests.support.ray_renderer import ray_renderer


def assert_identical(a: Video, b: Video) -> None:
    assert a.images.keys() == b.images.keys()
    for name in a.images:
        assert_array_equal(a.images[name], b.images[name], err_msg=name)
    assert a.frames.tobytes() == b.frames.tobytes()
    assert (a.scene, a.names) == (b.scene, b.names)


def violations(rendered: Rendered, robot: Robot) -> list[str]:
    return [str(v) for v in validate_video(rendered.video, robot.model, robot.meshes, rendered.world).violations]


def test_all_modalities_and_no_violation(tiny_rendered: Rendered, panda_ready: Robot) -> None:
    tiny_video = tiny_rendered.video
    assert set(tiny_video.images) == set(NAMES)
    assert violations(tiny_rendered, panda_ready) == []
    assert tiny_video.frames["accepted"].all()


def test_same_scene_same_bytes(tiny_video: Video, render_tiny: TestRender) -> None:
    assert_identical(render_tiny("distractors.occluders=1").video, tiny_video)


def test_videos_differ(tiny_video: Video, render_tiny: TestRender) -> None:
    other = render_tiny("distractors.occluders=1", "modalities=[rgb]", video=1).video
    assert other.scene["robot"]["joint_position"] != tiny_video.scene["robot"]["joint_position"]
    assert (other.images["rgb"] != tiny_video.images["rgb"]).any()


def test_a_subset_of_modalities_is_the_same_subset_of_arrays(tiny_video: Video, render_tiny: TestRender, panda_ready: Robot) -> None:
    """Leaving modalities out changes no value of those that stay: noise has a stream of its own per purpose."""
    rendered = render_tiny("distractors.occluders=1", "modalities=[rgb, depth_sim, mask_link]")
    few = rendered.video
    assert set(few.images) == {"rgb", "depth_sim", "mask_link"}
    for name, image in few.images.items():
        assert_array_equal(image, tiny_video.images[name], err_msg=name)
    assert few.frames.tobytes() == tiny_video.frames.tobytes()
    assert violations(rendered, panda_ready) == []


def test_labels_alone_need_no_sensor(render_tiny: TestRender, panda_ready: Robot) -> None:
    rendered = render_tiny("modalities=[depth_z]", "depth_sensor.model=none", "depth_sensor.ir=none")
    video = rendered.video
    assert set(video.images) == {"depth_z"}
    assert violations(rendered, panda_ready) == []


@pytest.mark.parametrize("sensor", ["active_stereo", "kinect_v1", "azure_tof", "none"])
def test_depth_sensors(sensor: str, render_tiny: TestRender, panda_ready: Robot) -> None:
    """Each gives a valid record; what it measures lies near the truth and nowhere beyond its range."""
    rendered = render_tiny(f"depth_sensor.model={sensor}", "depth_sensor.max_depth_m=3.0", "modalities=[all]")
    video = rendered.video
    assert violations(rendered, panda_ready) == []
    assert ("depth_sim" in video.images) == (sensor != "none")
    assert {"ir_left", "ir_right"} <= set(video.images)
    if sensor == "none":
        return
    measured, true = video.images["depth_sim"], video.images["depth_z"]
    both = (measured > 0) & (true > 0) & (true < 2.5)
    assert both.sum() > 0.5 * ((true > 0) & (true < 2.5)).sum()
    assert np.median(np.abs(measured - true)[both]) < 0.03
    assert measured.max() <= 3.0
    assert (measured != true).any()


def test_without_infrared(render_tiny: TestRender, panda_ready: Robot) -> None:
    rendered = render_tiny("depth_sensor.model=kinect_v1", "depth_sensor.ir=none")
    video = rendered.video
    assert set(NAMES) - set(video.images) == {"ir_left", "ir_right"}
    assert violations(rendered, panda_ready) == []


def test_table_of_frames(tiny_video: Video, panda_ready: Robot) -> None:
    scene = SceneSpec.model_validate(tiny_video.scene)
    rows = tiny_video.frames
    assert_array_equal(rows["timestamp_s"], scene.timestamp_s)
    assert_array_equal(rows["joint_position"], scene.robot.joint_position)
    assert_allclose(rows["T_world_cam"] @ rows["T_cam_base"], np.broadcast_to(scene.robot.T_world_base, (2, 4, 4)), atol=1e-12)
    in_world = rows["T_world_cam"][:, None] @ rows["T_cam_link"]
    assert_allclose(in_world, world_link_poses(scene, panda_ready.model), atol=1e-12)
    assert tiny_video.names.joints == panda_ready.model.actuated
    assert tiny_video.names.links == panda_ready.model.links
    assert rows["T_cam_object"].shape == (2, len(tiny_video.names.objects), 4, 4)


def test_visible_shares_count_pixels(tiny_video: Video) -> None:
    """Every object and link, both frames: from the stored masks alone, for objects; for the robot as a whole."""
    images = tiny_video.images
    for f, row in enumerate(tiny_video.frames):
        for k in range(len(tiny_video.names.objects)):
            alone = (images["amodal_objects"][f] >> k) & 1
            share = (images["mask_object"][f] == k + 1).sum() / max(1, alone.sum())
            assert row["object_visibility"][k] == pytest.approx(min(1.0, share))
        present = np.unique(images["mask_link"][f])
        assert_array_equal(np.flatnonzero(row["link_visibility"] > 0) + 1, present[present > 0])
    assert (tiny_video.frames["object_visibility"] < 1).any(), "something in this scene is hidden"


def test_moving_camera_and_motion(render_tiny: TestRender, panda_ready: Robot) -> None:
    rendered = render_tiny("camera.path=moving", "camera.speed_m_s=0.3", "frames=3", "modalities=[rgb, depth_z, mask_link, mask_object]")
    video = rendered.video
    step = np.linalg.norm(np.diff(video.frames["T_world_cam"][:, :3, 3], axis=0), axis=1)
    assert_allclose(step, 0.3 / 15, rtol=0.05)
    assert violations(rendered, panda_ready) == []


def test_no_objects_at_all(render_tiny: TestRender, panda_ready: Robot) -> None:
    rendered = render_tiny("distractors.count=0", "distractors.occluders=0")
    video = rendered.video
    assert video.names.objects == ()
    assert not video.images["amodal_objects"].any() and not video.images["nocs"].any()
    assert video.frames["T_cam_object"].shape == (2, 0, 4, 4)
    assert violations(rendered, panda_ready) == []


def test_stopwatch_names_every_stage(panda_ready: Robot) -> None:
    scene = sample_scene(load_spec("smoke", ["modalities=[rgb, depth_z]", "frames=1"]), 0, panda_ready.model)
    rendered = render_video(scene, panda_ready, ray_renderer(panda_ready.meshes), {"who": "test"})
    assert {"blender", "rays", "sensor", "labels", "develop"} <= rendered.cpu_s.keys()
    assert all(seconds >= 0 for seconds in rendered.cpu_s.values())
    assert rendered.video.provenance == {"who": "test"}


def test_keypoint_sets_are_joined_by_name(panda_ready: Robot) -> None:
    model, meshes = panda_ready.model, panda_ready.meshes
    both = prepare_robot(model, meshes, ("dream7", "panda15")).keypoints
    assert both.names == prepare_robot(model, meshes, ("panda15",)).keypoints.names  # panda15 begins with dream7's points
    reverse = prepare_robot(model, meshes, ("simrgbd14", "dream7")).keypoints
    assert len(set(reverse.names)) == len(reverse.names) > 14


def test_carriers_are_the_link_and_its_neighbours_with_meshes() -> None:
    """panda_hand hangs on panda_link8, which has no mesh: the next with one is panda_link7; below are the fingers."""
    model = load_robot("panda")
    ready = prepare_robot(model, load_link_meshes(model), ("dream7",))
    carrier = {model.links[i] for i in np.flatnonzero(ready.carriers[ready.keypoints.names.index("panda_hand")])}
    assert carrier == {"panda_link7", "panda_hand", "panda_leftfinger", "panda_rightfinger"}
    base = {model.links[i] for i in np.flatnonzero(ready.carriers[ready.keypoints.names.index("panda_link0")])}
    assert base == {"panda_link0", "panda_link1"}
