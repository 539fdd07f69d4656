import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataengine.config.distributions import LogUniform, Uniform
from dataengine.config.loader import PRESET_FOLDER, load_spec, preset_names
from dataengine.config.spec import DatasetSpec
from dataengine.errors import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _write(text, name="hello.yaml"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return _write


def _error(source, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_spec(source, overrides)
    return str(caught.value)


def test_an_empty_file_is_all_defaults(write):
    assert load_spec(write("")) == DatasetSpec()


def test_the_example_of_the_documentation(write):
    text = "name: hello\nvideos: 4\nframes: 3\ncamera:\n  heigth: 360\n"
    assert _error(write(text)) == "hello.yaml:5:3: camera.heigth: unknown key (did you mean 'height'?)"


@pytest.mark.parametrize(
    "text, message",
    [
        ("videos: 0", "1:9: videos: 0 is not allowed; it must be ≥ 1"),
        ("videos: true", "1:9: videos: expected a whole number, got true"),
        ("frames: 2.5", "1:9: frames: expected a whole number, got 2.5"),
        ("camera: {width: wide}", "1:17: camera.width: expected a whole number, got 'wide'"),
        ("camera:\n\n  distance_m: {uniform: [3, 2]}",
         "3:15: camera.distance_m: min 3 is greater than max 2; give [min, max]"),
        ("camera: {distance_m: far}", "1:22: camera.distance_m: expected a number, got 'far'"),
        ("camera: {distance_m: {uniform: [1, far]}}", "1:36: camera.distance_m.uniform[1]: expected a number, got 'far'"),
        ("camera: {distance_m: -1}", "1:22: camera.distance_m: can be as low as -1; it must be > 0"),
        ("camera: {distance_m: {uniform: [1, 2], x: 1}}",
         "1:40: camera.distance_m.x: unknown key; nothing may stand beside 'uniform'"),
        ("camera: {roll_deg: {normal: {mean: 0, std: 1, mim: 2}}}",
         "1:47: camera.roll_deg.normal.mim: unknown key (did you mean 'min'?)"),
        ("camera: {roll_deg: {normal: {mean: 0}}}", "1:29: camera.roll_deg.normal.std: 'std' is missing"),
        ("camera: {path: statik}",
         "1:16: camera.path: unknown value 'statik' (did you mean 'static'?); available: static, moving, handheld"),
        ("camera: {preset: free}", "1:9: camera: preset 'free' needs one of fx_px and horizontal_fov_deg, neither given"),
        ("camera: {fx_px: 300}", "1:9: camera: fx_px given, but preset 'simrgbd' fixes the intrinsics; set preset: free"),
        ("distractors: {count: 40}", "1:22: distractors.count: can be as high as 40; it must be ≤ 32"),
        ("distractors: {count: 30, occluders: 3}",
         "1:14: distractors: count and occluders can be 33 together; at most 32 objects are allowed"),
        ("distractors: {shapes: []}",
         "1:14: distractors: shapes and meshes are both empty; name some, or set count and occluders to 0"),
        ("distractors: {materials: []}", "1:26: distractors.materials: has 0 values; at least 1 needed"),
        ("render: 3", "1:9: render: expected a section (keys with values), got 3"),
        ("splits: {train: 0, val: 0, test: 0}", "1:9: splits: all split shares are 0; give at least one a positive share"),
        ("depth_sensor: {ir: none}",
         "1:15: depth_sensor: active_stereo needs an infrared pair; set ir to fast or cycles, or model to none"),
        ("name: a b", "1:7: name: 'a b' does not fit; use letters, digits, - and _, starting with a letter or digit"),
        ("robot: {name: }", "1:14: robot.name: expected a text, got nothing"),
        ("videos: 3\nvideos: 4", "2:1: videos: given twice, first at hello.yaml:1:1; keep one"),
        ("camera: [1, 2", "1:14: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("- 1", "1:1: expected keys with values, such as `videos: 4`"),
        ("robot: &a {name: *a}", "1:8: an alias refers to the value that holds it"),
        ("seed: !!int x", "1:7: cannot read 'x' as int; write a plain value"),
        ("extends: 3", "1:10: extends: expected the name of a preset or the path of a .yaml file"),
        ("extends: hello.yaml", "1:10: extends: files extend each other in a circle: hello.yaml → hello.yaml"),
    ],
)  # fmt: skip
def test_one_mistake_one_line(write, text, message):
    assert _error(write(text)) == f"hello.yaml:{message}"


@pytest.mark.parametrize(
    "text, start, words",
    [
        ("modalities: [rgbb]", "hello.yaml:1:13: modalities:", ["did you mean 'rgb'", "depth_z"]),
        ("distractors: {shapes: [box, mugg]}", "hello.yaml:1:29: distractors.shapes[1]:", ["'mugg'", "'mug'", "bottle"]),
        ("surroundings: {environment: {choice: [cty]}}", "hello.yaml:1:39:", ["environment", "'cty'", "city, courtyard"]),
        ("surroundings: {table_materials: [wod]}", "hello.yaml:1:34:", ["'wod'", "'wood'"]),
        ("camera: {distance_m: {unifrom: [1, 2]}}", "hello.yaml:1:22: camera.distance_m: unknown distribution",
         ["unifrom", "{uniform: [min, max]}", "{log_uniform", "{normal", "{choice"]),
        ("distractors: {count: {uniform: [1, 2]}}", "hello.yaml:1:22: distractors.count: unknown distribution",
         ["{integers: [min, max]}", "{choice"]),
        ("colour: 3", "hello.yaml:1:1: colour: unknown key; allowed: name, seed", ["camera"]),
    ],
)  # fmt: skip
def test_a_mistake_tells_what_is_allowed(write, text, start, words):
    message = _error(write(text))
    assert "\n" not in message and message.startswith(start)
    assert [w for w in words if w not in message] == []
    assert not (text.startswith("distractors: {count") and "{uniform: [min" in message)


def test_all_mistakes_are_reported_in_the_order_of_the_file(write):
    lines = _error(write("fps: x\ncamera: {tries: 0}\nvideos: 0\nimage:\n  nois: 1\n")).split("\n")
    assert [line.split(": ")[:2] for line in lines] == [
        ["hello.yaml:1:6", "fps"],
        ["hello.yaml:2:17", "camera.tries"],
        ["hello.yaml:3:9", "videos"],
        ["hello.yaml:5:3", "image.nois"],
    ]


def test_unknown_presets_and_missing_files():
    assert "did you mean 'hello'?" in _error("helo") and "simrgbd_franka" in _error("helo")
    assert _error("there/is/no.yaml").startswith("there/is/no.yaml: cannot read: No such file")


def test_files_that_are_not_text(tmp_path):
    (tmp_path / "a.yaml").write_bytes(b"name: \xff")
    assert "not UTF-8" in _error(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"name: \x00")
    assert "not valid YAML" in _error(tmp_path / "b.yaml")


def test_extends_merges_sections_and_replaces_distributions(write):
    write("videos: 9\ncamera: {width: 320, distance_m: {uniform: [1, 2]}}\n", "base.yaml")
    write("extends: base.yaml\nframes: 5\n", "middle.yaml")
    spec = load_spec(write("extends: middle.yaml\ncamera:\n  distance_m: {log_uniform: [1, 3]}\n"))
    assert (spec.videos, spec.frames, spec.camera.width) == (9, 5, 320)
    assert spec.camera.distance_m == LogUniform(log_uniform=(1, 3))


def test_an_error_in_the_base_names_the_base(write):
    write("camera:\n  width: 3\n", "base.yaml")
    assert _error(write("extends: base.yaml\n")).startswith("base.yaml:2:10: camera.width: 3")
    assert _error(write("extends: nix.yaml\n")) == "hello.yaml:1:10: extends: there is no file nix.yaml"
    assert _error(write("extends: helo\n")).startswith("hello.yaml:1:10: extends: unknown preset 'helo' (did you")


def test_a_long_circle_is_found(write):
    write("extends: b.yaml", "a.yaml")
    write("extends: a.yaml", "b.yaml")
    assert "a.yaml → b.yaml → a.yaml" in _error("a.yaml")


def test_overrides_win_in_order():
    spec = load_spec("smoke", ["videos=9", "camera.distance_m={uniform: [1, 2]}", "videos=7", "camera.elevation_deg.uniform=[1, 1e1]"])
    assert spec.videos == 7 and spec.camera.width == 160
    assert spec.camera.distance_m == Uniform(uniform=(1, 2)) and spec.camera.elevation_deg == Uniform(uniform=(1, 10))
    assert load_spec("smoke", {"camera.width": 320, "modalities": ("rgb",)}).camera.width == 320


@pytest.mark.parametrize(
    "override, message",
    [
        ("camera.heigth=3", "--set camera.heigth: unknown key (did you mean 'height'?)"),
        ("camera.distance_m={uniform: [3, 2]}",
         "--set camera.distance_m: min 3 is greater than max 2; give [min, max]"),
        ("videos", "--set videos: give KEY=VALUE, such as camera.distance_m=1.2"),
        ("camera..width=3", "--set camera..width=3: give KEY=VALUE, such as camera.distance_m=1.2"),
        ("videos=[1", "--set videos: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("videos=", "--set videos: expected a whole number, got ''"),
        ("camera.width.x=3", "--set camera.width: expected a whole number, got {x: …}"),
    ],
)  # fmt: skip
def test_wrong_overrides(override, message):
    assert _error("smoke", [override]) == message


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_under_its_own_name_and_names_the_schema(name):
    assert load_spec(name).name == name
    first = (PRESET_FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"


def test_presets_keep_what_the_readme_promises():
    franka = load_spec("simrgbd_franka")
    assert (franka.camera.width, franka.camera.height, franka.frames, franka.videos) == (640, 360, 3, 4000)
    assert franka.depth_sensor.baseline_m == 0.055 and franka.camera.preset == "simrgbd"
    hello = load_spec("hello")
    assert (hello.videos, hello.frames, hello.render.quality, hello.camera.preset) == (4, 3, "train", "simrgbd")
    fov = {n: load_spec(f"cross_camera_{n}").camera.horizontal_fov_deg for n in ("xbox360", "realsense", "azure")}
    assert fov == {"xbox360": 62.73, "realsense": 70.21, "azure": 93.01}


@given(st.floats(0.1, 5), st.floats(0, 5), st.integers(1, 10**6))
def test_what_is_written_is_what_is_read(low, width, videos):
    spec = load_spec("smoke", [f"camera.distance_m={{uniform: [{low!r}, {low + width!r}]}}", f"videos={videos}"])
    assert spec.camera.distance_m == Uniform(uniform=(low, low + width)) and spec.videos == videos
