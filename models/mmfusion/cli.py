"""The mmfusion command: train, evaluate, export, reduce, compile, scan-kernels.

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
_INTERRUPTED = 130  # as shells have it


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
    except KeyboardInterrupt:
        how = "; go on with --resume" if options.name == "train" else ""
        print(f"mmfusion {options.name}: interrupted{how}", file=sys.stderr)
        return _INTERRUPTED
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
        "images with metric depth and masks, or a detection network on pairs with boxes. In many "
        "processes: torchrun --nproc-per-node N -m mmfusion train ...",
    )
    train.add_argument(
        "recipe",
        metavar="RECIPE",
        help=f"a YAML file, or one of: {', '.join(_presets())}",
    )
    train.add_argument(
        "--data",
        type=Path,
        nargs="+",
        required=True,
        metavar="FOLDER",
        help="fusion: infrared-visible pairs; saliency: rgb, depth (16-bit, millimetres) and gt; "
        "detection: pairs with boxes in COCO or VOC files; see docs/train.md",
    )
    train.add_argument(
        "--validation",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="more such folders, to measure on",
    )
    train.add_argument("--out", type=Path, required=True, help="where weights and figures go")
    train.add_argument(
        "--initial",
        type=Path,
        metavar="FILE",
        help="weights of the same model to start from (default: random ones)",
    )
    train.add_argument(
        "--set",
        dest="changes",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, such as loop.steps=100",
    )
    train.add_argument(
        "--resume", action="store_true", help="go on with the interrupted training in --out"
    )
    train.add_argument(
        "--workers",
        type=_at_least(0),
        default=0,
        help="processes that prepare samples beside the one that trains (default: 0)",
    )
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="measure a network on held-out images")
    _add_model(evaluate, *Role)
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
    evaluate.add_argument(
        "--failures",
        type=Path,
        metavar="FOLDER",
        help="also write pictures of the samples that the network does worst on",
    )
    evaluate.add_argument(
        "--data-name",
        metavar="TEXT",
        help="what a manifest is to call the data (default: number of samples, names of folders)",
    )
    evaluate.add_argument(
        "--out",
        type=Path,
        required=True,
        help="JSON file for the figures, which a provenance file can name; see docs/export.md",
    )
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
        help="training_data, recipe, terms and evaluation for the manifest; see docs/export.md",
    )
    export.add_argument("--out", type=Path, required=True, help="artifact folder")
    export.set_defaults(command=_export)

    _add_artifact_commands(commands)
    return parser


def _add_artifact_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Commands that add to an artifact."""
    reduce = commands.add_parser(
        "reduce",
        help="add graphs of reduced precision to an artifact",
        description="Add graphs of reduced precision to an artifact. A robot that is asked for "
        "one compares it with float32 before it runs it.",
    )
    reduce.add_argument("artifact", type=Path, help="artifact folder")
    reduce.add_argument(
        "--precision", nargs="+", choices=("fp16", "bf16", "int8"), default=["fp16"]
    )
    reduce.add_argument(
        "--samples",
        type=Path,
        metavar="NPZ",
        help="frames of the cameras, for int8; see docs/export.md",
    )
    reduce.set_defaults(command=_reduce)

    engine = commands.add_parser(
        "compile",
        help="compile an artifact's engine from PyTorch, for the GPU at hand",
        description="Compile an artifact's engine for TensorRT from the PyTorch graph, in float32, "
        "into the folder engines of the artifact. It is of the GPU and the TensorRT at hand; a "
        "robot with the same compares it with graph.onnx before it runs it. No robot needs it: "
        "they build engines from graph.onnx.",
    )
    engine.add_argument("artifact", type=Path, help="artifact folder")
    engine.add_argument(
        "--composition",
        type=Path,
        metavar="YAML",
        required=True,
        help="that the artifact was exported from",
    )
    engine.add_argument(
        "--engine", choices=("torch_tensorrt",), required=True, help="what compiles it"
    )
    engine.set_defaults(command=_compile)

    kernels = commands.add_parser(
        "scan-kernels",
        help="compile the selective scan for GPUs, into an artifact",
        description="Compile the selective scan for GPUs, into the folder kernels of an artifact. "
        "Neither a GPU nor its driver is needed.",
    )
    kernels.add_argument("artifact", type=Path, help="artifact folder")
    kernels.add_argument(
        "--architectures", nargs="+", metavar="SM", help="such as sm_87, which is an Orin"
    )
    kernels.set_defaults(command=_scan_kernels)


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


def _presets() -> list[str]:
    """Recipes that come with the package, without importing what reads them."""
    return sorted(path.stem for path in (Path(__file__).parent / "train/presets").glob("*.yaml"))


def _train(options: argparse.Namespace) -> None:
    from mmfusion.train.recipes import load_recipe  # noqa: PLC0415
    from mmfusion.train.run import Places, train  # noqa: PLC0415

    places = Places(options.data, options.validation, options.out, options.initial)
    recipe = load_recipe(options.recipe, options.changes)
    train(recipe, places, resume=options.resume, workers=options.workers)
    print(f"wrote {options.out}/model.safetensors; curves: tensorboard --logdir {options.out}")


def _evaluate(options: argparse.Namespace) -> None:
    what = (options.model, options.checkpoint, options.data, options.out)
    role = _role(options, fusion_scale=Role.FUSION)
    if options.corrupt and role is not Role.SALIENCY:
        raise DataError(f"--corrupt is for saliency networks; leave it out for {options.model}")
    aside = {"data_name": options.data_name, "failures": options.failures}
    if options.corrupt:
        for name, value in aside.items():
            if value is not None:
                option = f"--{name.replace('_', '-')}"
                raise DataError(f"{option} does not go with --corrupt; leave one of them out")
        from mmfusion.evaluate_robustness import evaluate_robustness  # noqa: PLC0415

        rows = evaluate_robustness(*what)
    elif role is Role.SALIENCY:
        from mmfusion.evaluate_saliency import evaluate_saliency  # noqa: PLC0415

        rows = evaluate_saliency(*what, **aside)
    elif role is Role.DETECTION:
        from mmfusion.evaluate_detection import evaluate_detection  # noqa: PLC0415

        rows = evaluate_detection(*what, **aside)
    else:
        from mmfusion.evaluate_fusion import evaluate_fusion  # noqa: PLC0415

        rows = evaluate_fusion(*what, options.fusion_scale or 1, **aside)
    names = list(next(iter(rows.values())))
    width = max(10, *map(len, rows))
    _print_row("", names, width)
    for title, values in rows.items():
        _print_row(title, [f"{values[name]:.3f}" for name in names], width)
    if options.failures is not None:
        print(f"wrote pictures of the worst samples to {options.failures}")


def _role(options: argparse.Namespace, **only_for: Role) -> Role:
    """Task of the chosen model, which must fit the options that are given."""
    role = next(role for role in Role if options.model in list_models(role))
    for name, needed in only_for.items():
        if role is not needed and getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise DataError(f"{option} is for {needed} networks; leave it out for {options.model}")
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


def _reduce(options: argparse.Namespace) -> None:
    from mmfusion.reduce import reduce_artifact  # noqa: PLC0415

    for precision in options.precision:
        print(f"wrote {reduce_artifact(options.artifact, precision, options.samples)}")


def _compile(options: argparse.Namespace) -> None:
    from mmfusion.composition import read_composition  # noqa: PLC0415
    from mmfusion.tensorrt_compiler import TorchTensorRT  # noqa: PLC0415

    compiler = TorchTensorRT()  # first: it takes long to see that it is missing otherwise
    from mmfusion.compile_engine import compile_engine  # noqa: PLC0415

    path = compile_engine(options.artifact, read_composition(options.composition), compiler)
    print(f"wrote {path} for {compiler.gpu} and {compiler.library}")


def _scan_kernels(options: argparse.Namespace) -> None:
    from mmfusion.layers.selective_scan_ptx import ARCHITECTURES, write_kernels  # noqa: PLC0415

    print(f"wrote {write_kernels(options.artifact, options.architectures or ARCHITECTURES)}")


if __name__ == "__main__":
    sys.exit(main())
