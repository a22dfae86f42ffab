"""The manifest's one definition: a JSON Schema that robot and workstation both check against."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from mmfusion.errors import ExportError


@cache
def _schema() -> dict[str, Any]:
    text = resources.files("mmfusion").joinpath("manifest.schema.json").read_text()
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(_schema())


@cache
def provenance_validator() -> Draft202012Validator:
    """Checks what a provenance file may say, none of it required."""
    model = _schema()["properties"]["models"]["items"]["properties"]
    said = {key: model[key] for key in ("training_data", "recipe", "terms")}
    return Draft202012Validator(
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                **said,
                "evaluation": {
                    "anyOf": [
                        {"type": "string"},
                        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
                    ]
                },
            },
        }
    )


@cache
def evaluation_validator() -> Draft202012Validator:
    """Checks those parts of an evaluation's figures that go into a manifest."""
    schema = _schema()
    properties = schema["properties"]
    return Draft202012Validator(
        {
            "type": "object",
            "required": ["checkpoint_sha256", "quality"],
            "properties": {
                "checkpoint_sha256": properties["graph"]["properties"]["sha256"],
                "quality": properties["quality"],
            },
            "$defs": schema["$defs"],
        }
    )


def validate_manifest(manifest: Any) -> None:
    """Check a manifest strictly: nothing missing, nothing unknown.

    Raises:
        ExportError: naming the key that is wrong.
    """
    error = best_match(_validator().iter_errors(manifest))
    if error is not None:
        raise ExportError(f"manifest, {error.json_path}: {error.message}")
