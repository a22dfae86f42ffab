"""The ``mmfusion`` command: train, evaluate, export.

Heavy imports wait until a command runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from mmfusion.errors import MmfusionError


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

    train = commands.add_parser("train", help="train a fusion network on folders of pairs")
    _add_model(train)
    train.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="holds infrared and visible images in subfolders ir and vi",
    )
    train.add_argument("--out", type=Path, required=True, help="where weights and recipe go")
    train.add_argument("--steps", type=_at_least(1), default=1200)
    train.add_argument("--batch", type=_at_least(1), default=6)
    train.add_argument(
        "--crop",
        type=_at_least(11),  # the window of the SSIM loss
        default=97,
        help="side of the training crops that the network sees, pixels",
    )
    train.add_argument(
        "--scales",
        type=_at_least(1),
        nargs="+",
        default=[1, 2, 4],
        help="sizes to train for, see --fusion-scale of export; 1 alone for a network that does "
        "not blend (default: 1 2 4)",
    )
    train.add_argument("--seed", type=_at_least(0), default=0)
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="measure a fusion network on held-out pairs")
    _add_model(evaluate)
    evaluate.add_argument("--checkpoint", type=Path, required=True)
    evaluate.add_argument("--data", type=Path, nargs="+", required=True, metavar="FOLDER")
    evaluate.add_argument("--fusion-scale", type=_at_least(1), default=1)
    evaluate.add_argument("--out", type=Path, required=True, help="JSON file for the means")
    evaluate.set_defaults(command=_evaluate)

    export = commands.add_parser("export", help="write an artifact that a robot runs")
    _add_model(export)
    export.add_argument("--checkpoint", type=Path, required=True)
    export.add_argument("--rgb-size", type=_size, required=True, metavar="WIDTHxHEIGHT")
    export.add_argument(
        "--depth-size", type=_size, metavar="WIDTHxHEIGHT", help="default: the RGB size"
    )
    export.add_argument(
        "--thermal-size", type=_size, metavar="WIDTHxHEIGHT", help="default: the RGB size"
    )
    export.add_argument("--depth-encoding", choices=("16UC1", "32FC1"), default="16UC1")
    export.add_argument("--thermal-encoding", choices=("mono16", "mono8"), default="mono16")
    export.add_argument("--registration", choices=("identity", "homography"), default="identity")
    export.add_argument(
        "--fusion-scale",
        type=_at_least(1),
        default=1,
        help="let the network see pictures this many times smaller",
    )
    export.add_argument(
        "--registered-thermal", action="store_true", help="also put out the thermal image as fused"
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


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="s4fusion_tiny", help="default: %(default)s")


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text) if text.lstrip("-").isdecimal() else None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} is unusable; expected a whole number of at least {least}"
            )
        return value

    return parse


def _size(text: str) -> tuple[int, int]:
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected e.g. 640x480") from None
    return height, width


def _train(options: argparse.Namespace) -> None:
    from mmfusion.train.fusion import FusionRecipe, train_fusion  # noqa: PLC0415

    recipe = FusionRecipe(
        model=options.model,
        steps=options.steps,
        batch=options.batch,
        crop=options.crop,
        scales=tuple(options.scales),
        seed=options.seed,
    )
    train_fusion(recipe, options.data, options.out)


def _evaluate(options: argparse.Namespace) -> None:
    from mmfusion.evaluate import evaluate_fusion  # noqa: PLC0415

    means = evaluate_fusion(
        options.model, options.checkpoint, options.data, options.out, options.fusion_scale
    )
    names = list(next(iter(means.values())))
    _print_row("", names)
    for method, values in means.items():
        _print_row(method, [f"{values[name]:.3f}" for name in names])


def _print_row(title: str, cells: list[str]) -> None:
    print(f"{title:10}" + "".join(f"{cell:>9}" for cell in cells))


def _export(options: argparse.Namespace) -> None:
    from mmfusion.export import Provenance, export_artifact, read_provenance  # noqa: PLC0415
    from mmfusion.graph.camera_graph import CameraSpec  # noqa: PLC0415

    spec = CameraSpec(
        rgb_size=options.rgb_size,
        depth_size=options.depth_size or options.rgb_size,
        thermal_size=options.thermal_size or options.rgb_size,
        depth_encoding=options.depth_encoding,
        thermal_encoding=options.thermal_encoding,
        registration=options.registration,
        fusion_scale=options.fusion_scale,
        registered_thermal=options.registered_thermal,
    )
    provenance = read_provenance(options.provenance) if options.provenance else Provenance()
    export_artifact(options.model, options.checkpoint, spec, options.out, provenance)
    print(f"wrote {options.out}/graph.onnx and {options.out}/manifest.json")


if __name__ == "__main__":
    sys.exit(main())
