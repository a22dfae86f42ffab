"""Many jobs at a time: in processes of this machine, or on the workers of a Dask cluster."""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.stepper import Step
from mmfusion_ros.paths_in_text import replace_path
from mmfusion_ros.replay_job import Done, Job, prepare, run

_logger = logging.getLogger(__name__)
_BEAT_S = 0.25  # how often a job tells how far it is, and hears whether it should stop


@dataclass(frozen=True)
class Result:
    """What came of a job.

    Attributes:
        job: that was done.
        done: what it gave; None if it failed.
        error: why it failed, or was not run.
        interrupted: whether the user ended it, or it was not begun because of that.
    """

    job: Job
    done: Done | None = None
    error: str = ""
    interrupted: bool = False


class Channel(Protocol):
    """Between a job and who waits for it, wherever it runs."""

    def put(self, message: tuple[int, str, int]) -> None:
        """Tell the place of the job, "begun", "expected" or "sets", and a number.

        Or what is being done to open its engine, and the percentage that is done.
        """

    def stopped(self) -> bool:
        """Whether the user wants an end."""


@dataclass(frozen=True)
class _Distant:
    """A channel that travels with a job into another process."""

    queue: Any
    stop: Any

    def put(self, message: tuple[int, str, int]) -> None:
        self.queue.put(message)

    def stopped(self) -> bool:
        return bool(self.stop.is_set())


@dataclass
class _Here:
    """A channel within this process, where Ctrl-C ends the job itself."""

    monitor: Monitor

    def put(self, message: tuple[int, str, int]) -> None:
        self.monitor.note(message)

    def stopped(self) -> bool:
        return False


@dataclass
class Monitor:
    """One progress bar over all jobs, and which of them have begun."""

    jobs: int
    bar: Any = field(init=False)
    begun: set[int] = field(default_factory=set)
    _ended: int = 0

    def __post_init__(self) -> None:
        # disable=None: no bar where nobody watches.
        self.bar = tqdm(total=0, unit="set", disable=None)

    def note(self, message: tuple[int, str, int]) -> None:
        """Take in what a job tells."""
        place, what, number = message
        if what == "begun":
            self.begun.add(place)
        elif what == "expected":
            self.bar.total = (self.bar.total or 0) + number
            self.bar.set_description_str()
        elif what == "sets":
            self.bar.update(number)
        else:
            self.bar.set_description_str(f"{what} {number}%")

    def ended(self) -> None:
        """Count a job that has ended."""
        self._ended += 1
        self.bar.set_description_str(refresh=False)  # it may have ended while its engine opened
        if self.jobs > 1:
            self.bar.set_postfix_str(f"{self._ended}/{self.jobs} replays")


def run_here(jobs: Sequence[Job], ended: Callable[[Result], None]) -> list[Result]:
    """Do jobs one after the other in this process; Ctrl-C ends the one that runs and the rest.

    Args:
        jobs: to do.
        ended: called with each result.
    """
    monitor = Monitor(len(jobs))
    results: list[Result] = []
    try:
        for place, job in enumerate(jobs):
            if results and results[-1].interrupted:
                results.append(Result(job, error="not run: interrupted", interrupted=True))
                continue
            results.append(perform(job, place, _Here(monitor)))
            monitor.ended()
            ended(results[-1])
    finally:
        monitor.bar.close()
    return results


def run_in_processes(
    jobs: Sequence[Job], workers: int, ended: Callable[[Result], None]
) -> list[Result]:
    """Do jobs in processes of this machine.

    Args:
        jobs: to do; engines whose threads are left open share half of the cores.
        workers: processes.
        ended: called with each result, as they come.
    """
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // 2 // workers)
    jobs = [replace(job, engine_threads=threads) for job in jobs]

    def pool(count: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            count, context, initializer=_begin_worker, initargs=(max(1, cores // workers),)
        )

    monitor = Monitor(len(jobs))
    try:
        manager = SyncManager(ctx=context)
        manager.start(_begin_manager)
        with manager:
            channel = _Distant(manager.Queue(), manager.Event())
            with pool(workers) as executor:
                results = _gather(jobs, executor, channel, monitor, ended)
            # A process that was killed takes the others of its pool along: those left get one
            # each, so that only the guilty one fails.
            for place, result in enumerate(results):
                if result is None:
                    with pool(1) as executor:
                        (again,) = _gather([jobs[place]], executor, channel, monitor, ended)
                    results[place] = again or _killed(jobs[place], ended)
    finally:
        monitor.bar.close()
    return [result for result in results if result is not None]


def run_on_cluster(
    jobs: Sequence[Job], address: str, out: Path, ended: Callable[[Result], None]
) -> list[Result]:
    """Do jobs on the workers of a Dask cluster, which see all files by the same paths.

    Args:
        jobs: to do.
        address: of the scheduler.
        out: folder that all results go into.
        ended: called with each result, as they come.

    Raises:
        MmfusionError: if there is no such cluster, or its workers see other files.
    """
    # Workers have working folders of their own.
    distant = [_absolute(job) for job in jobs]
    typed = {far.out: job for far, job in zip(distant, jobs, strict=True)}

    def as_typed(result: Result) -> Result:
        job = typed[result.job.out]
        return replace(result, job=job, error=_without_folder(result.error, result.job, job))

    with _cluster(address, distant, out.absolute()) as (executor, channel):
        monitor = Monitor(len(jobs))
        try:
            results = _gather(
                distant, executor, channel, monitor, lambda result: ended(as_typed(result))
            )
        finally:
            monitor.bar.close()
    return [as_typed(result) for result in results if result is not None]


def perform(job: Job, place: int, channel: Channel) -> Result:
    """Do one job; whatever goes wrong is its result."""
    try:
        channel.put((place, "begun", os.getpid()))
        if channel.stopped():
            return Result(job, error="not run: interrupted", interrupted=True)
        done = run(
            prepare(job),
            lambda steps, total: _followed(steps, total, place, channel),
            _OpeningProgress(place, channel),
        )
    except MmfusionError as error:
        return Result(job, error=str(error))
    except OSError as error:
        return Result(job, error=f"{error}; results go to {job.out}")
    except KeyboardInterrupt:
        return Result(job, error="interrupted before anything was done", interrupted=True)
    except Exception as error:  # a fault of the program must not cost the other bags
        _logger.exception("%s", job.name)
        return Result(job, error=f"unexpected {type(error).__name__}: {error}")
    return Result(job, done, interrupted=done.interrupted)


class _OpeningProgress:
    """Tells how far the opening of a job's engine is, and ends it when the user wants so."""

    def __init__(self, place: int, channel: Channel) -> None:
        self._place, self._channel = place, channel
        self._told_at = -math.inf

    def __call__(self, what: str, share: float) -> None:
        now = time.monotonic()
        if now - self._told_at < _BEAT_S:
            return
        self._told_at = now
        self._channel.put((self._place, what, round(100 * share)))
        if self._channel.stopped():
            raise KeyboardInterrupt


def _followed(steps: Iterable[Step], total: int, place: int, channel: Channel) -> Iterator[Step]:
    channel.put((place, "expected", total))
    untold, told_at = 0, time.monotonic()
    for step in steps:
        yield step
        untold += 1
        now = time.monotonic()
        if now - told_at >= _BEAT_S:
            channel.put((place, "sets", untold))
            untold, told_at = 0, now
            if channel.stopped():
                raise KeyboardInterrupt
    channel.put((place, "sets", untold))


def _gather(
    jobs: Sequence[Job],
    executor: Executor,
    channel: _Distant,
    monitor: Monitor,
    ended: Callable[[Result], None],
) -> list[Result | None]:
    """Results of jobs in their order; None for those whose process was killed.

    Ctrl-C cancels what has not begun; what runs ends early, and completely. A second one ends
    the processes where they are.
    """
    places = {
        executor.submit(perform, job, place, channel): place for place, job in enumerate(jobs)
    }
    results: list[Result | None] = [None] * len(jobs)
    pending = set(places)
    while pending:
        try:
            done, pending = wait(pending, timeout=_BEAT_S, return_when=FIRST_COMPLETED)
            _hear(channel, monitor)
            for future in done:
                place = places[future]
                result = results[place] = _result(future, jobs[place])
                if result is not None:
                    monitor.ended()
                    ended(result)
        except KeyboardInterrupt:
            if channel.stopped():  # asked a second time
                _abandon(executor)
                raise
            channel.stop.set()
            _hear(channel, monitor)
            for future in pending:
                if places[future] not in monitor.begun:
                    future.cancel()
    _hear(channel, monitor)
    return results


def _result(future: Future[Result], job: Job) -> Result | None:
    if future.cancelled():
        return Result(job, error="not run: interrupted", interrupted=True)
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return None
    return Result(job, error=f"{type(error).__name__}: {error}")


def _killed(job: Job, ended: Callable[[Result], None]) -> Result:
    result = Result(job, error="its process was killed; was there enough memory?")
    ended(result)
    return result


def _hear(channel: _Distant, monitor: Monitor) -> None:
    while channel.queue.qsize():
        monitor.note(channel.queue.get())


def _abandon(executor: Executor) -> None:
    executor.shutdown(wait=False)
    # The pool would wait for them. On a cluster they are not this process's, and are cancelled.
    for process in multiprocessing.active_children():
        process.kill()


def _end_with_parent() -> None:
    """End this process when the one that began it does, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("not a process that another one began")

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="watch_parent", daemon=True).start()


def _begin_manager() -> None:
    # Where a signal goes to a whole group, the channel must outlive it to say what is to end.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _end_with_parent()


def _begin_worker(threads: int) -> None:
    import cv2  # noqa: PLC0415 (of the worker)

    _end_with_parent()
    # The terminal sends Ctrl-C to all processes; here the channel says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(threads)


def _absolute(job: Job) -> Job:
    options = replace(job.options, rig=job.options.rig and job.options.rig.absolute())
    paths = {
        name: path and path.absolute()
        for name in ("bag", "artifact", "out", "masks", "boxes")
        for path in [getattr(job, name)]
    }
    return replace(job, options=options, **paths)


def _without_folder(text: str, absolute: Job, typed: Job) -> str:
    """A message with the paths as the user gave them, so that it is the same without a cluster."""
    for name in ("bag", "artifact", "out", "masks", "boxes"):
        path = getattr(absolute, name)
        text = replace_path(text, str(path), str(getattr(typed, name))) if path else text
    return text


@contextmanager
def _cluster(address: str, jobs: Sequence[Job], out: Path) -> Iterator[tuple[Executor, _Distant]]:
    try:
        import distributed  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise MmfusionError(
            f"--cluster needs Dask ({error}); install it with 'pip install mmfusion_ros[fleet]'"
        ) from error
    with ExitStack() as stack:
        try:
            client = stack.enter_context(distributed.Client(address, timeout=10))
        except (OSError, ValueError) as error:
            raise MmfusionError(
                f"there is no Dask scheduler at {address} ({error}); start one with "
                "'dask scheduler', and workers with 'dask worker ADDRESS --nthreads 1'"
            ) from error
        _check_workers(client, address, jobs, out)
        channel = _Distant(distributed.Queue(client=client), distributed.Event(client=client))
        stack.callback(channel.queue.close)
        yield client.get_executor(pure=False, retries=0), channel


def _check_workers(client: Any, address: str, jobs: Sequence[Job], out: Path) -> None:
    """Make sure that every worker can do the work and sees the same files."""
    if not client.scheduler_info(n_workers=-1)["workers"]:
        raise MmfusionError(
            f"the Dask scheduler at {address} has no workers; start some with "
            f"'dask worker {address} --nthreads 1'"
        )
    paths = {
        str(path)
        for job in jobs
        for path in (job.bag, job.artifact, job.options.rig, job.masks, job.boxes)
        if path is not None
    }
    out.mkdir(parents=True, exist_ok=True)
    token = out / f".seen-{os.getpid()}"
    token.touch()
    try:
        blind = client.run(_unseen, [*sorted(path for path in paths), str(token)])
    except Exception as error:  # whatever a worker without this package makes of it
        raise MmfusionError(
            f"the workers of {address} cannot run mmfusion_ros ({error}); install the same "
            "version there as here"
        ) from error
    finally:
        token.unlink(missing_ok=True)
    for worker, unseen in blind.items():
        if unseen:
            shown = str(out) if unseen[0] == str(token) else unseen[0]
            raise MmfusionError(
                f"worker {worker} does not see {shown}; bags, artifact, rig, ground truth and "
                "--out must lie on storage that all workers have under the same path"
            )


def _unseen(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]
