"""The ``mmfusion`` command: train, evaluate, export.

Heavy imports wait until a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.errors import DataError, ExportError, MmfusionError
from mmfusion.registry import Role, list_models

if TYPE_CHECKING:
    from mmfusion.composition import Composition

_DEFAULT_MODEL = "s4fusion_tiny"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except MmfusionError as error:
        print(f"mmfusion {options.name}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"mmfusion {options.name}: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(
            f"mmfusion {options.name} needs PyTorch and its companions ({error}); install them "
            "with: pip install 'mmfusion[train]'",
            file=sys.stderr,
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mmfusion", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a network on folders of images",
        description="Train a fusion network on infrared-visible pairs, a saliency network on RGB "
        "images with metric depth and masks, or a detection network on pairs with boxes.",
    )
    _add_model(train, *Role)
    train.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="fusion: subfolders ir and vi; saliency: rgb, depth (16-bit, millimetres) and gt; "
        "detection: pairs and a COCO file, boxes.json or annotations/instances_*.json",
    )
    train.add_argument("--out", type=Path, required=True, help="where weights and recipe go")
    train.add_argument(
        "--steps", type=_at_least(1), help="default: 1200; saliency and detection 3000"
    )
    train.add_argument("--batch", type=_at_least(1), help="default: 6; saliency 8, detection 4")
    train.add_argument(
        "--crop",
        type=_at_least(11),  # the window of the SSIM loss
        help="fusion: side of the training crops that the network sees, pixels (default: 97)",
    )
    train.add_argument(
        "--scales",
        type=_at_least(1),
        nargs="+",
        help="fusion: sizes to train for, see --fusion-scale of export; 1 alone for a network "
        "that does not blend (default: 1 2 4)",
    )
    train.add_argument("--seed", type=_at_least(0), default=0)
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="measure a network on held-out images")
    _add_model(evaluate, Role.FUSION, Role.SALIENCY)
    evaluate.add_argument("--checkpoint", type=Path, required=True)
    evaluate.add_argument(
        "--data", type=Path, nargs="+", required=True, metavar="FOLDER", help="as for train"
    )
    evaluate.add_argument(
        "--fusion-scale", type=_at_least(1), help="fusion: as for export (default: 1)"
    )
    evaluate.add_argument(
        "--corrupt",
        action="store_true",
        help="saliency: measure with one stream corrupted at a time, see docs/evaluate.md; also "
        "writes a picture, beside the figures",
    )
    evaluate.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    evaluate.set_defaults(command=_evaluate)

    export = commands.add_parser(
        "export",
        help="write an artifact that a robot runs",
        description="Write an artifact that a robot runs: of several networks by a composition "
        "file, or of a fusion network alone by the other options.",
    )
    export.add_argument(
        "--composition", type=Path, metavar="YAML", help="cameras and networks; see docs/export.md"
    )
    export.add_argument(
        "--model", choices=list_models(Role.FUSION), help=f"default: {_DEFAULT_MODEL}"
    )
    export.add_argument("--checkpoint", type=Path, help="required without --composition")
    export.add_argument("--rgb-size", metavar="WIDTHxHEIGHT", help="required without --composition")
    export.add_argument("--depth-size", metavar="WIDTHxHEIGHT", help="default: the RGB size")
    export.add_argument("--thermal-size", metavar="WIDTHxHEIGHT", help="default: the RGB size")
    export.add_argument("--depth-encoding", choices=("16UC1", "32FC1"))
    export.add_argument("--thermal-encoding", choices=("mono16", "mono8"))
    export.add_argument("--registration", choices=("identity", "homography"))
    export.add_argument(
        "--fusion-scale",
        type=_at_least(1),
        help="let the network see pictures this many times smaller",
    )
    export.add_argument(
        "--registered-thermal",
        action="store_true",
        default=None,
        help="also put out the thermal image as fused",
    )
    export.add_argument(
        "--provenance",
        type=Path,
        metavar="JSON",
        help="training_data, recipe, terms and quality for the manifest",
    )
    export.add_argument("--out", type=Path, required=True, help="artifact folder")
    export.set_defaults(command=_export)
    return parser


def _add_model(parser: argparse.ArgumentParser, *roles: Role) -> None:
    parser.add_argument(
        "--model",
        choices=[name for role in roles for name in list_models(role)],
        default=_DEFAULT_MODEL,
        help="default: %(default)s",
    )


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text) if text.lstrip("-").isdecimal() else None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} is unusable; expected a whole number of at least {least}"
            )
        return value

    return parse


def _train(options: argparse.Namespace) -> None:
    names = ("model", "steps", "batch", "crop", "scales", "seed")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    role = _role(options, "crop", "scales")
    if role is Role.SALIENCY:
        from mmfusion.train.saliency import SaliencyRecipe, train_saliency  # noqa: PLC0415

        train_saliency(SaliencyRecipe(**given), options.data, options.out)
    elif role is Role.DETECTION:
        from mmfusion.train.detection import DetectionRecipe, train_detection  # noqa: PLC0415

        train_detection(DetectionRecipe(**given), options.data, options.out)
    else:
        from mmfusion.train.fusion import FusionRecipe, train_fusion  # noqa: PLC0415

        train_fusion(FusionRecipe(**given), options.data, options.out)


def _evaluate(options: argparse.Namespace) -> None:
    what = (options.model, options.checkpoint, options.data, options.out)
    role = _role(options, "fusion_scale")
    if options.corrupt and role is not Role.SALIENCY:
        raise DataError(f"--corrupt is for saliency networks; leave it out for {options.model}")
    if options.corrupt:
        from mmfusion.evaluate_robustness import evaluate_robustness  # noqa: PLC0415

        rows = evaluate_robustness(*what)
    elif role is Role.SALIENCY:
        from mmfusion.evaluate_saliency import evaluate_saliency  # noqa: PLC0415

        rows = evaluate_saliency(*what)
    else:
        from mmfusion.evaluate_fusion import evaluate_fusion  # noqa: PLC0415

        rows = evaluate_fusion(*what, options.fusion_scale or 1)
    names = list(next(iter(rows.values())))
    width = max(10, *map(len, rows))
    _print_row("", names, width)
    for title, values in rows.items():
        _print_row(title, [f"{values[name]:.3f}" for name in names], width)


def _role(options: argparse.Namespace, *only_for_fusion: str) -> Role:
    """Task of the chosen model, which must fit the options that are given."""
    role = next(role for role in Role if options.model in list_models(role))
    for name in only_for_fusion:
        if role is not Role.FUSION and getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise DataError(f"{option} is for fusion networks; leave it out for {options.model}")
    return role


def _print_row(title: str, cells: list[str], width: int) -> None:
    print(f"{title:{width}}" + "".join(f"{cell:>11}" for cell in cells))


def _export(options: argparse.Namespace) -> None:
    from mmfusion.composition import read_composition  # noqa: PLC0415
    from mmfusion.export import export_artifact  # noqa: PLC0415

    aside = {"name", "command", "composition", "out"}
    given = {k: v for k, v in vars(options).items() if k not in aside and v is not None}
    if options.composition is None:
        composition = _fusion_alone(given)
    elif given:
        option = f"--{min(given).replace('_', '-')}"
        raise ExportError(f"--composition says it all: leave out {option}")
    else:
        composition = read_composition(options.composition)
    export_artifact(composition, options.out)
    print(f"wrote {options.out}/graph.onnx and {options.out}/manifest.json")


def _fusion_alone(given: dict[str, Any]) -> Composition:
    from mmfusion.composition import (  # noqa: PLC0415
        Composition,
        FusionPart,
        Provenance,
        Weights,
        parse_size,
        read_provenance,
    )
    from mmfusion.graph.cameras import CameraSpec  # noqa: PLC0415

    if "checkpoint" not in given or "rgb_size" not in given:
        raise ExportError("needs --composition, or --checkpoint and --rgb-size")
    as_given = ("depth_encoding", "thermal_encoding", "registration", "registered_thermal")
    cameras = CameraSpec(
        rgb_size=parse_size(given["rgb_size"]),
        depth_size=parse_size(given.get("depth_size", given["rgb_size"])),
        thermal_size=parse_size(given.get("thermal_size", given["rgb_size"])),
        **{name: given[name] for name in as_given if name in given},
    )
    provenance = read_provenance(given["provenance"]) if "provenance" in given else Provenance()
    model = given.get("model", _DEFAULT_MODEL)
    weights = Weights(model, given["checkpoint"], provenance=provenance)
    return Composition(cameras, FusionPart(weights, given.get("fusion_scale", 1)))


if __name__ == "__main__":
    sys.exit(main())
