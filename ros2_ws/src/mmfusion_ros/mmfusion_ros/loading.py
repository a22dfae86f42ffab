"""What configuring the node opens: rig, artifact and engine, at once or aside."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from mmfusion_ros.core.artifact import Artifact, open_artifact
from mmfusion_ros.core.engines import Cancelled, Engine, Progress, open_engine, open_fallback
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.guarded_pipeline import GuardedPipeline
from mmfusion_ros.core.pipeline import Pipeline
from mmfusion_ros.core.rig import Rig, load_rig
from mmfusion_ros.parameters import Settings


@dataclass(frozen=True)
class Loaded:
    """What configuring gives; the pipeline is to be closed."""

    artifact: Artifact
    rig: Rig
    pipeline: GuardedPipeline


def load(settings: Settings, progress: Progress) -> Loaded:
    """Load rig and artifact, open the engine.

    Args:
        settings: of the node.
        progress: called while an engine is built or compared, also when it is opened again; what
            it raises ends that and comes out.

    Raises:
        MmfusionError: if one of them is not set or cannot be used.
    """
    for name in ("artifact", "rig"):
        if not getattr(settings, name):
            raise MmfusionError(f"parameter {name} is not set; start with -p {name}:=PATH")
    rig = load_rig(Path(settings.rig))
    artifact = open_artifact(Path(settings.artifact))
    if artifact.rig_packing:
        rig.pack(artifact.rig_packing)  # raises now what the pipeline would after opening an engine

    # The pipeline sees to the fallback: it has more patience with an engine that once ran.
    options = dataclasses.replace(settings.engine, fallback="")

    def open_pipeline() -> Pipeline:
        return _pipeline(artifact, open_engine(artifact, options, progress), rig)

    def fall_back(reason: str) -> Pipeline:
        return _pipeline(artifact, open_fallback(artifact, settings.engine, reason), rig)

    fallback = fall_back if settings.engine_fallback else None
    return Loaded(artifact, rig, GuardedPipeline(open_pipeline, open_fallback=fallback))


class Loading:
    """A `load` on a thread of its own, as it may take long and an executor has others to answer."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        """Begin; the arguments are those of `load`."""
        self._future: Future[Loaded] = Future()
        self._unwanted = threading.Event()

        def wanted_progress(what: str, share: float) -> None:
            if self._unwanted.is_set():
                raise Cancelled
            progress(what, share)

        def work() -> None:
            try:
                self._future.set_result(load(settings, wanted_progress))
            except Exception as error:  # noqa: BLE001 (raised again where the result is taken)
                self._future.set_exception(error)

        threading.Thread(target=work, name="load", daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether `result` need not wait."""
        return self._future.done()

    def result(self) -> Loaded:
        """What `load` gives or raises, once it does."""
        return self._future.result()

    def abandon(self) -> None:
        """Nobody waits for it any more: end it soon, and close what it gives nevertheless."""
        self._unwanted.set()
        self._future.add_done_callback(_close)


def _close(loading: Future[Loaded]) -> None:
    if loading.exception() is None:
        loading.result().pipeline.close()


def _pipeline(artifact: Artifact, engine: Engine, rig: Rig) -> Pipeline:
    """One that has the engine, which is closed if there can be none."""
    try:
        return Pipeline(artifact, engine, rig)
    except BaseException:
        engine.close()
        raise
