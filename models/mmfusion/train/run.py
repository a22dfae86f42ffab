"""A training from recipe to weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from mmfusion.checkpoint import load_checkpoint
from mmfusion.errors import DataError
from mmfusion.registry import Role, list_models
from mmfusion.train.backbone_start import start_backbone
from mmfusion.train.detection import DetectionRecipe, DetectionTask
from mmfusion.train.fusion import FusionRecipe, FusionTask
from mmfusion.train.output import RECIPE, STATE, refuse_overwriting
from mmfusion.train.processes import joined
from mmfusion.train.recipes import check_recipe, write_recipe
from mmfusion.train.saliency import SaliencyRecipe, SaliencyTask
from mmfusion.train.task import Task
from mmfusion.train.trainer import Trainer

_KINDS: dict[Role, tuple[type[Any], Callable[..., Task]]] = {
    Role.FUSION: (FusionRecipe, FusionTask),
    Role.SALIENCY: (SaliencyRecipe, SaliencyTask),
    Role.DETECTION: (DetectionRecipe, DetectionTask),
}
# What may change when an interrupted training goes on: nothing that a step depends on.
_FREE = frozenset(
    {"loop.save_every", "loop.validate_every", "loop.validate_samples", "backbone_weights"}
)


@dataclass(frozen=True)
class Places:
    """Where things are on this machine.

    Attributes:
        data: folders to train on.
        validation: folders to validate on.
        out: folder for everything that a training writes.
        initial: weights to start from, safetensors of the same model; random ones if None.
    """

    data: Sequence[Path]
    validation: Sequence[Path]
    out: Path
    initial: Path | None = None


def train(
    content: dict[str, Any], places: Places, *, resume: bool = False, workers: int = 0
) -> None:
    """Train a network.

    Writes ``model.safetensors`` (the last saved step), ``best.safetensors`` (of the best
    validation), ``recipe.yaml``, ``training.jsonl`` (a line for each step), ``record.json`` (data,
    hardware, time), pictures and curves for TensorBoard, and ``state.pt`` to go on from.

    Args:
        content: recipe as `load_recipe` gives it.
        places: of data and results.
        resume: go on with what is in the folder.
        workers: processes that draw samples beside each one that trains.

    Raises:
        DataError: if recipe, data or an earlier state are unusable.
        ModelError: if the model is unknown, the first weights do not fit, or training diverges.
    """
    recipe = recipe_of(content)
    _, create = _KINDS[_role(recipe.model)]
    if not resume:
        refuse_overwriting(places.out)
    with joined() as processes:
        torch.manual_seed(recipe.loop.seed)  # of the first weights
        task = create(recipe, places.data, places.validation)
        if places.initial is not None:
            task.facts["initial_sha256"] = load_checkpoint(task.network, places.initial)
        elif not (resume and (places.out / STATE).exists()) and hasattr(recipe, "backbone_weights"):
            task.facts |= start_backbone(cast("Any", task.network), recipe.backbone_weights)
        places.out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(task, recipe, places.out, processes, _identity(recipe, task))
        if resume:
            trainer.resume()
        if processes.first:
            write_recipe(recipe, places.out / RECIPE)
        trainer.run(workers)


def recipe_of(content: dict[str, Any]) -> Any:
    """The recipe for the kind of network that it names.

    Raises:
        DataError: naming every key that is unknown, missing or has an unusable value.
    """
    kind, _ = _KINDS[_role(content["model"])]
    return check_recipe(kind, content)


def _role(model: str) -> Role:
    for role in Role:
        if model in list_models(role):
            return role
    raise DataError(
        f"recipe of {model}: unknown model; expected one of: {', '.join(list_models())}"
    )


def _identity(recipe: Any, task: Task) -> dict[str, Any]:
    """All that a step depends on, flat, in plain values."""
    flat: dict[str, Any] = {}

    def add(prefix: str, values: dict[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, dict):
                add(f"{prefix}{key}.", value)
            elif f"{prefix}{key}" not in _FREE:
                flat[f"{prefix}{key}"] = value

    def plain(settings: Any) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
        return content

    add("", plain(recipe))
    # What the model's name means may change with a version of this package.
    add("network.", plain(cast("Any", task.network).config))
    names = "\n".join(task.names)
    return {
        **flat,
        "initial": task.facts.get("initial_sha256"),
        "data": hashlib.sha256(names.encode()).hexdigest(),
    }
