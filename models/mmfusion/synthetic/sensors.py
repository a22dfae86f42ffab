"""What real sensors make of a perfect picture: noise, steps, holes. All seeded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmfusion.synthetic.geometry import Array


def generator(*seed: int) -> np.random.Generator:
    """A random source for whole numbers that name it, such as (seed, frame, sensor)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))


@dataclass(frozen=True)
class RgbSensor:
    """Gamma and noise of a colour camera.

    Attributes:
        gain: factor on the noise the scene's light asks for.
    """

    gain: float = 1.0

    def read(self, linear: Array, noise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
        """uint8 ``(h, w, 3)`` sRGB of linear 0..1; ``noise`` in grey levels at mid grey."""
        encoded = np.where(
            linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
        )
        levels = 255.0 * encoded
        grain = rng.standard_normal(levels.shape, np.float32)
        levels += self.gain * noise * (0.4 + 0.6 * np.sqrt(np.clip(encoded, 0, 1) / 0.5)) * grain
        return np.rint(np.clip(levels, 0.0, 255.0)).astype(np.uint8)


@dataclass(frozen=True)
class DepthSensor:
    """A stereo depth camera: depth comes in steps of disparity and has holes.

    Attributes:
        max_range: metres; beyond it there is no value.
        min_range: metres; nearer there is none either.
        focal_baseline: focal length times baseline, pixel metres.
        step: disparity step in pixels; 0 for exact depth.
        jitter: standard deviation of the disparity error, pixels.
        holes: chance of a lost pixel at depth edges and on glass.
    """

    max_range: float = 18.0
    min_range: float = 0.3
    focal_baseline: float = 47.0
    step: float = 1.0 / 32.0
    jitter: float = 0.015
    holes: float = 0.6

    def read(
        self, depth: Array, clear: Array, gloss: Array, rng: np.random.Generator
    ) -> NDArray[np.uint16]:
        """uint16 ``(h, w)`` millimetres, 0 where there is no value.

        Args:
            depth: true z in metres, inf for the sky.
            clear: share of light that passes smoke, 0..1.
            gloss: mirror share of the surface, 0..1.
            rng: random source.
        """
        known = (depth > self.min_range) & (depth < self.max_range) & (clear > 0.5)
        z = np.where(known, depth, 1.0)
        # Block matching shares its error among neighbours.
        error = rng.standard_normal(z.shape, np.float32)
        error = np.asarray(cv2.blur(error, (5, 5)) * 5.0, np.float32)
        if self.step > 0.0:
            disparity = self.focal_baseline / z + self.jitter * error
            disparity = np.maximum(np.rint(disparity / self.step), 1.0) * self.step
            z = self.focal_baseline / disparity
        edge = np.zeros(z.shape, bool)
        edge[:, 1:] |= np.abs(np.diff(z, axis=1)) > 0.06 * z[:, 1:]
        edge[1:] |= np.abs(np.diff(z, axis=0)) > 0.06 * z[1:]
        lost = rng.random(z.shape, np.float32) < self.holes
        known &= ~(lost & (edge | (gloss > 0.8)))
        return np.where(known, np.rint(1000.0 * z), 0.0).astype(np.uint16)


@dataclass(frozen=True)
class ThermalSensor:
    """An uncooled thermal camera that counts centikelvin.

    Attributes:
        blur: standard deviation of the lens blur, pixels.
        noise: standard deviation of the noise, kelvin.
        columns: standard deviation of a fixed column pattern, kelvin.
        drift: kelvin per second by which all counts wander.
    """

    blur: float = 0.6
    noise: float = 0.04
    columns: float = 0.03
    drift: float = 0.0

    def read(
        self,
        kelvin: Array,
        time_s: float,
        rng: np.random.Generator,
        fixed: np.random.Generator,
    ) -> NDArray[np.uint16]:
        """uint16 ``(h, w)`` counts, kelvin times 100.

        Args:
            kelvin: apparent temperature.
            time_s: time since the last shutter closing, for the drift.
            rng: random source of this frame.
            fixed: random source of the camera, the same for all frames.
        """
        if self.blur > 0.0:
            kelvin = np.asarray(cv2.GaussianBlur(kelvin, (0, 0), self.blur), np.float64)
        pattern = self.columns * fixed.standard_normal(kelvin.shape[1])
        grain = self.noise * rng.standard_normal(kelvin.shape)
        counts = np.rint(100.0 * (kelvin + pattern + grain + self.drift * time_s))
        return np.clip(counts, 0.0, 65535.0).astype(np.uint16)
