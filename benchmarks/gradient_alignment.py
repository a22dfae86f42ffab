"""What aligning the gradients of detection and fusion changes, beside each task alone.

    python benchmarks/gradient_alignment.py --data PAIRS --validation PAIRS [--initial WEIGHTS]

Trains a recipe (`efficientmfd_tiny`, or what ``--recipe`` says) with every seed and variant, from
nothing or from the same weights, the same samples in the same order, and measures all on the
validation pairs: average precision, and VIF and Q_ABF of the fused luminance. The baseline is the
plain sum of both losses. Also tells the median of the two tasks' gradient norms, cosine and
condition number on the shared weights.

Results are written after every training, so that an interrupted run keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file

from mmfusion.efficientmfd.network import EfficientMFD
from mmfusion.evaluate_detection import detect_objects
from mmfusion.metrics import (
    average_precision,
    edge_preservation,
    value,
    visual_information_fidelity,
)
from mmfusion.quality import BOTH
from mmfusion.registry import create_model
from mmfusion.train.boxed_pairs import load_boxed_pairs
from mmfusion.train.recipes import load_recipe
from mmfusion.train.run import Places, train

RESULTS = Path(__file__).resolve().parent / "results"
BASELINE = "sum"
VARIANTS = {
    BASELINE: ["align_every=0"],
    "aligned every step": ["align_every=1"],
    "aligned every 10th": ["align_every=10"],
    "detection alone": ["align_every=0", "fusion_weight=0"],
    "fusion alone": ["align_every=0", "detection_weight=0"],
}


def run(changes: list[str], options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train one variant and measure it."""
    content = load_recipe(
        options.recipe,
        [
            *changes,
            f"loop.seed={seed}",
            f"loop.steps={options.steps}",
            f"size=[{options.height}, {options.width}]",
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        started = time.monotonic()
        train(content, Places(options.data, [], out, options.initial))
        weights = load_file(out / "model.safetensors")
        figures = measure(content["model"], weights, options.validation)
        figures["seconds"] = round(time.monotonic() - started)
        rows = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    alignments = [row["alignment"]["before"] for row in rows if "alignment" in row]
    if alignments:
        detection, fusion = zip(*(before["norms"] for before in alignments), strict=True)
        figures["median before alignment"] = {
            "norm of detection": statistics.median(detection),
            "norm of fusion": statistics.median(fusion),
            "cosine": statistics.median(b["cosine"] for b in alignments if b["cosine"] is not None),
            "condition": statistics.median(
                b["condition"] for b in alignments if b["condition"] is not None
            ),
        }
    return figures


def measure(model: str, weights: dict[str, torch.Tensor], folders: list[Path]) -> dict[str, Any]:
    """Figures of a trained network."""
    network = cast("EfficientMFD", create_model(model))
    network.load_state_dict(weights)
    network.eval()
    figures: dict[str, Any] = {}
    fidelity, edges, judged = [], [], []
    for pair in load_boxed_pairs(folders, network.config.classes):
        fused, boxes = detect_objects(network, pair, BOTH)
        judged.append(boxes)
        sources = (pair.infrared, value(pair.visible))
        fidelity.append(sum(visual_information_fidelity(fused, one) for one in sources))
        edges.append(edge_preservation(fused, *sources))
    mean = average_precision(judged, network.config.classes).mean
    figures["AP50"], figures["AP"] = mean.ap50, mean.ap
    figures["VIF"], figures["Q_ABF"] = float(np.nanmean(fidelity)), float(np.nanmean(edges))
    return figures


def table(runs: list[dict[str, Any]]) -> None:
    """Means over seeds, and their ratio to the baseline."""
    names = ["AP50", "AP", "VIF", "Q_ABF"]
    means = {
        variant: {
            name: statistics.mean(run["figures"][name] for run in runs if run["variant"] == variant)
            for name in names
        }
        for variant in dict.fromkeys(run["variant"] for run in runs)
    }
    print(f"{'':26}" + "".join(f"{name:>26}" for name in names))
    for variant, figures in means.items():
        cells = [
            f"{figures[name]:.3f} ({figures[name] / max(means[BASELINE][name], 1e-9):.2f} x)"
            for name in names
        ]
        print(f"{variant:26}" + "".join(f"{cell:>26}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--recipe", default="efficientmfd_tiny", help="name or file of a detector's recipe"
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--validation", type=Path, nargs="+", required=True)
    parser.add_argument("--initial", type=Path, help="weights to start from")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--width", type=int, default=320)
    options = parser.parse_args()
    result = RESULTS / f"gradient_alignment_{Path(options.recipe).stem}.json"
    runs: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for variant, changes in VARIANTS.items():
            figures = run(changes, options, seed)
            runs.append({"variant": variant, "seed": seed, "figures": figures})
            record = {
                "recipe": options.recipe,
                "initial": options.initial is not None,
                "steps": options.steps,
                "size": [options.height, options.width],
                "threads": torch.get_num_threads(),
                "runs": runs,
            }
            result.write_text(json.dumps(record, indent=1) + "\n")
            print(variant, seed, figures, flush=True)
    table(runs)


if __name__ == "__main__":
    main()
