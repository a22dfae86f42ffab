"""Reading what `mmfusion.export` wrote, to add to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from mmfusion.errors import ExportError
from mmfusion.manifest import validate_manifest


def read_artifact(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The manifest of an artifact, and its graph in float32.

    Raises:
        ExportError: if one of them is missing or damaged, or the graph is another one.
    """
    manifest, path = _read_manifest(folder), folder / "graph.onnx"
    try:
        graph = path.read_bytes()
    except OSError as error:
        raise ExportError(f"{path} cannot be read ({error.strerror})") from error
    if hashlib.sha256(graph).hexdigest() != manifest["graph"]["sha256"]:
        raise ExportError(f"{path} is not the graph its manifest describes; export it again")
    return manifest, graph


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read ({error.strerror}); expected an artifact of mmfusion export"
        ) from error
    except ValueError as error:
        raise ExportError(f"{path} is not valid JSON ({error}); export it again") from error
    validate_manifest(manifest)
    return manifest
