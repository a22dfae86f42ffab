"""Reduced precision is used only where its outputs are close enough to those of fp32.

What was measured is kept beside the engines, so the next start needs neither time nor frames.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.atomic_file import written_whole
from mmfusion_ros.core.detections import MOST_DETECTIONS
from mmfusion_ros.core.engines.engine import ONNX, Engine
from mmfusion_ros.core.engines.likeness import MatchedShare, mean_absolute_error, psnr_db, ssim
from mmfusion_ros.core.engines.options import EngineOptions
from mmfusion_ros.core.engines.progress import Progress
from mmfusion_ros.core.engines.sample_frames import SampleFrames, read_sample_frames
from mmfusion_ros.core.errors import EngineError

_logger = logging.getLogger(__name__)

# Of the kept file, and of how its figures are measured: those of another way do not count. Until 1,
# a matched_share was that of detections that score 0.5 or more.
_VERSION = 2
_AT_LEAST = {"psnr_db", "matched_share"}
# Of /proc/cpuinfo, on x86 and on Arm; and how the features begin that change what is computed.
_PROCESSOR = {
    *("vendor_id", "cpu family", "model", "model name"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part"),
}
_ARITHMETIC = (
    *("sse", "ssse", "avx", "fma", "f16c", "amx"),
    *("fp", "asimd", "sve", "sme", "bf16", "i8mm"),
)
_HOW_SAMPLES = (
    "write some with 'ros2 run mmfusion_ros sample_frames BAG --artifact ARTIFACT --out FILE' and "
    "pass them as engine_samples (--engine-samples)"
)


@dataclass(frozen=True)
class Measure:
    """One figure beside its limit.

    Attributes:
        output: of the graph.
        name: psnr_db of the worst frame, mean_absolute_error of the worst frame, or matched_share
            of all frames.
        value: measured; not a number where there was nothing to measure.
        limit: of the manifest.
    """

    output: str
    name: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the limit is kept; never by what was not measured."""
        if self.name in _AT_LEAST:
            return self.value >= self.limit
        return self.value <= self.limit

    def __str__(self) -> str:
        if math.isnan(self.value):
            if self.name == "matched_share":
                return f"{self.output}: nothing found in any frame, so {self.name} has no value"
            return f"{self.output} {self.name} is no number, as outputs of a frame are none"
        side = "at least" if self.name in _AT_LEAST else "at most"
        return f"{self.output} {self.name} {self.value:.4g}, expected {side} {self.limit:g}"


@dataclass(frozen=True)
class GateResult:
    """What a comparison gave.

    Attributes:
        precision: that was compared with fp32.
        backend: that ran it.
        measures: figures with limits.
        ssim: structural similarity of the worst frame by picture, for information.
        frames: how many were compared.
        samples: digest of the frames.
    """

    precision: str
    backend: str
    measures: tuple[Measure, ...]
    ssim: Mapping[str, float]
    frames: int
    samples: str

    @property
    def passed(self) -> bool:
        """Whether every limit is kept."""
        return all(measure.passed for measure in self.measures)

    def document(self) -> dict[str, Any]:
        """For JSON: what is no number is None."""
        return {
            "schema_version": _VERSION,
            "precision": self.precision,
            "backend": self.backend,
            "passed": self.passed,
            "frames": self.frames,
            "samples": self.samples,
            "measures": [
                {
                    "output": measure.output,
                    "measure": measure.name,
                    "value": measure.value if math.isfinite(measure.value) else None,
                    "limit": measure.limit,
                    "passed": measure.passed,
                }
                for measure in self.measures
            ],
            "ssim": dict(self.ssim),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> GateResult:
        """What `document` gave.

        Raises:
            KeyError, TypeError, ValueError: if it is none, or of another version.
        """
        if document["schema_version"] != _VERSION:
            raise ValueError(f"version {document['schema_version']}, expected {_VERSION}")
        return cls(
            precision=str(document["precision"]),
            backend=str(document["backend"]),
            measures=tuple(
                Measure(
                    str(entry["output"]),
                    str(entry["measure"]),
                    math.nan if entry["value"] is None else float(entry["value"]),
                    float(entry["limit"]),
                )
                for entry in document["measures"]
            ),
            ssim={str(name): float(value) for name, value in document["ssim"].items()},
            frames=int(document["frames"]),
            samples=str(document["samples"]),
        )


def gate_key(artifact: Artifact, precision: str, runs_with: str, form: int = 0) -> str:
    """Name of what is kept of a CPU backend.

    Args:
        artifact: opened artifact.
        precision: below fp32.
        runs_with: backend and version.
        form: of the graph, see `Engine`.
    """
    graph = artifact.reduced_digests.get(precision, artifact.digest)
    told = f"{artifact.digest}\n{graph}\n{runs_with}\n{precision}\n{machine_name()}"
    if form:
        told = f"{told}\n{form}"
    digest = hashlib.sha256(told.encode()).hexdigest()
    return f"{artifact.name}-{runs_with.partition(' ')[0]}-{precision}-{digest[:16]}"


def machine_name() -> str:
    """Of the processor: another one may round differently."""
    try:
        known = processor(Path("/proc/cpuinfo").read_text(errors="replace"))
    except OSError:
        known = ""
    return f"{platform.machine()} {known or platform.processor()}".strip()


def processor(cpuinfo: str) -> str:
    """What tells a kind of processor, of what the kernel says of its cores.

    Virtual machines may name none, nor does Arm: so also what its arithmetic can do. Not all that
    the kernel lists: another kernel must not be another machine.
    """
    told = set()
    for line in cpuinfo.splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in _PROCESSOR:
            told.add(f"{key} {value}")
        elif key in {"flags", "Features"}:
            told.update(flag for flag in value.split() if flag.startswith(_ARITHMETIC))
    return " ".join(sorted(told))


def accept(
    engine: Engine,
    artifact: Artifact,
    options: EngineOptions,
    key: str,
    progress: Progress | None = None,
) -> GateResult | None:
    """Let an engine pass only if it keeps the artifact's tolerances.

    Args:
        engine: open.
        artifact: that it runs.
        options: with cache and samples.
        key: of the engine: what is measured is kept as ``<key>.gate.json`` in the cache.
        progress: called while frames are compared.

    Returns:
        What was measured now or before; None for fp32 of the artifact's own graph, which is not
        compared.

    Raises:
        EngineError: if it does not pass, or there is nothing to compare it on. Sample frames that
            are gone are not missed where there is a record.
    """
    built_elsewhere = engine.builder != ONNX
    if engine.precision == "fp32" and not built_elsewhere:
        return None
    what = f"{engine.backend} in {engine.precision}"
    instead = ["run it in fp32", "another precision"]
    if built_elsewhere:
        what, instead = f"{what} built by {engine.builder}", ["delete that engine"]
    path = options.cache_folder / f"{key}.gate.json"
    tolerances = _tolerances(artifact)
    wanted = options.samples
    gone = wanted is not None and not wanted.exists()
    samples = None if wanted is None or gone else read_sample_frames(wanted, artifact)
    result = _kept(path, tolerances, samples)
    if result is not None and gone:
        _logger.warning("engine: no sample frames at %s; taking what %s says", wanted, path)
    if result is None:
        if samples is None:
            samples = _needed_samples(what, artifact, wanted, instead[0])
        result = compare(engine, artifact, samples, options.threads, progress)
        _keep(path, result)
    if not result.passed:
        faults = "; ".join(str(measure) for measure in result.measures if not measure.passed)
        raise EngineError(
            f"{what} is too far from fp32 on {result.frames} sample frames of artifact "
            f"{artifact.name}: {faults}; {' or '.join(instead)}, or pass "
            "sample frames that show what the cameras see"
        )
    _logger.info(
        "engine: %s accepted on %d sample frames: %s",
        what,
        result.frames,
        "; ".join(map(str, result.measures)),
    )
    return result


def check_comparable(backend: str, artifact: Artifact, options: EngineOptions) -> None:
    """Refuse to build what `accept` could not let pass, however it turns out.

    For an engine that takes long to build and of which nothing was measured yet.

    Args:
        backend: that would run it.
        artifact: that it would run.
        options: with precision and samples.

    Raises:
        EngineError: in reduced precision, if the artifact has no tolerances or there are no
            sample frames that fit.
    """
    if options.precision != "fp32":
        _tolerances(artifact)
        what = f"{backend} in {options.precision}"
        _needed_samples(what, artifact, options.samples, "run it in fp32")


def compare(
    engine: Engine,
    artifact: Artifact,
    samples: SampleFrames,
    threads: int = 0,
    progress: Progress | None = None,
) -> GateResult:
    """Run the frames through an engine and through ONNX Runtime in fp32.

    Both get what was recorded, also where an output would go back in as an input.

    Raises:
        EngineError: if either fails.
    """
    from mmfusion_ros.core.engines.onnx_runtime import OnnxRuntimeEngine  # noqa: PLC0415

    tolerances = _tolerances(artifact)
    values: dict[str, list[float]] = {output: [] for output in tolerances}
    alike: dict[str, list[float]] = {}
    shares = {
        output: _matched_share(artifact)
        for output, (measure, _) in tolerances.items()
        if measure == "matched_share"
    }
    with OnnxRuntimeEngine(artifact, EngineOptions(threads=threads)) as reference:
        for number, inputs in enumerate(samples):
            if progress is not None:
                progress(f"comparing {engine.precision} with fp32", number / len(samples))
            expected, given = reference.run(inputs), engine.run(inputs)
            for output, (measure, _) in tolerances.items():
                if output in shares:
                    shares[output].add(expected, given)
                    continue
                of = psnr_db if measure == "psnr_db" else mean_absolute_error
                values[output].append(of(expected[output], given[output]))
            for output, picture in _pictures(expected).items():
                alike.setdefault(output, []).append(ssim(picture, given[output]))

    def value(output: str, measure: str) -> float:
        if output in shares:
            return shares[output].value
        # Not Python's own, which lose what is no number unless it comes first.
        return float((np.min if measure in _AT_LEAST else np.max)(values[output]))

    return GateResult(
        precision=engine.precision,
        backend=engine.backend,
        measures=tuple(
            Measure(output, measure, value(output, measure), limit)
            for output, (measure, limit) in tolerances.items()
        ),
        ssim={output: min(each) for output, each in alike.items()},
        frames=len(samples),
        samples=samples.digest,
    )


def _tolerances(artifact: Artifact) -> dict[str, tuple[str, float]]:
    """Measure and limit by output.

    Raises:
        EngineError: if there are none, or they are of no output.
    """
    tolerances = {
        output: (measure, float(limit))
        for output, entry in artifact.manifest["tolerances"].items()
        for measure, limit in entry.items()
    }
    unknown = tolerances.keys() - artifact.outputs.keys()
    if unknown or not tolerances:
        told = f"tolerances for {min(unknown)!r}, which it does not put out" if unknown else "none"
        raise EngineError(
            f"reduced precision is accepted only within tolerances, and artifact {artifact.name} "
            f"has {told}; export it again, or run it in fp32"
        )
    return tolerances


def _needed_samples(what: str, artifact: Artifact, path: Path | None, instead: str) -> SampleFrames:
    """The frames that nothing can be measured without."""
    if path is None:
        raise EngineError(
            f"{what} was not yet compared with fp32 for artifact {artifact.name} on this machine, "
            f"and there are no sample frames to compare it on; {_HOW_SAMPLES}, or {instead}"
        )
    return read_sample_frames(path, artifact)


def _matched_share(artifact: Artifact) -> MatchedShare:
    if artifact.nms_iou is None:
        raise EngineError(
            f"artifact {artifact.name} has a matched_share among its tolerances but no detections; "
            "export it again"
        )
    size = artifact.outputs["fused"].shape
    return MatchedShare(artifact.nms_iou, MOST_DETECTIONS, (size[0], size[1]))


def _pictures(outputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        name: array
        for name, array in outputs.items()
        if array.dtype == np.uint8 and array.ndim in {2, 3}
    }


def _kept(
    path: Path, tolerances: Mapping[str, tuple[str, float]], samples: SampleFrames | None
) -> GateResult | None:
    """What was measured before, judged by the limits of now; None if it does not serve."""
    try:
        result = GateResult.from_document(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _logger.warning("engine: %s cannot be used (%r); comparing anew", path, error)
        return None
    if {measure.output: measure.name for measure in result.measures} != {
        output: measure for output, (measure, _) in tolerances.items()
    }:
        _logger.info("engine: %s is of other tolerances; comparing anew", path)
        return None
    if samples is not None and samples.digest != result.samples:
        _logger.info("engine: %s is of other sample frames; comparing anew", path)
        return None
    measures = tuple(
        dataclasses.replace(measure, limit=tolerances[measure.output][1])
        for measure in result.measures
    )
    return dataclasses.replace(result, measures=measures)


def _keep(path: Path, result: GateResult) -> None:
    text = json.dumps(result.document(), indent=1, allow_nan=False)
    try:
        with written_whole(path) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        _logger.warning(
            "engine: %s cannot be written (%s); the next start compares anew", path, error
        )
