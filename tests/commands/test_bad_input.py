"""What people get wrong: each gives exit code 2, exactly one line that helps, and leaves nothing behind."""

from pathlib import Path

import pytest

from tests.commands.conftest import Cli

RENDER = ("render", "smoke", "--serial", "--no-report", "--out", "made")

SPEC_MISTAKES: dict[str, tuple[str, str]] = {
    "unknown key": ("camera.heigth=3", "--set camera.heigth: unknown key (did you mean 'height'?)"),
    "wrong type": ("videos=two", "--set videos: expected a whole number, got 'two'"),
    "zero videos": ("videos=0", "--set videos: 0 is not allowed; it must be ≥ 1"),
    "min above max": ("camera.distance_m={uniform: [2, 1]}", "camera.distance_m: min 2 is greater than max 1; give [min, max]"),
    "no value": ("camera.distance_m", "--set camera.distance_m: give KEY=VALUE"),
    "unknown modality": ("modalities=[rgbb]", "unknown modality 'rgbb' (did you mean 'rgb'?)"),
    "unknown robot": ("robot.name=pandaa", "unknown robot 'pandaa' (did you mean 'panda'?)"),
    "keypoints of another robot": ("robot.name=ur5", "robot ur5: unknown keypoint set 'dream7'; available: links, auto"),
    "unknown keypoints": ("robot.keypoints=[panda51]", "unknown keypoint set 'panda51' (did you mean 'panda15'?)"),
    "missing URDF": ("robot.name=/nowhere/arm.urdf", "cannot read robot description /nowhere/arm.urdf: No such file or directory"),
    "camera too far": ("camera.distance_m=30", "no camera saw the robot in 200 draws (robot too small: 200); shorten camera.distance_m"),
    "camera inside the robot": ("camera.distance_m=0.05", "(too near the robot"),
    "missing object mesh": (
        "distractors={count: 1, shapes: [], meshes: [/nowhere/cup.obj]}",
        "mesh /nowhere/cup.obj: there is no such file",
    ),
    "missing texture": ("surroundings.textures=[/nowhere/oak.jpg]", "texture /nowhere/oak.jpg: there is no such file"),
    "unknown texture": ("surroundings.textures=[brik]", "unknown texture 'brik' (did you mean 'brick'?)"),
}


@pytest.mark.parametrize("mistake", SPEC_MISTAKES)
def test_spec(mistake: str, cli_main: Cli, tmp_path: Path) -> None:
    override, expected = SPEC_MISTAKES[mistake]
    line = cli_main(*RENDER, "--set", override).refusal()
    assert expected in line and line.count("\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_every_mistake_has_its_line(cli_main: Cli) -> None:
    lines = cli_main(*RENDER, "--set", "videos=two", "--set", "robot.nme=x", "--set", "camera.width=1").refusal().splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: --set ") for line in lines)


def test_a_preset_file_is_named_with_line_and_column(cli_main: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: smoke\ncamera:\n  heigth: 3\n")
    assert cli_main("render", "mine.yaml").refusal() == "error: mine.yaml:3:3: camera.heigth: unknown key (did you mean 'height'?)"


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("smoek", "unknown preset 'smoek' (did you mean 'smoke'?); available: "),
        ("nowhere.yaml", "nowhere.yaml: cannot read: No such file or directory"),
        (".", "unknown preset '.'"),
    ],
)
def test_presets(preset: str, expected: str, cli_main: Cli) -> None:
    assert expected in cli_main("render", preset).refusal()


URDF = """<robot name="arm"><link name="base"><visual><geometry>{}</geometry></visual></link><link name="tip"/>
<joint name="hinge" type="{}"><parent link="base"/><child link="tip"/><axis xyz="0 0 1"/>
<limit lower="-1" upper="1" velocity="1" effort="1"/></joint></robot>"""


def urdf(geometry: str, joint: str = "revolute") -> str:
    return URDF.format(geometry, joint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<robot", "arm.urdf: not well-formed XML"),
        ("<mobile/>", "arm.urdf"),
        (urdf('<mesh filename="lost.stl"/>'), "lost.stl"),
        (urdf('<mesh filename="broken.stl"/>'), "broken.stl"),
        (urdf('<mesh filename="broken.obj"/>'), "broken.obj"),
        (urdf('<mesh filename="package://arm/lost.dae"/>'), "lost.dae"),
    ],
    ids=["not XML", "no robot", "mesh missing", "STL broken", "OBJ broken", "package missing"],
)
def test_robots(text: str, expected: str, cli_main: Cli, tmp_path: Path) -> None:
    (tmp_path / "arm.urdf").write_text(text)
    (tmp_path / "broken.stl").write_bytes(b"solid rubbish\n\x00\xff")
    (tmp_path / "broken.obj").write_text("v 0 0 0\nf 1 2 3\n")
    refused = cli_main(*RENDER, "--set", f"robot.name={tmp_path}/arm.urdf", "--set", "robot.keypoints=[links]").refusal()
    assert expected in refused and refused.count("\n") == 0
    assert not (tmp_path / "made").exists()


def test_a_robot_without_moving_parts(cli_main: Cli, tmp_path: Path) -> None:
    (tmp_path / "post.urdf").write_text(urdf('<box size="0.1 0.1 0.5"/>', joint="fixed"))
    refused = cli_main(*RENDER, "--set", f"robot.name={tmp_path}/post.urdf", "--set", "robot.keypoints=[links]").refusal()
    assert "robot arm has no moving joint" in refused


@pytest.mark.parametrize("content", [b"rubbish", b"", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 7 8 9\n"])
def test_broken_object_meshes(content: bytes, cli_main: Cli, tmp_path: Path) -> None:
    (tmp_path / "cup.obj").write_bytes(content)
    override = f"distractors={{count: 1, occluders: 0, shapes: [], meshes: [{tmp_path}/cup.obj]}}"
    assert "cup.obj" in cli_main(*RENDER, "--set", override).refusal()
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"rubbish", b""])
def test_broken_textures(content: bytes, cli_main: Cli, tmp_path: Path) -> None:
    """Found before the first video, though only some would carry it."""
    (tmp_path / "oak.png").write_bytes(content)
    refused = cli_main(*RENDER, "--set", f"surroundings.textures=[brick, {tmp_path}/oak.png]").refusal()
    assert "oak.png: cannot read it" in refused and "repair or replace the file" in refused
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("render", "smoke", "--workers", "0"), "--workers 0: must be at least 1"),
        (("render", "smoke", "--workers", "-2"), "--workers -2: must be at least 1"),
        (("plan", "smoke", "--pilot", "0"), "--pilot 0: must be at least 1"),
        (("plan", "smoke", "--nodes", "0"), "--nodes 0: must be at least 1"),
        (("plan", "smoke", "--cores", "0"), "--cores 0: must be at least 1"),
        (("plan", "smoke", "--set", "videos=0"), "--set videos: 0 is not allowed"),
        (("validate", "nowhere"), "nowhere does not exist; give the folder of a dataset"),
        (("status", "nowhere"), "nowhere: no status.json"),
        (("report", "."), ". is not a dataset: it holds no dataset.json"),
        (("explain", ".", "0"), ". is not a dataset"),
        (("replay", "nowhere", "0"), "nowhere does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_arguments(arguments: tuple[str, ...], expected: str, cli_main: Cli) -> None:
    assert expected in cli_main(*arguments).refusal()


@pytest.mark.parametrize(
    "arguments",
    [(), ("rendr",), ("explain", "folder"), ("explain", "folder", "first"), ("render", "smoke", "--wrkers", "2"), ("replay",)],
    ids=" ".join,
)
def test_what_the_parser_refuses(arguments: tuple[str, ...], cli_main: Cli) -> None:
    """Exit code 2, a hint at --help, no traceback; the parser frames its refusals in a box."""
    said = cli_main(*arguments)
    assert said.code == 2
    assert "--help" in said.err and "Traceback" not in said.err


class TestOutputFolder:
    def test_holds_something_else(self, cli_main: Cli, tmp_path: Path) -> None:
        made = tmp_path / "made"
        made.mkdir()
        (made / "thesis.tex").write_text("precious")
        assert "made is not a dataset and not empty (it holds thesis.tex); choose another output folder" in cli_main(*RENDER).refusal()
        assert [p.name for p in made.iterdir()] == ["thesis.tex"]

    def test_is_a_file(self, cli_main: Cli, tmp_path: Path) -> None:
        (tmp_path / "made").write_text("precious")
        assert "made is a file; give a folder" in cli_main(*RENDER).refusal()
        assert (tmp_path / "made").read_text() == "precious"

    def test_below_a_file(self, cli_main: Cli, tmp_path: Path) -> None:
        (tmp_path / "made").write_text("precious")
        refused = cli_main("render", "smoke", "--serial", "--out", "made/below").refusal()
        assert "cannot create made/below: Not a directory; choose another output folder with --out" in refused

    def test_where_nothing_can_be_created(self, cli_main: Cli) -> None:
        """/proc takes no folders, not even root's."""
        assert "cannot create /proc/made" in cli_main("render", "smoke", "--serial", "--out", "/proc/made").refusal()

    def test_holds_a_damaged_head(self, cli_main: Cli, tmp_path: Path) -> None:
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "dataset.json").write_text("{")
        assert "dataset.json is damaged" in cli_main(*RENDER).refusal()


def test_dead_ray_cluster(cli_main: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said at once, not after Ray's minutes of trying; the folder can be used afterwards."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    refused = cli_main("render", "smoke", "--out", "made").refusal()
    assert refused == (
        "error: cannot join the Ray cluster at 127.0.0.1:1 (Connection refused); start it with `ray start --head`, "
        "or unset RAY_ADDRESS to use this machine"
    )
