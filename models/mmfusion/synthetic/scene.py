"""What stands where, at one moment and over time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from mmfusion.synthetic.geometry import Array, Frame, Solid
    from mmfusion.synthetic.light import Illumination, Lamp
    from mmfusion.synthetic.materials import Material

BACKGROUND = ""


@dataclass(frozen=True, eq=False)
class Part:
    """One solid and what it is made of."""

    solid: Solid
    material: Material


@dataclass(frozen=True, eq=False)
class Thing:
    """An object of several parts.

    Attributes:
        parts: its solids.
        class_name: what a detector should call it; empty for what is mere background.
        frame: pose of its box in the world, origin in the middle of the box; None if background.
        size: full sides (length, width, height) of the box in metres.
        blockers: ``(n, 4)`` spheres (centre, radius) that darken the ground near the object.
    """

    parts: tuple[Part, ...]
    class_name: str = BACKGROUND
    frame: Frame | None = None
    size: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blockers: Array = field(default_factory=lambda: np.empty((0, 4)))

    @property
    def salient(self) -> bool:
        """Whether it counts as a salient object: everything that has a class."""
        return self.class_name != BACKGROUND


@dataclass(frozen=True, eq=False)
class Smoke:
    """A cloud that hides things from RGB and depth but hardly from thermal.

    Attributes:
        solid: its outline.
        density: extinction in 1/m for visible light.
        thermal_density: extinction in 1/m for thermal radiation.
        albedo: grey of the cloud under full sky light.
    """

    solid: Solid
    density: float = 1.2
    thermal_density: float = 0.05
    albedo: float = 0.75


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A scene at one moment. Instance ids are positions in ``things`` plus one; 0 is sky."""

    things: tuple[Thing, ...]
    light: Illumination
    lamps: tuple[Lamp, ...] = ()
    smoke: tuple[Smoke, ...] = ()


class Scene(Protocol):
    """Something that can be looked at over time."""

    def at(self, time_s: float) -> Snapshot:
        """The scene at a time; things keep their places in ``things``, hence their ids."""

    def viewpoint(self, time_s: float) -> Array:
        """``(4, 4)`` pose of the rig's body in the world at a time."""
