"""Built engines on disk: each under the key of all that it depends on."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from mmfusion_ros.core.atomic_file import written_whole
from mmfusion_ros.core.engines.progress import Progress
from mmfusion_ros.core.errors import EngineError

_logger = logging.getLogger(__name__)
_Opened = TypeVar("_Opened")
_LOOK_EVERY_S = 0.2
_ANEW = "building it anew"


class UnusableEngineError(EngineError):
    """A built engine is not what it was taken for, or does not fit this machine."""


@dataclass(frozen=True)
class CacheKey:
    """Whatever makes an engine another one; each library's own kind lists it."""

    @property
    def document(self) -> dict[str, Any]:
        """In clear, as JSON gives it back."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document

    @property
    def digest(self) -> str:
        """Short name; equal for equal keys only."""
        told = json.dumps(self.document, sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class EngineKey(CacheKey):
    """Of TensorRT's engines.

    Attributes:
        builder: what the engine is built from: ``onnx``, or the compiler of a PyTorch graph.
        graph: SHA-256 of the ONNX file; of the one that computes the same, if built from another.
        form: of the graph that is made of it for the library; 0 if that has no part in it.
        gpu: name of the device; empty if the engine runs on any of the compute capability.
        compute_capability: of the device.
        library: name and version.
        precision: that the graph computes in.
        plugin: digest of the selective scan's kernels that are built in; empty for none.
        settings: of the builder.
    """

    builder: str
    graph: str
    form: int
    gpu: str
    compute_capability: tuple[int, int]
    library: str
    precision: str
    plugin: str
    settings: Mapping[str, object]


class EngineCache:
    """A folder of engines; several processes may use it at a time.

    ``<key>.engine`` is the engine, ``<key>.json`` tells the key in clear, and size and digest of
    the engine. It is written last: what it does not vouch for is not used. Nothing is ever
    written under the name of another key.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def engine_path(self, key: CacheKey) -> Path:
        """Where the engine of a key lies."""
        return self._folder / f"{key.digest}.engine"

    def description_path(self, key: CacheKey) -> Path:
        """Where the engine of a key is described."""
        return self._folder / f"{key.digest}.json"

    def obtain(
        self,
        keys: Sequence[CacheKey],
        build: Callable[[], bytes],
        use: Callable[[bytes, Path, str], _Opened],
        progress: Progress | None = None,
    ) -> _Opened:
        """An engine from the folder, or built now.

        Of several processes that want the same engine, one builds it and the others wait. A
        builder that is killed leaves nothing that is used, and the next one goes on.

        Args:
            keys: of the engines that serve, the one first that is built if there is none.
            build: makes it.
            use: makes of an engine what is wanted. It also gets where it lies and its SHA-256: two
                builds under one key are not the same engine.
            progress: called while another process builds.

        Raises:
            EngineError: from ``build`` or ``use``; UnusableEngineError from ``use`` for an engine
                that was built now only, a kept one is built anew then.
        """
        key = keys[0]
        seen = self._stamp(key)
        for each in keys:
            if (found := self.use_kept(each, use, _ANEW)) is not None:
                return found
        with self._alone(key, progress):
            # Another process may have written it between the look and the lock.
            if self._stamp(key) != seen and (found := self.use_kept(key, use, _ANEW)) is not None:
                return found
            started = time.monotonic()
            engine = build()
            digest = hashlib.sha256(engine).hexdigest()
            self._keep(key, engine, digest, time.monotonic() - started)
        return use(engine, self.engine_path(key), digest)

    def _stamp(self, key: CacheKey) -> tuple[int, int] | None:
        """Another one once the engine was written again; None if there is none."""
        try:
            status = self.description_path(key).stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def use_kept(
        self, key: CacheKey, use: Callable[[bytes, Path, str], _Opened], otherwise: str
    ) -> _Opened | None:
        """An engine from the folder; None, and a warning if it is unusable, where there is none.

        Args:
            key: of the engine.
            use: see `obtain`.
            otherwise: what is done about an unusable one, or is to be done, for the warning.

        Raises:
            EngineError: from ``use``, but for UnusableEngineError.
        """
        path = self.engine_path(key)
        try:
            kept = self._load(key)
            return None if kept is None else use(kept[0], path, kept[1])
        except UnusableEngineError as error:
            _logger.warning("engine: %s cannot be used: %s; %s", path, error, otherwise)
            return None

    def others(self, key: CacheKey) -> list[str]:
        """The engines under other keys, and in what they differ: ``X.engine (gpu Thor, not Orin)``.

        Empty if there is one under this key, usable or not.
        """
        if self.engine_path(key).exists() or self.description_path(key).exists():
            return []
        return [
            f"{path.name} ({_difference(path.with_suffix('.json'), key)})"
            for path in sorted(self._folder.glob("*.engine"))
        ]

    def _load(self, key: CacheKey) -> tuple[bytes, str] | None:
        """The engine and its SHA-256; None if there is none.

        Raises:
            UnusableEngineError: if there is one, but not as it was written.
        """
        try:
            described = json.loads(self.description_path(key).read_text(encoding="utf-8"))
            same_key = described["key"] == key.document
            size, digest = int(described["size"]), str(described["sha256"])
        except FileNotFoundError:
            if self.engine_path(key).exists():
                raise UnusableEngineError("its writing was cut off") from None
            return None
        except NotADirectoryError:
            raise UnusableEngineError(f"{self._folder} is no folder") from None
        except OSError as error:
            raise UnusableEngineError(f"no description ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UnusableEngineError(f"its description is damaged ({error!r})") from error
        if not same_key:
            raise UnusableEngineError("it is described as of another key")
        try:
            engine = self.engine_path(key).read_bytes()
        except OSError as error:
            raise UnusableEngineError(f"it cannot be read ({error.strerror})") from error
        if len(engine) != size:
            raise UnusableEngineError(f"it has {len(engine)} bytes, expected {size}")
        if hashlib.sha256(engine).hexdigest() != digest:
            raise UnusableEngineError("its SHA-256 is not that of its description")
        return engine, digest

    def _keep(self, key: CacheKey, engine: bytes, digest: str, seconds: float) -> None:
        description = {
            "key": key.document,
            "built": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "build_seconds": round(seconds, 1),
            "size": len(engine),
            "sha256": digest,
        }
        try:
            # An older description would not fit the new engine, if this were cut off between.
            self.description_path(key).unlink(missing_ok=True)
            with written_whole(self.engine_path(key)) as file:
                file.write(engine)
            with written_whole(self.description_path(key)) as file:
                file.write(f"{json.dumps(description, indent=1)}\n".encode())
            _sync(self._folder)
        except OSError as error:
            _logger.warning(
                "engine: %s cannot be written (%s); the next start builds it again",
                self.engine_path(key),
                error.strerror,
            )
        else:
            _logger.info("engine: kept as %s", self.engine_path(key))

    @contextlib.contextmanager
    def _alone(self, key: CacheKey, progress: Progress | None) -> Iterator[None]:
        """Hold the lock of a key, where there can be one.

        The system lets go of it when a process ends, however it ends. The file stays: another
        process may be about to lock it.
        """
        path = self._folder / f"{key.digest}.lock"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = path.open("w")
        except OSError as error:
            _logger.warning(
                "engine: %s cannot be written (%s); building for this run alone",
                self._folder,
                error.strerror,
            )
            yield
            return
        with file:
            if _wait_for_lock(file.fileno(), path, progress):
                self._sweep(key)
            yield

    def _sweep(self, key: CacheKey) -> None:
        """Remove what a killed builder of this key was writing, as far as it is ours to remove."""
        for final in (self.engine_path(key), self.description_path(key)):
            for path in self._folder.glob(f".{final.name}.*"):
                with contextlib.suppress(OSError):
                    path.unlink()


def _difference(description: Path, key: CacheKey) -> str:
    """In what an engine differs from a key, for people."""
    try:
        told = dict(json.loads(description.read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return "its description cannot be read"
    return ", ".join(
        f"{name} {_brief(name, told.get(name))}, not {_brief(name, wanted)}"
        for name, wanted in key.document.items()
        if told.get(name) != wanted
    )


def _brief(part: str, value: object) -> str:
    return str(value)[:12] if part in {"graph", "plugin"} else str(value)  # digests


def _wait_for_lock(descriptor: int, path: Path, progress: Progress | None) -> bool:
    """Lock a file once no other process does; False where the file system has no locks."""
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        except OSError as error:  # ENOLCK or EOPNOTSUPP, of network file systems
            _logger.warning(
                "engine: %s cannot be locked (%s); other processes may build the same engine",
                path,
                error.strerror,
            )
            return False
        else:
            return True
        if not told:
            _logger.info("engine: another process builds %s, waiting for it", path.stem)
            told = True
        if progress is not None:
            progress("waiting for another process that builds it", 0.0)
        time.sleep(_LOOK_EVERY_S)


def _sync(folder: Path) -> None:
    """Let the names in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
