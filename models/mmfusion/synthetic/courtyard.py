"""Scenes as data: a courtyard with people and a car, and a warm calibration target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mmfusion.errors import DataError
from mmfusion.synthetic.actors import Outfit, car, crate, person, street_lamp, tree
from mmfusion.synthetic.camera import looking
from mmfusion.synthetic.geometry import Array, Ellipsoid, Frame, HalfSpace, box, prism, upright
from mmfusion.synthetic.light import DUSK, ILLUMINATIONS, Illumination, Lamp
from mmfusion.synthetic.materials import (
    Band,
    Bricks,
    Checker,
    Circles,
    Material,
    Mix,
    Noise,
    Spot,
    Within,
)
from mmfusion.synthetic.scene import Part, Smoke, Snapshot, Thing

if TYPE_CHECKING:
    from mmfusion.synthetic.scene import Scene


@dataclass(frozen=True)
class Walk:
    """Someone walking round a closed path on the ground.

    Attributes:
        corners: (x, y) of the path.
        speed: m/s; 0 stands at ``start`` and looks along the path.
        start: metres along the path at time 0.
    """

    corners: tuple[tuple[float, float], ...]
    speed: float
    start: float
    outfit: Outfit

    def at(self, time_s: float) -> Thing:
        """The person at a time."""
        distance = self.start + self.speed * time_s
        x, y = self._point(distance)
        # Looking from a little behind to a little ahead rounds the corners.
        back, ahead = self._point(distance - 0.35), self._point(distance + 0.35)
        heading = math.atan2(ahead[1] - back[1], ahead[0] - back[0])
        stride = min(1.0, self.speed / 1.3)
        phase = 2.0 * math.pi * distance / 1.45
        return person(upright(x, y, 0.0, heading), phase, self.outfit, stride)

    def _point(self, distance: float) -> tuple[float, float]:
        corners = np.asarray(self.corners, np.float64)
        lengths = np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)
        left = distance % float(lengths.sum())
        for i, length in enumerate(lengths):
            if left <= length:
                place = corners[i] + (corners[(i + 1) % len(corners)] - corners[i]) * left / length
                return float(place[0]), float(place[1])
            left -= float(length)
        return float(corners[0, 0]), float(corners[0, 1])


WALKERS = (
    # Brick-coloured clothes before the brick wall: hard to see by eye, easy for a thermal camera.
    Walk(
        ((14.6, -5.0), (14.6, 5.5), (13.4, 5.5), (13.4, -5.0)),
        1.25,
        2.0,
        Outfit((0.17, 0.07, 0.045), (0.1, 0.05, 0.04), height=1.82),
    ),
    Walk(
        ((13.0, 0.9), (4.2, 0.7), (4.2, 1.6), (13.0, 1.8)),
        1.3,
        1.2,
        Outfit((0.32, 0.04, 0.035), (0.03, 0.045, 0.1), height=1.68),
    ),
    Walk(
        ((8.6, 4.6), (7.6, -5.2), (6.9, -5.2), (7.6, 4.6)),
        1.35,
        1.6,
        Outfit((0.03, 0.05, 0.03), (0.05, 0.045, 0.04), height=1.76, backpack=(0.22, 0.13, 0.03)),
    ),
)


@dataclass(frozen=True)
class Courtyard:
    """A walled yard with trees, a lamp, crates, a slow car and three people.

    Attributes:
        light: day, dusk or night.
        smoke: whether a cloud of smoke hangs over part of the yard.
        walkers: the people.
    """

    light: Illumination = DUSK
    smoke: bool = False
    walkers: tuple[Walk, ...] = field(default=WALKERS)

    def viewpoint(self, time_s: float) -> Array:
        """A robot at the gate, rolling in slowly and looking around a little."""
        x = 0.6 * math.sin(0.2 * time_s)
        sway = 0.25 * math.sin(0.5 * time_s)
        return looking((x, -0.1, 1.35), (x + 10.0, 0.1 + sway, 1.0))

    def at(self, time_s: float) -> Snapshot:
        """See `mmfusion.synthetic.scene.Scene.at`."""
        moved = 0.9 * math.sin(0.35 * time_s) / 0.35
        heading = math.radians(157.0)
        place = upright(
            11.8 + moved * math.cos(heading), -4.6 + moved * math.sin(heading), 0.0, heading
        )
        moving = [walker.at(time_s) for walker in self.walkers]
        auto = car(place)
        lamps: tuple[Lamp, ...] = ()
        if self.light.lamps_on:
            forward = place.axes[:, 0]
            beam = (float(forward[0]), float(forward[1]), -0.06)
            spots = [place.place((2.1, side * 0.66, 0.6)) for side in (-1.0, 1.0)]
            lamps = (
                Lamp((6.6, 3.7, 3.45), (5.2, 3.9, 2.3)),
                *(
                    Lamp((float(p[0]), float(p[1]), float(p[2])), (9.0, 8.4, 7.2), beam, 0.42)
                    for p in spots
                ),
            )
        cloud: tuple[Smoke, ...] = ()
        if self.smoke:
            drift = Frame(np.array([10.5, 2.6 - 0.15 * time_s, 1.0]))
            cloud = (Smoke(Ellipsoid(drift, np.array([1.4, 2.3, 1.6]))),)
        return Snapshot((*moving, auto, *_still(self.light.lamps_on)), self.light, lamps, cloud)


@lru_cache(maxsize=2)
def _still(lit: bool) -> tuple[Thing, ...]:  # noqa: FBT001
    """What does not move."""
    return (
        _ground(),
        *_buildings(),
        tree(9.2, 6.4, 5.2, 11),
        tree(12.5, -7.6, 5.8, 12),
        tree(5.6, -5.6, 4.2, 13),
        tree(26.0, -17.0, 9.0, 14),
        tree(30.0, 14.0, 10.0, 15),
        street_lamp(6.6, 3.7, lit=lit),
        crate(9.9, 4.0, 0.0, 0.9, 0.3),
        crate(10.8, 4.5, 0.0, 0.9, -0.2),
        crate(10.2, 4.2, 0.9, 0.7, 0.9),
        _bench(),
    )


def _ground() -> Thing:
    grass = Mix(
        Noise(0.09, 2.4, 1),
        Mix(Noise(1.6, 2.0, 2), (0.018, 0.04, 0.012), (0.04, 0.06, 0.02)),
        Mix(Noise(2.3, 1.6, 3), (0.05, 0.1, 0.025), (0.1, 0.12, 0.045)),
    )
    stone = Mix(
        Bricks(0.6, 0.4, 0.018, 0.35),
        (0.03, 0.03, 0.024),
        Mix(Noise(0.5, 1.6, 4), (0.17, 0.16, 0.145), (0.3, 0.28, 0.25)),
    )
    asphalt = Mix(Noise(0.04, 2.0, 6), (0.035, 0.035, 0.037), (0.085, 0.083, 0.08))
    walk = Band(1, -0.6, 2.9, 0.06)
    yard = Band(0, 6.1, 9.6, 0.06)
    drive = Band(1, -6.8, -2.6, 0.25, 0.5)
    albedo = Mix(yard, Mix(walk, Mix(drive, grass, asphalt), stone), stone)
    cool = Mix(Noise(0.7, 1.6, 7), 280.4, 282.6)
    mild = Mix(Noise(1.2, 1.4, 8), 285.2, 286.8)
    warm = Mix(Noise(1.4, 1.4, 9), 286.8, 288.6)
    heat = Mix(yard, Mix(walk, Mix(drive, cool, warm), mild), mild)
    return Thing((Part(HalfSpace(), Material(albedo, heat, 0.96, solar_gain=4.0)),))


def _buildings() -> tuple[Thing, ...]:
    brick = Material(
        Mix(Bricks(0.5, 0.16, 0.025, 0.55), (0.3, 0.28, 0.25), (0.4, 0.15, 0.085)),
        Mix(Noise(2.5, 1.4, 5), 285.8, 287.8),
        0.93,
        solar_gain=10.0,
    )
    plaster = Material(
        Mix(Noise(1.3, 1.5, 6), (0.42, 0.37, 0.28), (0.56, 0.5, 0.39)),
        Mix(Noise(2.0, 1.4, 2), 286.5, 288.5),
        0.92,
        solar_gain=14.0,
    )
    slate = Material((0.07, 0.07, 0.08), 280.0, 0.94, 0.1, solar_gain=8.0)
    glass = Material((0.015, 0.02, 0.025), 288.0, 0.84, 0.9)
    sill = Material((0.55, 0.53, 0.5), 287.5, 0.9)
    door = Material((0.09, 0.05, 0.03), 289.5, 0.93, 0.1)
    house: list[Part] = [
        Part(box(upright(19.5, 0.0, 2.1), (7.0, 26.0, 4.2)), brick),
        Part(prism(upright(19.5, 0.0, 4.2), [(-3.9, 0.0), (3.9, 0.0), (0.0, 2.2)], 26.6), slate),
        Part(box(upright(15.98, 1.0, 1.1), (0.1, 1.1, 2.2)), door),
        Part(box(upright(15.98, 1.0, 0.06), (0.7, 1.6, 0.12)), sill),
    ]
    for y in (-9.4, -6.6, -3.8, -1.2, 3.4, 6.2, 9.2):
        house.append(Part(box(upright(15.99, y, 1.85), (0.08, 1.15, 1.45)), sill))
        house.append(Part(box(upright(15.97, y - 0.27, 1.85), (0.08, 0.46, 1.25)), glass))
        house.append(Part(box(upright(15.97, y + 0.27, 1.85), (0.08, 0.46, 1.25)), glass))
    wing: list[Part] = [
        Part(box(upright(12.0, 11.0, 1.6), (11.0, 4.0, 3.2)), plaster),
        Part(box(upright(12.0, 11.0, 3.27), (11.5, 4.5, 0.16)), slate),
    ]
    for x in (8.2, 10.6, 14.2):
        wing.append(Part(box(upright(x, 9.0, 1.7), (1.2, 0.1, 1.3)), sill))
        wing.append(Part(box(upright(x, 8.98, 1.7), (1.0, 0.1, 1.1)), glass))
    wall = Part(box(upright(9.0, -10.6, 0.8), (15.0, 0.35, 1.6)), brick)
    cap = Part(box(upright(9.0, -10.6, 1.64), (15.1, 0.5, 0.1)), sill)
    far = Material((0.25, 0.24, 0.25), 284.0, 0.93)
    tower = Part(box(upright(60.0, -30.0, 8.0), (12.0, 16.0, 16.0)), far)
    block = Part(box(upright(70.0, 38.0, 6.0), (12.0, 22.0, 12.0)), far)
    return (Thing(tuple(house)), Thing(tuple(wing)), Thing((wall, cap)), Thing((tower, block)))


def _bench() -> Thing:
    wood = Material(Mix(Noise(0.3, 1.8, 4), (0.16, 0.09, 0.045), (0.28, 0.18, 0.09)), 285.0, 0.92)
    iron = Material((0.05, 0.05, 0.055), 284.0, 0.85, 0.2)
    place = upright(7.6, 3.55, 0.0, math.radians(-90.0))

    def piece(x: float, y: float, z: float, size: tuple[float, float, float], m: Material) -> Part:
        return Part(box(Frame(place.place((x, y, z)), place.axes), size), m)

    parts = [piece(x, 0.0, 0.45, (0.11, 1.5, 0.04), wood) for x in (-0.14, 0.0, 0.14)]
    parts += [piece(-0.24, 0.0, z, (0.04, 1.5, 0.11), wood) for z in (0.62, 0.78)]
    parts += [piece(-0.02, y, 0.22, (0.4, 0.05, 0.44), iron) for y in (-0.62, 0.62)]
    shade = np.array([[*place.place((0.0, y, 0.35)), 0.22] for y in (-0.5, 0.0, 0.5)])
    return Thing(tuple(parts), blockers=shade)


# --- calibration target --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Target:
    """A flat target whose marks both an RGB and a thermal camera can see.

    Attributes:
        frame: pose; the face looks along local -x, marks run along local y and z.
        columns: inner corners, or discs, along local y.
        rows: the same along local z.
        pitch: distance of neighbouring marks, metres.
        circles: discs instead of a chessboard.
    """

    frame: Frame
    columns: int = 8
    rows: int = 5
    pitch: float = 0.1
    circles: bool = False

    def points(self) -> Array:
        """``(rows * columns, 3)`` inner corners or disc centres in the world, row by row."""
        first = self._first()
        steps = [
            (-0.005, first[0] + column * self.pitch, first[1] + row * self.pitch)
            for row in range(self.rows)
            for column in range(self.columns)
        ]
        return np.stack([self.frame.place(step) for step in steps])

    def thing(self) -> Thing:
        """The solid board: bright cool fields, dark warm ones as under a heat lamp."""
        first, pitch = self._first(), self.pitch
        last = first[0] + (self.columns - 1) * pitch, first[1] + (self.rows - 1) * pitch
        marks = Circles(pitch, 0.3 * pitch, first) if self.circles else Checker(pitch, first)
        # A chessboard has one field more on each side than inner corners.
        margin = (0.5 if self.circles else 1.0) * pitch
        pattern = Within(
            marks,
            (first[0] - margin, first[1] - margin),
            (last[0] + margin, last[1] + margin),
        )
        material = Material(
            Mix(pattern, (0.75, 0.75, 0.75), (0.04, 0.04, 0.04)), Mix(pattern, 296.0, 303.0), 0.95
        )
        size = (0.01, (self.columns + 2) * pitch, (self.rows + 2) * pitch)
        return Thing((Part(box(self.frame, size), material),))

    def _first(self) -> tuple[float, float]:
        return -(self.columns - 1) * self.pitch / 2.0, -(self.rows - 1) * self.pitch / 2.0


@dataclass(frozen=True)
class TargetScene:
    """A warm target that slowly tilts before the rig, for calibration."""

    light: Illumination = ILLUMINATIONS["day"]
    circles: bool = False

    def viewpoint(self, time_s: float) -> Array:
        """A fixed rig one metre above the ground."""
        del time_s
        return looking((0.0, 0.0, 1.0), (10.0, 0.0, 1.0))

    def target(self, time_s: float) -> Target:
        """The target at a time."""
        yaw, pitch = 0.5 * math.sin(1.3 * time_s), 0.4 * math.sin(1.9 * time_s + 1.0)
        turn = upright(0.0, 0.0, 0.0, yaw).axes
        c, s = math.cos(pitch), math.sin(pitch)
        axes = turn @ np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])
        shift = 0.25 * math.sin(0.9 * time_s), 0.12 * math.sin(1.7 * time_s)
        origin = np.array([1.5 + 0.2 * math.sin(0.7 * time_s), shift[0], 1.0 + shift[1]])
        return Target(Frame(origin, axes), circles=self.circles)

    def at(self, time_s: float) -> Snapshot:
        """See `mmfusion.synthetic.scene.Scene.at`."""
        floor = Material(
            Mix(Noise(0.3, 1.5), (0.2, 0.19, 0.18), (0.3, 0.29, 0.27)),
            Mix(Spot((2.0, 0.0, 0.0), 2.0), 289.0, 291.0),
        )
        ground = Thing((Part(HalfSpace(), floor),))
        return Snapshot((self.target(time_s).thing(), ground), self.light)


SCENES = ("courtyard", "target")


def make_scene(name: str, light: str = "dusk", *, smoke: bool = False) -> Scene:
    """A scene by name.

    Args:
        name: one of `SCENES`.
        light: ``day``, ``dusk`` or ``night``.
        smoke: a cloud of smoke, in the courtyard.
    """
    if light not in ILLUMINATIONS:
        raise DataError(f"unknown light {light!r}; known are {', '.join(ILLUMINATIONS)}")
    if name == "courtyard":
        return Courtyard(ILLUMINATIONS[light], smoke)
    if name == "target":
        return TargetScene(ILLUMINATIONS[light])
    raise DataError(f"unknown scene {name!r}; known are {', '.join(SCENES)}")
