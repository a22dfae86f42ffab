"""What one graph is made of: the cameras, and a network for each task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from mmfusion.errors import ExportError
from mmfusion.graph.cameras import CameraSpec
from mmfusion.graph.depth_range import DepthRange
from mmfusion.manifest import evaluation_validator, provenance_validator
from mmfusion.registry import Role, list_models

WEIGHT_STORAGES = ("float32", "float16")


@dataclass(frozen=True)
class Evaluation:
    """What `mmfusion evaluate` measured, as far as the manifest states it.

    Attributes:
        path: file of the figures.
        checkpoint_sha256: of the weights that were measured.
        quality: entries of the manifest's ``quality``.
        settings: of the network while it was measured, as far as the file tells:
            ``fusion_scale``, ``depth_range_m``.
    """

    path: Path
    checkpoint_sha256: str
    quality: Sequence[dict[str, Any]]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Provenance:
    """Where a checkpoint comes from, as the manifest states it.

    Attributes:
        training_data: which data, in words.
        recipe: how it was trained, in words or as a file name.
        terms: under which terms the weights may be used.
        evaluations: where the manifest's ``quality`` comes from.
    """

    training_data: str = "unstated"
    recipe: str = "unstated"
    terms: str = "unstated"
    evaluations: Sequence[Evaluation] = ()


@dataclass(frozen=True)
class Weights:
    """A network and its checkpoint.

    Attributes:
        model: name, see `mmfusion.create_model`.
        checkpoint: file of weights.
        published: the file has the layout of the authors' checkpoints, see
            `mmfusion.load_published`; else it is safetensors written by this package.
        provenance: what the manifest says of the weights.
    """

    model: str
    checkpoint: Path
    published: bool = False
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True)
class FusionPart:
    """A network that fuses thermal and RGB luma.

    Attributes:
        weights: the network.
        scale: it sees pictures this many times smaller, see `LumaFusion`.
    """

    weights: Weights
    scale: int = 1


@dataclass(frozen=True)
class SaliencyPart:
    """A network that finds what stands out in RGB and depth.

    Attributes:
        weights: the network.
        input_size: (height, width) that it sees; None for the size it was designed for.
        depth_range: what it tells apart.
    """

    weights: Weights
    input_size: tuple[int, int] | None = None
    depth_range: DepthRange = field(default_factory=DepthRange)


@dataclass(frozen=True)
class DetectionPart:
    """A network that detects in RGB and thermal, and can fuse them.

    Attributes:
        weights: the network.
        scale: it sees pictures this many times smaller.
        steps: of its diffusion sampler; None for those it was designed for.
        noise_seed: of the boxes it starts from, constants of the graph.
    """

    weights: Weights
    scale: int = 1
    steps: int | None = None
    noise_seed: int = 0


@dataclass(frozen=True)
class Composition:
    """One graph.

    Attributes:
        cameras: of the rig.
        fusion: None if the detection network's fused picture is used.
        saliency: None for no saliency.
        detection: None for no detections.
        weight_storage: one of `WEIGHT_STORAGES`: the type in which the file holds the weights of
            layers; the graph computes in float32, see `mmfusion.half_storage`.
    """

    cameras: CameraSpec
    fusion: FusionPart | None
    saliency: SaliencyPart | None = None
    detection: DetectionPart | None = None
    weight_storage: str = "float32"

    def __post_init__(self) -> None:
        if self.weight_storage not in WEIGHT_STORAGES:
            raise ExportError(
                f"weight_storage is {self.weight_storage!r}; expected one of: "
                f"{', '.join(WEIGHT_STORAGES)}"
            )
        for shrunk in (self.fusion, self.detection):
            if shrunk is not None and not 1 <= shrunk.scale <= min(self.cameras.rgb_size):
                raise ExportError(
                    f"scale is {shrunk.scale}; expected 1 to {min(self.cameras.rgb_size)}, the "
                    "shorter side of the RGB picture"
                )
        parts = {
            Role.FUSION: self.fusion,
            Role.SALIENCY: self.saliency,
            Role.DETECTION: self.detection,
        }
        if self.fusion is None and self.detection is None:
            raise ExportError(
                "fusion is left to the detection network, but there is none; add one or name a "
                "fusion network"
            )
        for role, part in parts.items():
            if part is not None and part.weights.model not in (known := list_models(role)):
                raise ExportError(
                    f"{part.weights.model!r} is no {role} network; expected one of: "
                    f"{', '.join(known)}"
                )


def read_composition(path: Path) -> Composition:
    """Read a composition file (YAML); paths in it are relative to its folder.

    Raises:
        ExportError: if the file is missing, is not YAML, or has a missing, unknown or wrong
            key, naming it.
        DataError: if it leaves the range of depth to a recipe that is unreadable.
    """
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ExportError(f"no readable composition at {path} ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ExportError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    problem = best_match(_validator().iter_errors(content))
    if problem is not None:
        wanted = problem.schema.get("description") if problem.json_path != "$" else None
        hint = f"; expected {wanted}" if wanted else ""
        raise ExportError(f"{path}, {problem.json_path}: {problem.message}{hint}")
    try:
        return _composition(content, path.parent)
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error


def read_provenance(path: Path) -> Provenance:
    """Read a provenance file.

    It is a JSON object with some of ``training_data``, ``recipe``, ``terms`` and ``evaluation``,
    which is a file that `mmfusion evaluate` wrote, or a list of them; paths are relative to the
    provenance file's folder.

    Raises:
        ExportError: if a file is missing, no JSON, or has missing, unknown or wrong keys.
    """
    content = dict(_read_json(path, provenance_validator()))
    named = content.pop("evaluation", [])
    files = [named] if isinstance(named, str) else named
    evaluations = [_read_evaluation(path.parent / name) for name in files]
    return Provenance(**content, evaluations=evaluations)


def parse_size(text: str) -> tuple[int, int]:
    """``WIDTHxHEIGHT`` to (height, width).

    Raises:
        ExportError: if it is something else.
    """
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise ExportError(f"{text!r} is no size; expected e.g. 640x480") from None
    return height, width


def _read_evaluation(path: Path) -> Evaluation:
    try:
        content = _read_json(path, evaluation_validator())
    except ExportError as error:
        raise ExportError(f"{error}; expected what mmfusion evaluate writes") from error
    settings = _some(content, "fusion_scale", "depth_range_m")
    return Evaluation(path, content["checkpoint_sha256"], content["quality"], settings)


def _read_json(path: Path, validator: Draft202012Validator) -> Any:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} is no readable JSON file: {error}") from error
    problem = best_match(validator.iter_errors(content))
    if problem is not None:
        raise ExportError(f"{path}, {problem.json_path}: {problem.message}")
    return content


def _composition(content: Mapping[str, Any], folder: Path) -> Composition:
    fusion: Any = content["fusion"]
    saliency: Any = content.get("saliency")
    detection: Any = content.get("detection")
    return Composition(
        cameras=_cameras(content["cameras"], content.get("extra_outputs", ())),
        fusion=None
        if fusion == str(Role.DETECTION)
        else FusionPart(_weights(Role.FUSION, fusion, folder), **_whole(fusion, "scale")),
        saliency=None if saliency is None else _saliency(saliency, folder),
        detection=None
        if detection is None
        else DetectionPart(
            _weights(Role.DETECTION, detection, folder),
            **_whole(detection, "scale", "steps", "noise_seed"),
        ),
        **_some(content, "weight_storage"),
    )


def _cameras(content: Mapping[str, Any], extra_outputs: Sequence[str]) -> CameraSpec:
    rgb_size = parse_size(content["rgb_size"])
    return CameraSpec(
        rgb_size=rgb_size,
        depth_size=parse_size(content["depth_size"]) if "depth_size" in content else rgb_size,
        thermal_size=parse_size(content["thermal_size"]) if "thermal_size" in content else rgb_size,
        registered_thermal="registered_thermal" in extra_outputs,
        **_some(content, "depth_encoding", "thermal_encoding", "registration", "thermal_min_span"),
    )


def _saliency(content: Mapping[str, Any], folder: Path) -> SaliencyPart:
    size = content.get("input_size")
    weights = _weights(Role.SALIENCY, content, folder)
    return SaliencyPart(
        weights,
        None if size is None else parse_size(size),
        DepthRange(*map(float, content["depth_range_m"]))  # 10 is an int to YAML
        if "depth_range_m" in content
        else _trained_depth_range(weights.checkpoint),
    )


def _trained_depth_range(checkpoint: Path) -> DepthRange:
    from mmfusion.saliency_scenes import trained_depth  # noqa: PLC0415 (needs PyTorch)

    return trained_depth(checkpoint).range


def _weights(role: Role, content: Mapping[str, Any], folder: Path) -> Weights:
    keys = [key for key in ("checkpoint", "published_checkpoint") if key in content]
    if len(keys) != 1:
        found = "both" if keys else "neither"
        raise ExportError(
            f"{role} has {found} of checkpoint and published_checkpoint; expected one of them"
        )
    provenance = content.get("provenance")
    return Weights(
        content["model"],
        folder / content[keys[0]],
        keys[0] == "published_checkpoint",
        Provenance() if provenance is None else read_provenance(folder / provenance),
    )


def _whole(content: Mapping[str, Any], *keys: str) -> dict[str, int]:
    return {key: int(content[key]) for key in keys if key in content}  # 1.0 is whole to JSON Schema


def _some(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: content[key] for key in keys if key in content}


@cache
def _validator() -> Draft202012Validator:
    schema = resources.files("mmfusion").joinpath("composition.schema.json").read_text()
    return Draft202012Validator(json.loads(schema))
