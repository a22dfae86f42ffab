"""Frame sets as a folder of pictures: what training reads, and the player plays."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from mmfusion_ros.core.camera_info import PLUMB_BOB, CameraInfo
from mmfusion_ros.core.errors import ImageError, MmfusionError
from mmfusion_ros.core.frames import Frame, FrameSet, Modality
from mmfusion_ros.core.image_folder import Size, resized
from mmfusion_ros.core.images import decode, to_encoding

_MAX_COUNT = np.iinfo(np.uint16).max


def write_scenes(
    sets: Iterable[FrameSet],
    folder: Path,
    modalities: Iterable[Modality],
    cameras: Mapping[Modality, CameraInfo],
) -> Iterator[str | None]:
    """Write sets as they are asked for, named after their RGB stamps in nanoseconds.

    Into ``rgb``, ``depth`` (16 bit, millimetres, 0 = unknown) and ``thermal`` go PNG files, all in
    the size of the RGB picture; ``stamps.csv`` and ``cameras.yaml`` beside them.

    Args:
        sets: of one recording.
        folder: made with the first set if it is missing; must be empty.
        modalities: cameras that a set must have to be written.
        cameras: what is known of them.

    Yields:
        None for a set that was written, else why it was not.

    Raises:
        MmfusionError: if the folder holds something, or a picture cannot be written.
        OSError: if another file cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MmfusionError(f"--out {folder} is not empty; expected a new or empty folder")
    wanted = [modality for modality in Modality if modality in set(modalities)]
    size: Size | None = None
    with ExitStack() as files:
        table = None
        for frames in sets:
            try:
                found = _frames(frames, wanted)
                pixels = {m: _pixels(frame, size) for m, frame in found.items()}
                size = size or pixels[Modality.RGB].shape[:2]
                pixels = {m: resized(picture, m, size) for m, picture in pixels.items()}
            except ImageError as error:
                yield str(error)
                continue
            if table is None:  # not before: what came to nothing is to leave nothing behind
                table = _begin(folder, wanted, files)
            for modality, picture in pixels.items():
                _write(folder / modality / f"{frames.stamp_ns}.png", picture)
            table.writerow([frames.stamp_ns, *(found[m].stamp_ns for m in wanted)])
            yield None
    if size is not None and cameras:
        (folder / "cameras.yaml").write_text(_cameras_yaml(cameras, size))


def _begin(folder: Path, wanted: Iterable[Modality], files: ExitStack) -> Any:
    """Make the folders; returns the writer of the stamps."""
    for modality in wanted:
        (folder / modality).mkdir(parents=True, exist_ok=True)
    file = files.enter_context((folder / "stamps.csv").open("w", newline=""))
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["stem", *(f"{modality}_ns" for modality in wanted)])
    return table


def _frames(frames: FrameSet, wanted: Iterable[Modality]) -> dict[Modality, Frame]:
    found = {Modality.RGB: frames.rgb}
    for modality in wanted:
        if modality is not Modality.RGB:
            companion = frames.companion(modality)
            if companion.frame is None:
                raise ImageError(f"{modality} is {companion.absence}")
            found[modality] = companion.frame
    return found


def _pixels(frame: Frame, size: Size | None) -> NDArray[Any]:
    """A picture as its file has it: BGR, or 8 or 16-bit grey."""
    if frame.modality is Modality.RGB:
        pixels = to_encoding(frame.image, "rgb8")[..., ::-1]
        if size is not None and pixels.shape[:2] != size:
            raise ImageError("rgb is of another size than the first picture")
        return pixels
    pixels, encoding = decode(frame.image)
    if frame.modality is Modality.DEPTH and encoding == "32FC1":
        millimetres = np.nan_to_num(pixels.astype(np.float64) * 1000, posinf=0, neginf=0)
        unknown = (millimetres < 0) | (millimetres > _MAX_COUNT)
        return np.where(unknown, 0, np.rint(millimetres)).astype(np.uint16)
    sixteen_bit = pixels.ndim == 2 and pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2
    if sixteen_bit:
        return pixels.astype(np.uint16, copy=False)  # of this machine's byte order
    if frame.modality is Modality.THERMAL and pixels.ndim == 2 and pixels.dtype == np.uint8:
        return pixels
    expected = "16UC1, mono16 or 32FC1"
    if frame.modality is Modality.THERMAL:
        expected = "mono16, 16UC1, mono8 or 8UC1, as of the node: colours are no temperatures"
    raise ImageError(
        f"{frame.modality} has the encoding {encoding}, which is not written; expected {expected}"
    )


def _write(path: Path, pixels: NDArray[Any]) -> None:
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise MmfusionError(f"{path} cannot be encoded")
    data.tofile(path)


def _cameras_yaml(cameras: Mapping[Modality, CameraInfo], size: Size) -> str:
    height, width = size
    content: dict[str, dict[str, Any]] = {}
    for modality, info in cameras.items():
        k, d = list(info.scaled(width, height).k), list(info.d)
        entry = content[str(modality)] = {"width": width, "height": height, "K": k, "D": d}
        if info.distortion_model != PLUMB_BOB:
            entry["distortion_model"] = info.distortion_model
    text: str = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
    return text
