"""Folders of images taken as the recordings of the three cameras."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from mmfusion_ros.core.camera_info import PLUMB_BOB, CameraInfo, plain_camera_info
from mmfusion_ros.core.errors import ImageError
from mmfusion_ros.core.frames import Modality

_FOLDERS = {
    Modality.RGB: ("rgb", "visible", "vi"),
    Modality.DEPTH: ("depth",),
    Modality.THERMAL: ("thermal", "infrared", "ir"),
}
_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"})
DEFAULT_PERIOD_NS = 33_333_333

Size = tuple[int, int]


@dataclass(frozen=True)
class Shot:
    """What the cameras took at one instant.

    Attributes:
        stem: file name without suffix, the same for all cameras.
        paths: image by camera; depth or thermal may lack.
        stamps_ns: stamp by camera, on the recording's own clock.
    """

    stem: str
    paths: Mapping[Modality, Path]
    stamps_ns: Mapping[Modality, int]


@dataclass(frozen=True)
class ImageFolder:
    """A recording: its shots in order.

    Attributes:
        folder: where it lies.
        shots: in the order of their RGB stamps.
        cameras: by modality; empty without ``cameras.yaml``.
        period_ns: median time from one shot to the next.
    """

    folder: Path
    shots: tuple[Shot, ...]
    cameras: Mapping[Modality, CameraInfo]
    period_ns: int

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Cameras that took at least one image."""
        return tuple(m for m in Modality if any(m in shot.paths for shot in self.shots))


def open_image_folder(folder: Path, period_ns: int = DEFAULT_PERIOD_NS) -> ImageFolder:
    """List a folder of images.

    It holds ``rgb`` (or ``visible``, ``vi``) and, as far as there are, ``depth`` and ``thermal``
    (or ``infrared``, ``ir``), with files matched by stem; optionally ``stamps.csv`` with the
    columns stem, rgb_ns, depth_ns, thermal_ns, and ``cameras.yaml`` with width, height, K, D and,
    where it is not plumb_bob, distortion_model of each camera.

    Args:
        folder: to read.
        period_ns: time between shots where no ``stamps.csv`` tells it.

    Raises:
        ImageError: if a folder is missing or empty, or one of the two files is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; expected one with rgb, depth and thermal in it")
    files = {modality: _images_of(folder, modality) for modality in Modality}
    if not files[Modality.RGB]:
        raise ImageError(
            f"{folder} has no images in {', '.join(_FOLDERS[Modality.RGB])}; expected PNG, JPEG, "
            "TIFF or BMP files in one of these folders"
        )
    stamps = _read_stamps(folder / "stamps.csv")
    shots = []
    for index, stem in enumerate(sorted(files[Modality.RGB])):
        paths = {m: by_stem[stem] for m, by_stem in files.items() if stem in by_stem}
        if stamps and stem not in stamps:
            raise ImageError(f"{folder / 'stamps.csv'} has no row for {stem}; add it or the file")
        times = stamps.get(stem, dict.fromkeys(Modality, index * period_ns))
        shots.append(Shot(stem, paths, times))
    shots.sort(key=lambda shot: shot.stamps_ns[Modality.RGB])
    if len(shots) > 1:
        times_ns = [shot.stamps_ns[Modality.RGB] for shot in shots]
        period_ns = int(np.median(np.diff(times_ns))) or period_ns
    return ImageFolder(folder, tuple(shots), _read_cameras(folder / "cameras.yaml"), period_ns)


def read_shot_image(
    path: Path, modality: Modality, size: Size | None = None
) -> tuple[NDArray[Any], str]:
    """Read one image as its camera would send it.

    Args:
        path: image file.
        modality: RGB gives rgb8 (grey pictures too); depth 16UC1, millimetres; thermal mono16,
            or mono8 for 8-bit files.
        size: (height, width) to resize to; None to leave it.

    Returns:
        (array, encoding), C-contiguous.

    Raises:
        ImageError: if the file cannot be read as such an image.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ImageError(f"{path} cannot be read as an image; it may be damaged")
    if modality is Modality.RGB:
        pixels, encoding = _as_rgb(pixels, path), "rgb8"
    else:
        pixels, encoding = _as_single_channel(pixels, path, modality)
    return resized(pixels, modality, size), encoding


def resized(pixels: NDArray[Any], modality: Modality, size: Size | None) -> NDArray[Any]:
    """A picture in another size, C-contiguous.

    Args:
        pixels: in this machine's byte order.
        modality: of its camera.
        size: (height, width); None to leave it.
    """
    if size is not None and pixels.shape[:2] != size:
        # Depth must not be mixed across edges: that would make up surfaces in mid-air.
        method = cv2.INTER_NEAREST if modality is Modality.DEPTH else cv2.INTER_AREA
        pixels = cv2.resize(pixels, (size[1], size[0]), interpolation=method)
    return np.ascontiguousarray(pixels)


def _images_of(folder: Path, modality: Modality) -> dict[str, Path]:
    for name in _FOLDERS[modality]:
        if (folder / name).is_dir():
            paths = (folder / name).iterdir()
            return {path.stem: path for path in paths if path.suffix.lower() in _SUFFIXES}
    return {}


def _as_rgb(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    if pixels.dtype != np.uint8:
        raise ImageError(
            f"{path} has {pixels.dtype} pixels; expected an 8-bit colour or grey image"
        )
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    code = cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(pixels, code)


def _as_single_channel(
    pixels: NDArray[Any], path: Path, modality: Modality
) -> tuple[NDArray[Any], str]:
    if pixels.ndim == 3 and pixels.dtype == np.uint8 and modality is Modality.THERMAL:
        pixels = cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2GRAY)  # grey stored as colour
    if pixels.ndim == 2 and pixels.dtype == np.uint16:
        return pixels, "16UC1" if modality is Modality.DEPTH else "mono16"
    if pixels.ndim == 2 and pixels.dtype == np.uint8 and modality is Modality.THERMAL:
        return pixels, "mono8"
    expected = "16-bit grey (millimetres)" if modality is Modality.DEPTH else "8 or 16-bit grey"
    raise ImageError(f"{path} is {pixels.dtype} {pixels.shape}; expected a {expected} image")


def _read_stamps(path: Path) -> dict[str, dict[Modality, int]]:
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        stamps = {row["stem"]: {m: _stamp(row, m) for m in Modality} for row in rows}
        if not stamps:
            raise ValueError("it has no rows")  # noqa: TRY301 (one message for all)
    except (KeyError, ValueError, TypeError) as error:
        raise ImageError(
            f"{path} is malformed ({error!r}); expected the columns stem, rgb_ns, depth_ns and "
            "thermal_ns with whole nanoseconds"
        ) from error
    return stamps


def _stamp(row: Mapping[str, str], modality: Modality) -> int:
    short, long = f"{modality}_ns", f"{modality}_stamp_ns"
    # A recording without depth need not make up stamps for it.
    return int(row.get(short) or row.get(long) or row.get("rgb_ns") or row["rgb_stamp_ns"])


def _read_cameras(path: Path) -> dict[Modality, CameraInfo]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text())
        return {Modality(name): _camera(entry) for name, entry in content.items()}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"{path} is malformed ({error!r}); expected width, height, K, D and perhaps the name "
            "of a distortion_model for each of rgb, depth and thermal"
        ) from error


def _camera(entry: Mapping[str, Any]) -> CameraInfo:
    model = entry.get("distortion_model", PLUMB_BOB)
    if not isinstance(model, str):
        raise TypeError(f"distortion_model is {model!r}")
    return plain_camera_info(
        int(entry["width"]),
        int(entry["height"]),
        k=tuple(map(float, entry["K"])),
        d=tuple(map(float, entry["D"])),
        distortion_model=model,
    )
