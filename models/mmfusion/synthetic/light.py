"""The light of a scene: sun, sky and lamps, by day, dusk and night. Linear RGB throughout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmfusion.synthetic.geometry import Array
from mmfusion.synthetic.materials import cloud_noise

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Lamp:
    """A point light; with a ``direction`` it is a spot of half angle ``opening`` (radians).

    Its light ends softly at ``reach`` metres.
    """

    position: Color
    color: Color
    direction: Color | None = None
    opening: float = 0.5
    shadows: bool = True
    reach: float = 15.0


@dataclass(frozen=True)
class Illumination:
    """Everything that shines, visible and thermal.

    Attributes:
        sun: direction towards the sun, need not be a unit vector.
        sun_color: irradiance square to the sun.
        zenith: sky radiance overhead.
        horizon: sky radiance low down.
        ambient: how strongly the sky lights surfaces, 1 = all of it.
        clouds: share of cloud streaks 0..1.
        exposure: factor before the tone curve.
        noise: standard deviation of the RGB sensor noise at mid grey, in grey levels.
        lamps_on: whether street lamps and headlights burn.
        solar_heat: 0..1, how much of their solar gain surfaces still hold.
        air_temperature: kelvin.
        sky_temperature: kelvin, the radiative temperature overhead.
    """

    sun: Color
    sun_color: Color
    zenith: Color
    horizon: Color
    ambient: float = 1.0
    clouds: float = 0.4
    exposure: float = 1.0
    noise: float = 1.0
    lamps_on: bool = False
    solar_heat: float = 1.0
    air_temperature: float = 285.0
    sky_temperature: float = 252.0

    @property
    def sun_direction(self) -> Array:
        """Unit vector ``(3,)`` towards the sun."""
        sun = np.asarray(self.sun, np.float64)
        return np.asarray(sun / np.linalg.norm(sun))

    def sky(self, directions: Array) -> Array:
        """Sky radiance ``(n, 3)`` in unit directions ``(n, 3)``; below the horizon as on it."""
        rise = np.clip(directions[:, 2], 0.0, 1.0)
        low, high = np.asarray(self.horizon), np.asarray(self.zenith)
        color = low + (1.0 - (1.0 - rise) ** 3)[:, None] * (high - low)
        if self.clouds > 0.0:
            # Flat layer seen in perspective; streaks merge into haze towards the horizon.
            flat = directions[:, :2] / (rise + 0.12)[:, None]
            streak = cloud_noise(0.9 * flat[:, 0] + 3.1, 0.5 * flat[:, 1] + 8.7)
            cover = np.clip(2.2 * (streak - 0.5), 0.0, 1.0) * self.clouds
            cover *= np.clip(rise * 8.0, 0.0, 1.0)
            lit = 1.25 * low + 0.02 * np.asarray(self.sun_color)
            color = color + cover[:, None] * (lit - color)
        glow = np.clip(directions @ self.sun_direction, 0.0, 1.0)
        halo = 0.06 * glow**8 + 0.25 * glow**96
        return np.asarray(color + halo[:, None] * np.asarray(self.sun_color))

    def thermal_sky(self, rise: Array) -> Array:
        """Radiative sky temperature in kelvin for the z of a direction; warmer when low."""
        share = np.sqrt(np.clip(rise, 0.0, 1.0))
        near_air = self.air_temperature - 6.0
        return np.asarray(near_air + share * (self.sky_temperature - near_air))


DAY = Illumination(
    sun=(-0.55, 0.45, 0.75),
    sun_color=(2.6, 2.4, 2.1),
    zenith=(0.16, 0.33, 0.72),
    horizon=(0.62, 0.74, 0.9),
    exposure=0.95,
    noise=1.2,
    air_temperature=290.0,
)
DUSK = Illumination(
    sun=(0.9, 0.75, 0.12),
    sun_color=(0.42, 0.2, 0.08),
    zenith=(0.035, 0.055, 0.13),
    horizon=(0.34, 0.2, 0.15),
    ambient=0.85,
    clouds=0.6,
    exposure=2.2,
    noise=3.0,
    lamps_on=True,
    solar_heat=0.35,
    air_temperature=284.0,
)
NIGHT = Illumination(
    sun=(-0.5, -0.6, 0.6),
    sun_color=(0.006, 0.007, 0.01),
    zenith=(0.001, 0.0015, 0.003),
    horizon=(0.008, 0.007, 0.008),
    clouds=0.2,
    exposure=3.0,
    noise=6.0,
    lamps_on=True,
    solar_heat=0.08,
    air_temperature=279.0,
    sky_temperature=240.0,
)
ILLUMINATIONS = {"day": DAY, "dusk": DUSK, "night": NIGHT}
