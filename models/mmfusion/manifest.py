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
def _validator() -> Draft202012Validator:
    schema = resources.files("mmfusion").joinpath("manifest.schema.json").read_text()
    return Draft202012Validator(json.loads(schema))


def validate_manifest(manifest: Any) -> None:
    """Check a manifest strictly: nothing missing, nothing unknown.

    Raises:
        ExportError: naming the key that is wrong.
    """
    error = best_match(_validator().iter_errors(manifest))
    if error is not None:
        raise ExportError(f"manifest, {error.json_path}: {error.message}")
