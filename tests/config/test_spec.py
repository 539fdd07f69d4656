import json

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from dataengine.config.loader import PRESET_FOLDER, load_spec, preset_names
from dataengine.config.schema import json_schema, json_schema_text
from dataengine.config.spec import QUALITY, DatasetSpec, LimitSpec, RenderSpec, SplitSpec


@pytest.mark.parametrize("name", preset_names())
def test_json_round_trip_keeps_spec_and_digest(name):
    spec = load_spec(name)
    again = DatasetSpec.model_validate_json(spec.model_dump_json(), strict=True)
    assert again == spec and again.digest() == spec.digest()


def test_the_digest_is_the_identity_and_nothing_else():
    spec = DatasetSpec()
    same = spec.model_copy(update={"videos": 77, "limits": LimitSpec(wall_s=1)})
    assert same.digest() == spec.digest()
    for change in ({"seed": 1}, {"frames": 4}, {"splits": SplitSpec(train=1)}, {"render": RenderSpec(samples=5)}):
        assert spec.model_copy(update=change).digest() != spec.digest()


def test_specs_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        DatasetSpec().videos = 3  # type: ignore[misc]


def test_quality_presets_and_their_overrides():
    assert RenderSpec().resolved() == QUALITY["train"] == (3, "HIGH", "FAST")
    assert RenderSpec(quality="reference", samples=512, denoise_prefilter="NONE").resolved() == (512, "HIGH", "NONE")


def test_the_committed_schema_is_the_code_s():
    committed = (PRESET_FOLDER / "schema.json").read_text(encoding="utf-8")
    assert committed == json_schema_text(), "write json_schema_text() to render_configs/schema.json"


def test_the_schema_accepts_every_preset_and_refuses_a_typo():
    validator = jsonschema.Draft202012Validator(json_schema())
    for name in preset_names():
        raw = yaml.safe_load((PRESET_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
        assert [e.message for e in validator.iter_errors(raw)] == [], name
    assert list(validator.iter_errors({"camera": {"heigth": 3}}))
    assert list(validator.iter_errors({"modalities": ["rgbb"]}))
    assert json.loads(json_schema_text()) == json_schema()
