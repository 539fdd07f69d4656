"""One tiny rendered video for the whole test run: a sampled scene seen by the ray caster, which stands in for Blender."""

from collections.abc import Callable

import pytest

from dataengine.config.loader import load_spec
from dataengine.record.video import Video
from dataengine.render.job import Rendered, Robot, render_video
from dataengine.scene.sample import sample_scene
from dataengine.worker import load_ready_robot
from tests.support.ray_renderer import ray_renderer

TestRender = Callable[..., Rendered]


@pytest.fixture(scope="session")
def panda_ready() -> Robot:
    """The Panda with baked meshes and the keypoints of `smoke`."""
    return load_ready_robot(load_spec("smoke"))


@pytest.fixture(scope="session")
def render_tiny(panda_ready: Robot) -> TestRender:
    """(overrides, video=0) → a video of `smoke` by the ray caster, with the ray world of its labels."""

    def render(*overrides: str, video: int = 0) -> Rendered:
        scene = sample_scene(load_spec("smoke", overrides), video, panda_ready.model)
        return render_video(scene, panda_ready, ray_renderer(panda_ready.meshes), {})

    return render


@pytest.fixture(scope="session")
def tiny_rendered(render_tiny: TestRender) -> Rendered:
    """160 × 96, two frames, all modalities, a few objects and an occluder. Shared: copy before changing anything."""
    return render_tiny("distractors.occluders=1")


@pytest.fixture(scope="session")
def tiny_video(tiny_rendered: Rendered) -> Video:
    return tiny_rendered.video
