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

_VERSION = 1  # of the manifest, its schema_version
_Pattern = tuple[str, tuple[int | None, ...]]  # dtype, shape; None is any extent

# What stands for a candidate together, one by one useless.
_CANDIDATES = {"boxes", "scores", "classes"}
# What an input takes, by image encoding.
_PIXELS: dict[str, _Pattern] = {
    "rgb8": ("uint8", (None, None, 3)),
    "16UC1": ("uint8", (None, None, 2)),
    "32FC1": ("float32", (None, None)),
    "mono16": ("uint8", (None, None, 2)),
    "mono8": ("uint8", (None, None, 1)),
}


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
        classes: class names, index = class id; empty without detections.
        nms_iou: overlap above which the lower-scored of two candidates of a class is dropped;
            None without detections.
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
    nms_iou: float | None
    quality: Mapping[frozenset[Modality], Mapping[str, float]]
    digest: str
    manifest: Mapping[str, Any]

    @property
    def graph_path(self) -> Path:
        """The ONNX file."""
        return self.folder / "graph.onnx"

    @property
    def reduced_digests(self) -> Mapping[str, str]:
        """SHA-256 of the graphs in reduced precision, by precision."""
        entries = self.manifest.get("reduced_graphs", {})
        return {precision: entry["sha256"] for precision, entry in entries.items()}

    def graph_for(self, precision: str) -> Path:
        """The ONNX file in a precision, its digest verified now: only those used need be whole.

        Args and errors are those of `read_graph`.
        """
        self.read_graph(precision)
        return self.graph_file(precision)

    def read_graph(self, precision: str) -> bytes:
        """What is in the ONNX file in a precision, verified.

        Args:
            precision: fp32, or one of `reduced_digests`.

        Raises:
            ArtifactError: if the artifact has no such graph, or not the one of its manifest.
        """
        path = self.graph_file(precision)
        try:
            graph = path.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"{path} cannot be read ({error.strerror}); copy the artifact again"
            ) from error
        expected = self.digest if precision == "fp32" else self.reduced_digests[precision]
        _check_digest(path, hashlib.sha256(graph).hexdigest(), expected)
        return graph

    def graph_file(self, precision: str) -> Path:
        """The ONNX file in a precision, not looked at.

        Args and errors are those of `read_graph`.
        """
        if precision == "fp32":
            return self.graph_path
        entry = self.manifest.get("reduced_graphs", {}).get(precision)
        if entry is None:
            there = ", ".join(("fp32", *self.reduced_digests))
            samples = " --samples FRAMES" if precision == "int8" else ""
            raise ArtifactError(
                f"artifact {self.name} has no {precision} graph, only {there}; add one with "
                f"'mmfusion reduce {self.folder} --precision {precision}{samples}', or run it in "
                "fp32"
            )
        return self.folder / str(entry["file"])

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
    try:
        manifest_file, graph_file = manifest_path.read_bytes(), graph_path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(
            f"{folder} is not an artifact: {Path(error.filename).name} is missing; expected a "
            "folder written by 'mmfusion export'"
        ) from error
    except OSError as error:
        raise ArtifactError(
            f"{error.filename} cannot be read ({error.strerror}); check what it is and its "
            "permissions"
        ) from error
    digest = hashlib.sha256(graph_file).hexdigest()
    try:
        manifest = json.loads(manifest_file)
    except ValueError as error:
        raise ArtifactError(
            f"{manifest_path} is not valid JSON ({error}); export the artifact again"
        ) from error
    _check_version(manifest_path, manifest)
    problem = best_match(_validator().iter_errors(manifest))
    if problem is not None:
        raise ArtifactError(
            f"{manifest_path}, {problem.json_path}: {problem.message}; export the artifact again "
            "with a matching version of mmfusion"
        )
    _check_digest(graph_path, digest, manifest["graph"]["sha256"])
    inputs, outputs = _tensors(manifest["inputs"]), _tensors(manifest["outputs"])
    encodings = {Modality(key): value for key, value in manifest["encodings"].items()}
    _check_tensors(f"{manifest_path}, $.inputs", inputs, *_known_inputs(manifest))
    surplus = inputs.keys() - _known_inputs(manifest)[0].keys()
    if surplus:
        raise ArtifactError(
            f"{manifest_path}, $.inputs: {min(surplus)!r} is not known to this version; expected "
            "a graph without it, or a newer mmfusion_ros"
        )
    _check_tensors(f"{manifest_path}, $.outputs", outputs, *_known_outputs(inputs["rgb"], outputs))
    return Artifact(
        folder=folder,
        name=manifest["name"],
        inputs=inputs,
        outputs=outputs,
        encodings=encodings,
        rig_packing=tuple(manifest["rig_packing"]),
        classes=tuple(manifest["classes"]),
        nms_iou=manifest.get("detection", {}).get("nms_iou"),
        quality=_quality(manifest["quality"]),
        digest=digest,
        manifest=manifest,
    )


def _check_digest(graph: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ArtifactError(
            f"{graph} is not the graph its manifest describes (SHA-256 {found[:12]}..., "
            f"expected {expected[:12]}...); copy or export the artifact again"
        )


def _check_version(where: Path, manifest: Any) -> None:
    """Tell another version by its number, not by the first key that has changed since."""
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    # What is no number at all is the schema's to complain of.
    if isinstance(version, bool) or not isinstance(version, int | float) or version == _VERSION:
        return
    age, newer = ("new", "mmfusion_ros") if version > _VERSION else ("old", "mmfusion")
    raise ArtifactError(
        f"{where} is too {age}: version {version:g}, this understands {_VERSION}; update {newer} "
        "or export the artifact again with a matching version of mmfusion"
    )


def _quality(entries: list[dict[str, Any]]) -> dict[frozenset[Modality], dict[str, float]]:
    """Metrics by modality set; several networks may each have their own for one set."""
    quality: dict[frozenset[Modality], dict[str, float]] = {}
    for entry in entries:
        quality.setdefault(frozenset(map(Modality, entry["modalities"])), {}).update(
            entry["metrics"]
        )
    return quality


@cache
def _validator() -> Draft202012Validator:
    schema = resources.files(__package__).joinpath("manifest.schema.json").read_text()
    return Draft202012Validator(json.loads(schema))


def _tensors(entries: list[dict[str, Any]]) -> dict[str, TensorSpec]:
    # 64.0 is an integer to JSON Schema, not to NumPy.
    return {
        entry["name"]: TensorSpec(
            entry["name"], np.dtype(entry["dtype"]), tuple(map(int, entry["shape"]))
        )
        for entry in entries
    }


def _known_inputs(manifest: Mapping[str, Any]) -> tuple[dict[str, _Pattern], set[str]]:
    """All inputs a graph can have, and the names of those it must have."""
    known: dict[str, _Pattern] = {
        **{name: _PIXELS[encoding] for name, encoding in manifest["encodings"].items()},
        "thermal_range": ("float32", (2,)),
        "present": ("float32", (3,)),
    }
    required = {"rgb", "thermal_range", "present"}
    if manifest["rig_packing"]:
        known["rig"] = ("float32", (len(manifest["rig_packing"]),))
    return known, required


def _known_outputs(
    rgb: TensorSpec, outputs: Mapping[str, TensorSpec]
) -> tuple[dict[str, _Pattern], set[str]]:
    """The outputs that are used here, and those this graph needs; it may have more."""
    required = {"fused", "thermal_range_next"}
    if outputs.keys() & {*_CANDIDATES, "box_depth"}:
        required |= _CANDIDATES
    boxes = outputs.get("boxes")
    # Where boxes have no count, that is the fault to tell, not that the others differ from it.
    count = boxes.shape[0] if boxes is not None and boxes.shape else None
    known: dict[str, _Pattern] = {
        "fused": ("uint8", rgb.shape),
        "registered_thermal": ("uint8", rgb.shape[:2]),
        "saliency": ("uint8", rgb.shape[:2]),
        "boxes": ("float32", (None, 4)),
        "scores": ("float32", (count,)),
        "classes": ("int32", (count,)),
        "box_depth": ("float32", (count,)),
        "thermal_range_next": ("float32", (2,)),
    }
    return known, required


def _check_tensors(
    where: str, tensors: Mapping[str, TensorSpec], known: dict[str, _Pattern], required: set[str]
) -> None:
    missing = required - tensors.keys()
    if missing:
        raise ArtifactError(f"{where}: no {min(missing)!r}; export the artifact again")
    for name, (dtype, shape) in known.items():
        spec = tensors.get(name)
        if spec is not None and not _fits(spec, dtype, shape):
            sides = ", ".join("any" if extent is None else str(extent) for extent in shape)
            raise ArtifactError(
                f"{where}, {name}: {spec.dtype} {list(spec.shape)} is not what it means; expected "
                f"{dtype} [{sides}]; export the artifact again"
            )


def _fits(spec: TensorSpec, dtype: str, shape: tuple[int | None, ...]) -> bool:
    return (
        spec.dtype == dtype
        and len(spec.shape) == len(shape)
        and all(wanted in {None, given} for given, wanted in zip(spec.shape, shape, strict=True))
    )
