"""Run recorded bags through the fusion pipeline: ``ros2 run mmfusion_ros replay``.

Reads a bag itself, steps the pipeline of the node set by set, and writes into a folder:

- ``result/``: an MCAP bag for Foxglove, RViz and ``ros2 bag`` with the fused picture and its
  camera_info, registered thermal, saliency mask, overlay, detections in 2D and 3D, markers and the
  status, as far as the artifact gives them, beside the RGB picture as it was recorded;
- ``metrics.json``: fusion metrics beside two simple baselines, saliency and detection metrics
  where there is ground truth, synchroniser and damage counts;
- ``latency.json``: how long each stage took;
- ``report.html`` and ``pictures/``: the same for people.

Several bags get a folder each, and ``summary.json`` and ``summary.html`` beside them; two
artifacts a folder each, and ``compare.json`` and ``compare.html``.

``result/``, ``metrics.json``, ``summary.json`` and but for its latency ``compare.json`` are the
same byte for byte when the same bags, artifacts, rig and options are run again on the same machine
with the same backend and number of threads. The other files hold measured durations and are not.

What these messages hold is what the node would have published, except for the status, which has no
durations here. Where an image has no stamp, the node takes the time at which it arrives, and this
the time at which it was recorded.

Ground truth finds its frames like this. Where the names of the files (in a COCO file, those of its
images), without folder and suffix, are all stamps of RGB images in nanoseconds, each belongs to the
images of its stamp, and not every image needs one. Where none of them is, the k-th name belongs to
the k-th RGB message of the whole bag, whether or not that is run, and there must be as many names
as messages; digits in names count as numbers, so 2 comes before 10. Some names that are stamps
beside others that are not are an error.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import sys
from collections.abc import Sequence

from tqdm import tqdm

from mmfusion_ros import compare, fleet, replay_plan, summary
from mmfusion_ros.command import INTERRUPTED
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.replay_options import parser, replay_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = sys.argv[1:] if arguments is None else list(arguments)
    # As Ctrl-C: what was done is to be complete, and no process is to be left behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options, shlex.join(["python", "-m", "mmfusion_ros.replay", *words]))
    except MmfusionError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"replay: {error}; results go to {options.out}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(options: argparse.Namespace, command: str) -> int:
    plan = replay_plan.plan_replay(
        options.bag,
        [options.artifact, *([options.compare] if options.compare else [])],
        options.out,
        replay_options(options),
        masks=options.ground_truth_masks,
        boxes=options.ground_truth_boxes,
        command=command,
    )
    compare.check(plan.comparisons)
    for note in plan.notes:
        print(f"replay: {note}")

    def say(result: fleet.Result) -> None:
        name = f"{result.job.name}: " if len(plan.jobs) > 1 else ""
        if result.error:
            tqdm.write(f"replay: {name}{result.error}", file=sys.stderr)
        for note in result.done.notes if result.done else ():
            tqdm.write(f"replay: {name}{note}")

    if options.cluster:
        results = fleet.run_on_cluster(plan.jobs, options.cluster, options.out, say)
    elif min(options.jobs, len(plan.jobs)) > 1:
        workers = min(options.jobs, len(plan.jobs))
        results = fleet.run_in_processes(plan.jobs, workers, say)
    else:
        results = fleet.run_here(plan.jobs, say)
    for line in compare.write_comparisons(plan.comparisons, results, command):
        print(f"replay: {line}")
    if len(options.bag) > 1:
        document = summary.write_summary(options.out, results, plan.notes, command)
        print(summary.summary_table(document, results))
        print(f"replay: see {options.out / 'summary.html'}")
    if any(result.interrupted for result in results):
        return INTERRUPTED
    return 1 if any(result.done is None for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
