"""Graph inputs of a few recorded frames: what reduced precision is compared on."""

from __future__ import annotations

import hashlib
import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion_ros.core.artifact import Artifact
from mmfusion_ros.core.atomic_file import written_whole
from mmfusion_ros.core.errors import EngineError

_ABOUT = "about"  # beside the inputs; a graph whose input has that name does not exist
_HOW = "write one with 'ros2 run mmfusion_ros sample_frames BAG --artifact ARTIFACT --out FILE'"
# All that reading a file that is damaged, or another, can raise.
_DAMAGE = (
    *(OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile),
    *(KeyError, TypeError, AttributeError, NotImplementedError, tokenize.TokenError),
)


@dataclass(frozen=True, eq=False)
class SampleFrames:
    """Inputs of some frames, as the pipeline packs them.

    Attributes:
        inputs: by name, (frames, *shape of the input).
        digest: SHA-256 of the inputs; names what was measured on them.
    """

    inputs: Mapping[str, NDArray[Any]]
    digest: str

    @classmethod
    def of(cls, frames: Sequence[Mapping[str, NDArray[Any]]]) -> SampleFrames:
        """Put frames together, at least one; they are copied."""
        inputs = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
        return cls(inputs, _digest(inputs))

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        """The inputs of each frame."""
        for number in range(len(self)):
            # 0-d arrays included: a plain index would make numbers of them.
            yield {name: array[number, ...] for name, array in self.inputs.items()}


def write_sample_frames(path: Path, artifact: Artifact, samples: SampleFrames) -> None:
    """Write a ``.npz`` file, which is there whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    about = np.array(json.dumps(_about(artifact)))
    # Any: newer NumPy has a keyword of its own, which must not be given to an older one.
    arrays: dict[str, Any] = {_ABOUT: about, **samples.inputs}
    with written_whole(path) as file:
        np.savez_compressed(file, **arrays)


def read_sample_frames(path: Path, artifact: Artifact) -> SampleFrames:
    """Read what `write_sample_frames` wrote.

    Raises:
        EngineError: if the file is missing, damaged or of an artifact with other inputs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        # NumPy hands out what does not begin as an array as the bytes that it found.
        strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if strange:
            raise ValueError(f"{strange[0]} is no array")
        about = json.loads(str(arrays.pop(_ABOUT)))
        origin = str(about["artifact"])
    except FileNotFoundError as error:
        raise EngineError(f"there are no sample frames at {path}; {_HOW}") from error
    except _DAMAGE as error:
        raise EngineError(f"{path} is no file of sample frames ({error}); {_HOW}") from error
    difference = _difference(arrays, about, artifact)
    if difference:
        raise EngineError(
            f"the sample frames {path} are of artifact {origin}, not for {artifact.name}: "
            f"{difference}; {_HOW}"
        )
    return SampleFrames(arrays, _digest(arrays))


def _about(artifact: Artifact) -> dict[str, Any]:
    return {
        "artifact": artifact.name,
        "encodings": {str(key): value for key, value in artifact.encodings.items()},
        "rig_packing": list(artifact.rig_packing),
    }


def _difference(
    arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any], artifact: Artifact
) -> str:
    """What of the frames is not as the artifact takes it; empty if nothing."""
    if arrays.keys() != artifact.inputs.keys():
        return f"its inputs are {', '.join(artifact.inputs)}, the frames' {', '.join(arrays)}"
    counts = {len(array) if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        return "expected the same number of each input, at least one"
    for name, spec in artifact.inputs.items():
        array = arrays[name]
        if array.dtype != spec.dtype or array.shape[1:] != spec.shape:
            return (
                f"input {name} is {array.dtype} {list(array.shape[1:])}, expected {spec.dtype} "
                f"{list(spec.shape)}"
            )
    for key, expected in _about(artifact).items():
        if key != "artifact" and about.get(key) != expected:
            return f"{key} is {about.get(key)}, expected {expected}"
    return ""


def _digest(inputs: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(inputs):
        array = inputs[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
