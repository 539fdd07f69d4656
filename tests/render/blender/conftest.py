"""One Blender per test process: its scene is global."""

from pathlib import Path

import numpy as np
import pytest

from dataengine.render.blender.renderer import BlenderRenderer
from dataengine.render.passes import RawPasses
from dataengine.robot.kinematics import forward_kinematics
from dataengine.robot.meshes import bake_link_meshes
from dataengine.robot.urdf import parse_urdf
from dataengine.scene.spec import SceneSpec

TOY = Path(__file__).parent / "toy.urdf"


class Toy:
    """A renderer with a two-link robot."""

    joints = ("hinge",)

    def __init__(self) -> None:
        self.model = parse_urdf(TOY)
        self.meshes = bake_link_meshes(self.model)
        self.renderer = BlenderRenderer(self.model, self.meshes)

    def link_poses(self, scene: SceneSpec) -> np.ndarray:
        return np.asarray(scene.robot.T_world_base) @ forward_kinematics(self.model, np.array(scene.robot.joint_position))

    def render(self, scene: SceneSpec) -> RawPasses:
        return self.renderer.render_video(scene, self.link_poses(scene))


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()
