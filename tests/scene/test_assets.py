"""Files that presets name: found, hashed, or refused in one line."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from dataengine.config.loader import load_spec
from dataengine.errors import AssetError
from dataengine.robot.catalogue import load_robot
from dataengine.scene import assets
from dataengine.scene.sample import sample_scene


@pytest.mark.parametrize("name", assets.TEXTURES)
def test_packaged_textures_are_pictures(name):
    path = assets.texture_path(name)
    with Image.open(path) as image:
        assert min(image.size) >= 256
    assert assets.file_sha256("texture", name) == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brik", r"^unknown texture 'brik' \(did you mean 'brick'\?\); available: brick, gravel, grass; or give the path of a picture$"),
        ("no/such.png", r"^texture no/such.png: there is no such file$"),
        ("package://nopackage/a.png", r"^texture package://nopackage/a.png: there is no Python package 'nopackage'"),
        ("package://skimage/data/no.png", r"there is no such file$"),
    ],
)
def test_missing_textures_are_one_line(name, message):
    with pytest.raises(AssetError, match=message):
        assets.texture_path(name)


def test_broken_picture_is_refused(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(AssetError, match=r"cannot read it .*repair or replace"):
        assets.texture_path(str(bad))
    other = tmp_path / "picture.tga"
    other.write_bytes(b"x")
    with pytest.raises(AssetError, match=r"unknown kind of file '.tga'; give one of .png"):
        assets.texture_path(str(other))


def test_a_texture_of_ones_own_reaches_the_scene(tmp_path):
    path = tmp_path / "mine.png"
    Image.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(path)
    sets = [f"surroundings.textures=[{path}]", "surroundings.texture_share=1"]
    scene = sample_scene(load_spec("smoke", sets), 0, load_robot("panda"))
    table = next(o for o in scene.objects if o.role == "table")
    assert table.material.texture == str(path)
    assert table.material.texture_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_textures_change_nothing_but_the_surfaces():
    robot = load_robot("panda")
    plain, textured = (
        sample_scene(load_spec("smoke", [f"surroundings.texture_share={share}"]), 1, robot).model_dump(exclude={"draws", "spec_digest"})
        for share in (0, 1)
    )
    for obj in [*plain["objects"], *textured["objects"]]:
        if obj["role"] in ("table", "room"):
            del obj["material"]
    assert plain == textured
