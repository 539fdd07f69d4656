import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from dataengine.errors import RecordError
from dataengine.record import report as r


def score(auc: float, frames: int = 100, half: float = 0.02) -> r.Score:
    return r.Score(frames, 1, auc, (auc - half, auc + half), 0.01, 0.02)


def sample() -> r.Report:
    """A report with every part."""
    values = {"fov_deg": 70.2, "distance_m": 1.4}
    return r.Report(
        version=r.VERSION,
        subject=r.Subject("lifter", "out/lifter.safetensors", "ab" * 32, {"K": "10", "sampler": "ddim"}),
        data=r.Data("out/hello", "cd" * 8, "val", "panda", "panda15", ("panda_link0", "panda_hand"), 200, 20, {"robot outside": 3}),
        environment=r.Environment("0123abc+", "AMD EPYC", 2, {"numpy": "1.26.4"}),
        overall=score(0.8, 200),
        protocols=(r.ProtocolScore("DREAM", 1.1, 0.1, None, 20.0, 190, 199, "can exceed 1"),),
        slices=(
            r.Slice("fov_deg", "°", 60.0, 75.0, score(0.9)),
            r.Slice("fov_deg", "°", 75.0, 95.0, score(0.7)),
            r.Slice("joint:panda_joint4", "rad", -3.0, -1.5, score(0.6, 5)),
            r.Slice("joint:panda_joint4", "rad", -1.5, -0.1, score(0.79)),
            r.Slice("distance_m", "m", 1.0, 2.0, score(0.1)),
        ),
        joints=(r.JointScore("panda_joint1", "rad", 0.01, 0.02, 0.05),),
        pose=r.PoseScore(0.01, 0.02),
        efficiency=r.Efficiency(190, 0.9, 1.1, 0.7, 0.008, 0.88),
        calibration=(r.Calibration("keypoints_cam_m", 0.9, 0.91, 2000),),
        speed=r.Speed(100, None, 21.5, 44.0),
        worst=(r.WorstCase(0, 3, 1, None, values), r.WorstCase(0, 4, 2, 0.3, values)),
    )


def test_round_trip_through_a_file(tmp_path: Path) -> None:
    path = r.write(sample(), tmp_path / "deep" / "report.json")
    assert r.read(path) == sample()
    assert not list(path.parent.glob("*.partial"))


def test_what_is_not_a_number_is_null() -> None:
    nothing = dataclasses.replace(sample(), overall=r.Score(3, 3, 0.0, None, math.inf, math.nan))
    plain = r.to_json(nothing)
    assert plain["overall"]["median_m"] is None and plain["overall"]["mean_m"] is None
    assert r.from_json(json.loads(json.dumps(plain, allow_nan=False))).overall.median_m is None


def changed(path: str, value: Any) -> dict[str, Any]:
    """The sample's JSON with one value replaced; `...` removes it."""
    plain = json.loads(json.dumps(r.to_json(sample())))
    *way, last = path.split("/")
    at: Any = plain
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return plain


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 2, r"version 2, this program reads version 1; evaluate again"),
        ("version", ..., r"version None"),
        ("slices/1/score/auc", 1.4, r"slices\[1\]\.score\.auc: 1\.4, allowed: 0 to 1"),
        ("slices/1/score/auc_ci95", [0.1], r"slices\[1\]\.score\.auc_ci95: \[0\.1\], allowed: 2 values"),
        ("slices/0/low", "wide", r"slices\[0\]\.low: 'wide', allowed: a number"),
        ("overall/frames", 1.5, r"overall\.frames: 1\.5, allowed: an integer"),
        ("overall/frames", True, r"overall\.frames: True, allowed: a number"),
        ("overall/failures", -1, r"overall\.failures: -1, allowed: 0 to inf"),
        ("overall/median_m", float("nan"), r"overall\.median_m: nan, allowed"),
        ("data/frames", 0, r"data\.frames: 0, allowed: 1 to inf"),
        ("data/robot", 7, r"data\.robot: 7, allowed: text"),
        ("data/keypoints", "panda_hand", r"data\.keypoints: 'panda_hand', allowed: a list"),
        ("data/skipped", [], r"data\.skipped: \[\], allowed: an object"),
        ("data/skipped", {"x": "y"}, r"data\.skipped\.x: 'y', allowed: a number"),
        ("overall", None, r"overall: None, allowed: an object"),
        ("pose", ..., r"report\.json: pose: 'nothing', allowed: base pose"),
        ("speed/fsp", 3.0, r"speed\.fsp: 3\.0, allowed: no such field; the fields are frames, fps_with_decode"),
    ],
)
def test_wrong_values_are_named_with_their_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(RecordError, match=message) as error:
        r.from_json(changed(path, value))
    assert "\n" not in str(error.value)


def test_optional_parts_may_be_null() -> None:
    for path in ("pose", "efficiency", "speed"):
        assert getattr(r.from_json(changed(path, None)), path) is None


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"nothing\.json: there is no such report; write one with `evaluate`"):
        r.read(tmp_path / "nothing.json")
    (tmp_path / "half.json").write_text('{"version": 1,')
    with pytest.raises(RecordError, match=r"half\.json: not a JSON file"):
        r.read(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(RecordError, match="version None"):
        r.read(tmp_path / "list.json")


def test_a_report_outside_the_schema_is_not_written(tmp_path: Path) -> None:
    wrong = dataclasses.replace(sample(), overall=score(1.2))
    with pytest.raises(RecordError, match=r"report\.json: overall\.auc: 1\.2"):
        r.write(wrong, tmp_path / "report.json")
    assert not list(tmp_path.iterdir())


def test_weak_slices_are_surely_below_and_not_too_small() -> None:
    """joint4's 0.6 rests on 5 frames, its 0.79 may be chance, and distance has but one slice."""
    assert [(s.axis, s.low) for s in r.weakest(sample())] == [("fov_deg", 75.0)]
    assert [s.axis for s in r.weakest(sample(), least_frames=1)] == ["joint:panda_joint4", "fov_deg"]


def test_axes_name_fields_of_presets() -> None:
    from dataengine.config.schema import json_schema

    schema = json_schema()
    for axis in r.AXES:
        at = schema
        for step in axis.config_path.split("."):
            at = at["properties"][step]
            while "$ref" in at:
                at = schema["$defs"][at["$ref"].rsplit("/", 1)[1]]
    assert r.axis_label("fov_deg") == "Field of view" and r.axis_label("joint:panda_joint4") == "panda_joint4"


def test_documentation_lists_every_field() -> None:
    table = r.markdown_table()
    for part in (
        "`version` | integer |",
        "`overall.auc` | number or null | 0–1 |",
        "`slices[].score.median_m` |",
        "`data.keypoints[]` | list of text |",
    ):
        assert f"| {part}" in table
    for cls in (r.Report, r.Score, r.Slice, r.WorstCase, r.Efficiency):
        for f in dataclasses.fields(cls):
            assert f.metadata["meaning"] and f"{f.name}" in table
