"""What a training is told: a YAML file, read strictly."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mmfusion.errors import DataError
from mmfusion.train.output import replace_file

STRICT = ConfigDict(extra="forbid", strict=True)
PRESETS = Path(__file__).parent / "presets"

Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]

_Recipe = TypeVar("_Recipe")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Loop:
    """How training runs, whatever is trained.

    Attributes:
        steps: of the optimiser.
        batch: samples per step, over all processes and all parts.
        accumulate: parts that a batch is computed in, one after the other, to save memory.
        precision: of the networks' arithmetic; with "bf16" torch.autocast chooses where.
        ema: decay of the exponential moving average of weights, which is then what is validated
            and written; 0 keeps none.
        norm_batches: batches that the statistics of batch norms are taken anew from after the
            last step; 0 leaves the running ones.
        validate_every: steps from one validation to the next, beside those before the first step
            and after the last.
        validate_samples: how many to validate on at most, evenly spaced among those there are.
        save_every: steps from one saved state to the next.
        seed: of weights, samples and noise. Two runs of a seed are the same run.
    """

    steps: Positive
    batch: Positive
    accumulate: Positive = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm_batches: Natural = 0
    validate_every: Positive = 500
    validate_samples: Positive = 24
    save_every: Positive = 200
    seed: Natural = 0


@dataclass(config=STRICT, frozen=True, kw_only=True)
class Optimiser:
    """How weights follow gradients.

    Attributes:
        name: AdamW, or Adam, whose weight decay is part of the gradient.
        learning_rate: the schedule's peak.
        backbone_rate: what the backbone's weights follow of it; less than 1 is for pretrained
            ones. Of networks with a backbone alone.
        schedule: see `mmfusion.train.schedule`.
        weight_decay: of matrices and kernels; scales, biases and whatever the network exempts
            have none.
        clip_norm: longest gradient of all weights together; longer ones are scaled down.
        clip_value: largest element of a gradient; larger ones are cut.
    """

    name: Literal["adamw", "adam"] = "adamw"
    learning_rate: Rate = 1e-3
    backbone_rate: Share = 1.0
    schedule: Literal["constant", "warmup_cosine", "s4fusion", "haf", "efficientmfd"] = (
        "warmup_cosine"
    )
    weight_decay: Weight = 0.0
    clip_norm: Rate | None = 1.0
    clip_value: Rate | None = None


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats: ``5e-5`` is a number, which YAML 1.1 takes for a word."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def load_recipe(name: str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a recipe, not checked yet.

    Args:
        name: of a file, or of a preset, see `list_presets`.
        changes: ``key=value`` or ``key.key=value``, the values in YAML.

    Raises:
        DataError: if the file is missing or no YAML mapping that names a model, or if a change
            has another form.
    """
    path = Path(name)
    if not path.is_file():
        path = PRESETS / f"{name}.yaml"
    if not path.is_file():
        raise DataError(
            f"no recipe {name}; expected a YAML file, or one of: {', '.join(list_presets())}"
        )
    content = _parse(path.read_text(), str(path))
    if not isinstance(content, dict) or not isinstance(content.get("model"), str):
        raise DataError(f"{path}: expected a mapping with the key model, such as: model: haf")
    for change in changes:
        _apply(content, change)
    return content


def list_presets() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def check_recipe(kind: type[_Recipe], content: dict[str, Any]) -> _Recipe:
    """Make a recipe of what was loaded.

    Raises:
        DataError: naming every key that is unknown, missing or has an unusable value.
    """
    try:
        # By way of JSON, as strict types tell lists from tuples elsewhere.
        return TypeAdapter(kind).validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {_told(fault)}"
            for fault in error.errors()
        ]
        raise DataError(f"recipe of {content['model']}: {'; '.join(faults)}") from error


def write_recipe(recipe: Any, path: Path) -> None:
    """Write a recipe such that `load_recipe` gives it back, with every default spelt out."""
    content = json.loads(json.dumps(asdict(recipe)))
    with replace_file(path) as fresh:
        fresh.write_text(yaml.safe_dump(content, sort_keys=False))


def _told(fault: Any) -> str:
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return "unknown key"
    if fault["type"] == "missing":
        return "missing"
    message: str = fault["msg"]
    return f"{message[0].lower()}{message[1:]}, got {fault['input']!r}"


def _apply(content: dict[str, Any], change: str) -> None:
    key, equals, value = change.partition("=")
    *groups, last = key.strip().split(".")
    if not equals or not all((*groups, last)):
        raise DataError(f"cannot change {change!r}; expected key=value, such as loop.steps=100")
    place: Any = content
    for group in groups:
        place = place.setdefault(group, {})
        if not isinstance(place, dict):
            raise DataError(f"cannot change {change!r}: {group} is a value, not a group of keys")
    place[last] = _parse(value, change)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 (a safe one)
    except yaml.YAMLError as error:
        raise DataError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
