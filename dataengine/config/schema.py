"""JSON Schema of a preset, for editors (`# yaml-language-server: $schema=schema.json`)."""

from __future__ import annotations

import json
from typing import Any

from dataengine.config.spec import DatasetSpec


def json_schema() -> dict[str, Any]:
    """Draft 2020-12 schema of a preset file: DatasetSpec plus the loader's key `extends`."""
    schema = DatasetSpec.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "dataengine preset"
    schema["properties"] = {
        "extends": {"type": "string", "description": "preset name or .yaml path whose values are the defaults here"},
        **schema["properties"],
    }
    return schema


def json_schema_text() -> str:
    """The schema as the text of `render_configs/schema.json`."""
    return json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
