"""What surfaces look like, and how warm they are.

A `Pattern` gives each surface point a weight in 0..1; a `Mix` blends two values by it. The values
may be colours, temperatures, or mixes again, so one small language serves both cameras.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mmfusion.synthetic.geometry import Array

_TABLE = 512  # texels per side of the noise table
_TEXELS_PER_UNIT = 16


@dataclass(frozen=True)
class Surface:
    """Surface points as textures see them.

    Attributes:
        points: ``(n, 3)`` positions in the solid's own frame, metres.
        uv: ``(n, 2)`` the two coordinates along the face, metres.
        footprint: ``(n,)`` width of a pixel on the surface, metres; finer detail fades out.
    """

    points: Array
    uv: Array
    footprint: Array

    @classmethod
    def of(cls, points: Array, normals: Array, footprint: Array) -> Surface:
        """Project points along the axis their normal is closest to (all in the local frame)."""
        axis = np.argmax(np.abs(normals), axis=-1)[:, None]
        u = np.where(axis == 0, points[:, 1:2], points[:, 0:1])
        v = np.where(axis == 2, points[:, 1:2], points[:, 2:3])
        return cls(points, np.concatenate([u, v], axis=1), footprint)

    def fade(self, size: float) -> Array:
        """How much of a detail of ``size`` metres survives the pixel's width, ``(n,)`` 0..1."""
        return np.asarray(1.0 / (1.0 + np.square(self.footprint / (0.7 * size))))


@lru_cache(maxsize=1)
def _noise_table() -> Array:
    """Periodic cloud-like noise, ``(512, 512)``, values 0..1 evenly spread."""
    rng = np.random.Generator(np.random.PCG64(20240229))
    spectrum = np.fft.rfft2(rng.standard_normal((_TABLE, _TABLE)))
    fy = np.fft.fftfreq(_TABLE)[:, None] * _TABLE
    fx = np.fft.rfftfreq(_TABLE)[None, :] * _TABLE
    frequency = np.hypot(fy, fx)
    lowest = _TABLE / _TEXELS_PER_UNIT  # one wave per unit length
    spectrum *= 1.0 / (lowest**2 + frequency**2) ** 0.7
    field = np.fft.irfft2(spectrum, s=(_TABLE, _TABLE))
    field = (field - field.mean()) / field.std()
    return np.asarray(1.0 / (1.0 + np.exp(-1.7 * field)), np.float64)


def cloud_noise(u: Array, v: Array) -> Array:
    """Smooth noise at ``(n,)`` coordinates; features about one unit wide, values in 0..1."""
    table = _noise_table()
    x, y = u * _TEXELS_PER_UNIT, v * _TEXELS_PER_UNIT
    x0, y0 = np.floor(x), np.floor(y)
    wx, wy = x - x0, y - y0
    column, row = x0.astype(np.int64) & (_TABLE - 1), y0.astype(np.int64) & (_TABLE - 1)
    right, below = (column + 1) & (_TABLE - 1), (row + 1) & (_TABLE - 1)
    top = table[row, column] * (1.0 - wx) + table[row, right] * wx
    bottom = table[below, column] * (1.0 - wx) + table[below, right] * wx
    return np.asarray(top * (1.0 - wy) + bottom * wy)


def _scatter(first: Array, second: Array) -> Array:
    """A repeatable random number in 0..1 for each pair of whole numbers."""
    mixed = first.astype(np.int64) * 73856093 ^ second.astype(np.int64) * 19349663
    return np.asarray(((mixed * 2654435761 >> 15) & 0xFFFF) / 65535.0, np.float64)


class Pattern(ABC):
    """A weight for each surface point."""

    @abstractmethod
    def weight(self, surface: Surface) -> Array:
        """Weights ``(n,)`` in 0..1."""


@dataclass(frozen=True)
class Noise(Pattern):
    """Cloudy noise with features of ``scale`` metres; ``contrast`` sharpens it."""

    scale: float
    contrast: float = 1.0
    seed: int = 0

    def weight(self, surface: Surface) -> Array:
        """See `Pattern.weight`."""
        # The third coordinate shifts the pattern, so that faces of one solid differ.
        u, v = surface.uv[:, 0] / self.scale, surface.uv[:, 1] / self.scale
        raw = cloud_noise(u + 7.31 * self.seed, v + 3.77 * self.seed) - 0.5
        return np.clip(0.5 + raw * self.contrast * surface.fade(self.scale), 0.0, 1.0)


@dataclass(frozen=True)
class Checker(Pattern):
    """A chessboard of square fields, one where both indices have the same parity."""

    size: float
    phase: tuple[float, float] = (0.0, 0.0)

    def weight(self, surface: Surface) -> Array:
        """See `Pattern.weight`."""
        field = (surface.uv - np.asarray(self.phase)) / self.size
        index = np.floor(field)
        edge = np.minimum(field - index, index + 1.0 - field) * self.size
        # The mean over a pixel's width, axis by axis, so that corners keep their places.
        soft = np.clip(2.0 * edge / np.maximum(surface.footprint, 1e-9)[:, None], 0.0, 1.0)
        sign = 1.0 - 2.0 * (index.astype(np.int64) & 1)
        wave = (sign * soft).prod(axis=1)
        return np.asarray(0.5 + 0.5 * wave * surface.fade(self.size))


@dataclass(frozen=True)
class Bricks(Pattern):
    """Courses of stones, every other one shifted by half: 0 in the joint, tinted by stone."""

    length: float = 0.24
    height: float = 0.08
    joint: float = 0.012
    tint: float = 0.5

    def weight(self, surface: Surface) -> Array:
        """See `Pattern.weight`."""
        course = np.floor(surface.uv[:, 1] / self.height)
        shifted = surface.uv[:, 0] / self.length + 0.5 * (course.astype(np.int64) & 1)
        stone = np.floor(shifted)
        x = np.abs(shifted - stone - 0.5) * self.length
        y = np.abs(surface.uv[:, 1] / self.height - course - 0.5) * self.height
        inset = np.minimum(self.length / 2.0 - x, self.height / 2.0 - y) - self.joint / 2.0
        # The edge is as soft as the pixel is wide; far away only the mean colour is left.
        inside = np.clip(0.5 + inset / np.maximum(surface.footprint, 1e-3), 0.0, 1.0)
        tinted = inside * (1.0 - self.tint * _scatter(stone, course))
        mean = (1.0 - self.joint / self.length) * (1.0 - self.joint / self.height)
        mean *= 1.0 - self.tint / 2.0
        return np.asarray(mean + (tinted - mean) * surface.fade(self.height), np.float64)


@dataclass(frozen=True)
class Band(Pattern):
    """One between two values of a local coordinate, soft at both edges."""

    axis: int
    start: float
    stop: float
    soft: float = 0.05
    wobble: float = 0.0

    def weight(self, surface: Surface) -> Array:
        """See `Pattern.weight`."""
        x = surface.points[:, self.axis]
        if self.wobble > 0.0:
            x = x + self.wobble * (cloud_noise(surface.uv[:, 0], surface.uv[:, 1]) - 0.5)
        half = np.minimum(x - self.start, self.stop - x) / np.maximum(self.soft, surface.footprint)
        return np.asarray(np.clip(0.5 + half, 0.0, 1.0))


@dataclass(frozen=True)
class Spot(Pattern):
    """A soft round spot: one at ``center`` (local), falling like a bell with ``radius``."""

    center: tuple[float, float, float]
    radius: float

    def weight(self, surface: Surface) -> Array:
        """See `Pattern.weight`."""
        squared = np.square(surface.points - np.asarray(self.center)).sum(axis=1)
        return np.asarray(np.exp(-squared / self.radius**2))


@dataclass(frozen=True)
class Circles(Pattern):
    """Discs on a square grid with one at the local origin of ``phase``: a circle-grid target."""

    pitch: float
    radius: float
    phase: tuple[float, float] = (0.0, 0.0)

    def weight(self, surface: Surface) -> Array:
        """See `Pattern.weight`."""
        cell = (surface.uv - np.asarray(self.phase)) / self.pitch
        away = np.linalg.norm((cell - np.rint(cell)) * self.pitch, axis=1)
        soft = np.maximum(surface.footprint, 1e-6)
        return np.asarray(np.clip(0.5 + (self.radius - away) / soft, 0.0, 1.0))


@dataclass(frozen=True)
class Within(Pattern):
    """Another pattern inside a rectangle of the face, zero outside."""

    inner: Pattern
    low: tuple[float, float]
    high: tuple[float, float]

    def weight(self, surface: Surface) -> Array:
        """See `Pattern.weight`."""
        inside = (surface.uv >= np.asarray(self.low)) & (surface.uv <= np.asarray(self.high))
        return np.where(inside.all(axis=1), self.inner.weight(surface), 0.0)


@dataclass(frozen=True)
class Mix:
    """``low`` where the pattern is 0, ``high`` where it is 1, blends between."""

    pattern: Pattern
    low: Value
    high: Value


Value = float | tuple[float, float, float] | Mix
"""A temperature in kelvin, a linear RGB colour, or a mix of them."""


def evaluate(value: Value, surface: Surface, channels: int) -> Array:
    """A value at surface points, ``(n, channels)``."""
    if isinstance(value, Mix):
        weight = value.pattern.weight(surface)[:, None]
        low = evaluate(value.low, surface, channels)
        return low + weight * (evaluate(value.high, surface, channels) - low)
    return np.broadcast_to(np.asarray(value, np.float64), (len(surface.footprint), channels))


@dataclass(frozen=True)
class Material:
    """How a surface answers light and how it radiates.

    Attributes:
        albedo: linear RGB reflectance 0..1.
        temperature: kelvin.
        emissivity: thermal emissivity 0..1; the rest mirrors the thermal surroundings.
        gloss: share 0..1 of a mirror-like top coat.
        glow: linear RGB light of its own; a glowing part casts no shadow.
        solar_gain: kelvin added where the sun of the scene stands square on the surface.
        cutout: leaves: where this pattern is below one half, the surface has a hole.
    """

    albedo: Value = (0.5, 0.5, 0.5)
    temperature: Value = 287.0
    emissivity: float = 0.95
    gloss: float = 0.0
    glow: tuple[float, float, float] | None = None
    solar_gain: float = 0.0
    cutout: Pattern | None = None
