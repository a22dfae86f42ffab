"""Frame set in, results out: the one way through, live and offline."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.detections import MOST_DETECTIONS, Detections, suppress
from mmfusion_ros.core.engines import Engine
from mmfusion_ros.core.errors import ArtifactError, ImageError
from mmfusion_ros.core.frames import Absence, Companion, Frame, FrameSet, Modality
from mmfusion_ros.core.images import to_encoding
from mmfusion_ros.core.results import Results
from mmfusion_ros.core.rig import Rig


class Pipeline:
    """Runs the graph on frame sets and carries what goes from one frame to the next.

    Not thread-safe: one thread runs it.

    Attributes:
        artifact: what the engine was opened with.
        engine: that runs the graph.
        min_score: detections that score less are left out; may be changed between runs.
    """

    def __init__(
        self, artifact: Artifact, engine: Engine, rig: Rig, min_score: float = 0.0
    ) -> None:
        """Prepare for running.

        Args:
            artifact: what the engine was opened with.
            engine: open engine.
            rig: the cameras.
            min_score: detections that score less are left out.

        Raises:
            RigError: if the rig lacks a number that the artifact needs.
        """
        self.artifact = artifact
        self.engine = engine
        self.min_score = min_score
        self._blank = {
            modality: np.zeros(spec.shape, spec.dtype)
            for modality in Modality
            if (spec := artifact.inputs.get(modality.value)) is not None
        }
        self._fixed: dict[str, NDArray[Any]] = {}
        if artifact.rig_packing:
            self._fixed["rig"] = rig.pack(artifact.rig_packing)
        self.reset()

    def reset(self) -> None:
        """Forget what was carried over: after a time jump or a pause."""
        self._thermal_range = np.zeros(2, np.float32)

    def run(self, frames: FrameSet) -> Results:
        """Run the graph on one frame set.

        A damaged image makes its modality absent (reason INVALID), never an error.

        Raises:
            EngineError: if the engine fails.
            ArtifactError: if the graph puts out a class that has no name.
        """
        started = time.perf_counter()
        images: dict[Modality, NDArray[Any]] = {}
        problems: dict[Modality, str] = {}
        candidates = {
            Modality.RGB: frames.rgb,
            Modality.DEPTH: frames.depth.frame,
            Modality.THERMAL: frames.thermal.frame,
        }
        for modality, frame in candidates.items():
            if frame is None or modality not in self._blank:
                continue
            try:
                images[modality] = self._prepare(frame)
            except ImageError as error:
                problems[modality] = f"{modality} image: {error}"
        present = np.array([float(modality in images) for modality in Modality], np.float32)
        inputs = {
            **{m.value: images.get(m, blank) for m, blank in self._blank.items()},
            **self._fixed,
            "thermal_range": self._thermal_range,
            "present": present,
        }
        prepared = time.perf_counter()
        outputs = self.engine.run(inputs)
        finished = time.perf_counter()
        self._thermal_range = outputs["thermal_range_next"].copy()
        stages = {"prepare": prepared - started, "engine": finished - prepared}
        detections = None
        if "boxes" in outputs:
            detections = self._detections(outputs)
            stages["detections"] = time.perf_counter() - finished
        return Results(
            frames=_without(frames, problems.keys()),
            fused=outputs["fused"],
            registered_thermal=outputs.get("registered_thermal"),
            thermal_range=(float(self._thermal_range[0]), float(self._thermal_range[1])),
            present=frozenset(images),
            stages=stages,
            problems=problems,
            saliency=outputs.get("saliency"),
            detections=detections,
        )

    def _detections(self, outputs: Mapping[str, NDArray[Any]]) -> Detections:
        detections = suppress(
            outputs["boxes"],
            outputs["scores"],
            outputs["classes"],
            outputs.get("box_depth"),
            min_score=self.min_score,
            iou=1.0 if self.artifact.nms_iou is None else self.artifact.nms_iou,
            limit=MOST_DETECTIONS,
            size=self.artifact.image_size(Modality.RGB),
        )
        names = len(self.artifact.classes)
        nameless = (detections.classes < 0) | (detections.classes >= names)
        if nameless.any():
            # No fault of the engine, which would do the same when opened again.
            raise ArtifactError(
                f"the graph of artifact {self.artifact.name} puts out class "
                f"{detections.classes[nameless][0]}, but its manifest names {names} classes; "
                "export the artifact again"
            )
        return detections

    def _prepare(self, frame: Frame) -> NDArray[Any]:
        image = to_encoding(frame.image, self.artifact.encodings[frame.modality])
        expected = self.artifact.image_size(frame.modality)
        if image.shape[:2] != expected:
            raise ImageError(
                f"{image.shape[1]}x{image.shape[0]} pixels, but artifact {self.artifact.name} was "
                f"exported for {expected[1]}x{expected[0]}; export it for this camera"
            )
        return image


def _without(frames: FrameSet, damaged: Any) -> FrameSet:
    def checked(modality: Modality, companion: Companion) -> Companion:
        if modality not in damaged:
            return companion
        return Companion(None, Absence.INVALID, companion.age_ns)

    return dataclasses.replace(
        frames,
        depth=checked(Modality.DEPTH, frames.depth),
        thermal=checked(Modality.THERMAL, frames.thermal),
    )
