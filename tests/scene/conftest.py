import pytest

from dataengine.config.loader import load_spec
from dataengine.robot.catalogue import load_robot
from dataengine.scene.sample import sample_scene


@pytest.fixture(scope="session")
def panda():
    return load_robot("panda")


@pytest.fixture(scope="session")
def franka_scenes(panda):
    """Scenes of the preset that the project is named for, with many things and occluders on the table."""
    spec = load_spec("simrgbd_franka", ["distractors.count={integers: [4, 9]}", "distractors.occluders=1"])
    return [sample_scene(spec, video, panda) for video in range(12)]
