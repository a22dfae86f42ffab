"""Pictures with known bytes: sine waves under noise, drawn from a name and a seed."""

import zlib

import numpy as np


def waves(name: str, channels: int, height: int, width: int, seed: int = 1) -> np.ndarray:
    """float32 (channels, height, width) in [0, 1]; equal on every machine."""
    source = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:{name}".encode())))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    planes = np.empty((channels, height, width), np.float32)
    for channel in range(channels):
        # Python floats, so that float32 arrays stay float32 under numpy 1 and 2 alike.
        down, across = source.uniform(0.01, 0.2, 2).tolist()
        shift = source.uniform(0, 6.28)
        wave = 0.5 + 0.35 * np.sin(down * rows + across * columns + shift)
        planes[channel] = wave + 0.1 * source.standard_normal((height, width))
    return np.clip(planes, 0.0, 1.0)


def grey(name: str, height: int = 240, width: int = 320) -> np.ndarray:
    """uint8 (height, width)."""
    return np.rint(255.0 * waves(name, 1, height, width)[0]).astype(np.uint8)


def colour(name: str, height: int = 240, width: int = 320) -> np.ndarray:
    """uint8 (height, width, 3)."""
    planes = np.rint(255.0 * waves(name, 3, height, width)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1))
