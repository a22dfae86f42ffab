"""The contract with the workstation: a folder with ``graph.onnx`` and ``manifest.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from mmfusion_ros.core.errors import ArtifactError
from mmfusion_ros.core.frames import Modality


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the graph: name, NumPy dtype, fixed shape."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Artifact:
    """An opened artifact, its digest verified.

    Attributes:
        folder: where it lies.
        name: from the manifest.
        inputs, outputs: tensors by name, in graph order.
        encodings: image encoding each modality's input takes.
        rig_packing: meaning of the numbers of the ``rig`` input; empty if there is none.
        classes: class names, index = class id.
        quality: measured quality by the set of modalities present.
        digest: SHA-256 of the graph.
        manifest: the whole manifest, for reports.
    """

    folder: Path
    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    encodings: Mapping[Modality, str]
    rig_packing: tuple[str, ...]
    classes: tuple[str, ...]
    quality: Mapping[frozenset[Modality], Mapping[str, float]]
    digest: str
    manifest: Mapping[str, Any]

    @property
    def graph_path(self) -> Path:
        """The ONNX file."""
        return self.folder / "graph.onnx"

    def image_size(self, modality: Modality) -> tuple[int, int]:
        """(height, width) in pixels that the input of ``modality`` takes."""
        shape = self.inputs[modality.value].shape
        return shape[0], shape[1]

    def expected_quality(self, present: frozenset[Modality]) -> Mapping[str, float]:
        """Measured quality for a set of modalities; empty if that set was not measured."""
        return self.quality.get(present, {})


def open_artifact(folder: Path) -> Artifact:
    """Read and verify an artifact folder.

    Raises:
        ArtifactError: if a file is missing, the manifest is malformed (naming the key) or the
            graph is not the one the manifest was written for.
    """
    folder = Path(folder)
    manifest_path, graph_path = folder / "manifest.json", folder / "graph.onnx"
    for path in (manifest_path, graph_path):
        if not path.is_file():
            raise ArtifactError(
                f"{folder} is not an artifact: {path.name} is missing; expected a folder written "
                "by 'mmfusion export'"
            )
    try:
        manifest = json.loads(manifest_path.read_text())
    except ValueError as error:
        raise ArtifactError(
            f"{manifest_path} is not valid JSON ({error}); export the artifact again"
        ) from error
    problem = best_match(_validator().iter_errors(manifest))
    if problem is not None:
        raise ArtifactError(
            f"{manifest_path}, {problem.json_path}: {problem.message}; export the artifact again "
            "with a matching version of mmfusion"
        )
    digest = hashlib.sha256(graph_path.read_bytes()).hexdigest()
    if digest != manifest["graph"]["sha256"]:
        raise ArtifactError(
            f"{graph_path} is not the graph its manifest describes (SHA-256 {digest[:12]}..., "
            f"expected {manifest['graph']['sha256'][:12]}...); copy or export the artifact again"
        )
    missing = {"rgb", "thermal_range", "present"} - {entry["name"] for entry in manifest["inputs"]}
    if missing:
        raise ArtifactError(f"{manifest_path}, $.inputs: no input named {sorted(missing)[0]!r}")
    return Artifact(
        folder=folder,
        name=manifest["name"],
        inputs=_tensors(manifest["inputs"]),
        outputs=_tensors(manifest["outputs"]),
        encodings={Modality(key): value for key, value in manifest["encodings"].items()},
        rig_packing=tuple(manifest["rig_packing"]),
        classes=tuple(manifest["classes"]),
        quality={
            frozenset(map(Modality, entry["modalities"])): entry["metrics"]
            for entry in manifest["quality"]
        },
        digest=digest,
        manifest=manifest,
    )


@cache
def _validator() -> Draft202012Validator:
    schema = resources.files(__package__).joinpath("manifest.schema.json").read_text()
    return Draft202012Validator(json.loads(schema))


def _tensors(entries: list[dict[str, Any]]) -> dict[str, TensorSpec]:
    return {
        entry["name"]: TensorSpec(entry["name"], np.dtype(entry["dtype"]), tuple(entry["shape"]))
        for entry in entries
    }
