"""People, cars, trees and street furniture, built of a few solids each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmfusion.synthetic.geometry import (
    Array,
    Capsule,
    Cylinder,
    Ellipsoid,
    Frame,
    box,
    prism,
    sphere,
    upright,
)
from mmfusion.synthetic.materials import Band, Material, Mix, Noise, Spot
from mmfusion.synthetic.scene import Part, Thing

if TYPE_CHECKING:
    from mmfusion.synthetic.light import Color


@dataclass(frozen=True)
class Outfit:
    """What a person looks like."""

    jacket: Color = (0.25, 0.05, 0.04)
    trousers: Color = (0.03, 0.04, 0.08)
    hair: Color = (0.03, 0.02, 0.012)
    skin: Color = (0.55, 0.32, 0.22)
    height: float = 1.75
    backpack: Color | None = None


def person(frame: Frame, phase: float, outfit: Outfit, stride: float = 1.0) -> Thing:
    """A walking person.

    Args:
        frame: feet on the ground, x axis in walking direction.
        phase: of the walk, radians; two steps per turn.
        outfit: colours and height.
        stride: 0 stands still, 1 walks briskly.
    """
    scale = outfit.height / 1.75
    bob = 0.02 * stride * math.cos(2.0 * phase)

    def at(x: float, y: float, z: float) -> Array:
        return frame.place((x * scale, y * scale, z * scale))

    cloth = Material(_woven(outfit.jacket), Mix(Noise(0.25, 1.4), 297.0, 301.5), 0.95)
    jeans = Material(_woven(outfit.trousers), Mix(Noise(0.3, 1.4, 2), 296.0, 299.5), 0.95)
    skin = Material(outfit.skin, Mix(Noise(0.1, 1.0, 3), 304.5, 307.0), 0.98)
    hair = Material(outfit.hair, 299.5, 0.96)
    shoe = Material((0.04, 0.035, 0.03), 291.0, 0.93)
    parts: list[Part] = []

    def limb(start: Array, end: Array, radius: float, material: Material) -> None:
        parts.append(Part(Capsule(start, end, radius * scale, frame), material))

    lean = 0.03 * stride
    for side in (-1.0, 1.0):
        swing = 0.48 * stride * math.sin(phase + (0.0 if side > 0 else math.pi))
        # The knee bends while its leg swings forward.
        bend = 0.12 + 0.75 * stride * max(0.0, math.cos(phase + (0.0 if side > 0 else math.pi)))
        hip = 0.0, 0.1 * side, 0.9 + bob
        knee = hip[0] + 0.44 * math.sin(swing), hip[1], hip[2] - 0.44 * math.cos(swing)
        shin = swing - bend * 0.8
        ankle = knee[0] + 0.42 * math.sin(shin), hip[1], knee[2] - 0.42 * math.cos(shin)
        lift = max(0.0, 0.045 - ankle[2])  # keep soles off the inside of the ground
        ankle = ankle[0], ankle[1], ankle[2] + lift
        limb(at(*hip), at(*knee), 0.085, jeans)
        limb(at(*knee), at(*ankle), 0.06, jeans)
        toe = ankle[0] + 0.16, ankle[1], max(0.04, ankle[2] - 0.02)
        limb(at(ankle[0] - 0.03, ankle[1], max(0.04, ankle[2] - 0.02)), at(*toe), 0.042, shoe)
        arm = -0.55 * stride * math.sin(phase + (0.0 if side > 0 else math.pi))
        shoulder = lean, 0.2 * side, 1.42 + bob
        elbow = (
            shoulder[0] + 0.28 * math.sin(arm),
            0.245 * side,
            shoulder[2] - 0.28 * math.cos(arm),
        )
        fore = arm + 0.25 + 0.2 * stride
        hand = elbow[0] + 0.25 * math.sin(fore), 0.25 * side, elbow[2] - 0.25 * math.cos(fore)
        limb(at(*shoulder), at(*elbow), 0.055, cloth)
        limb(at(*elbow), at(*hand), 0.042, cloth)
        parts.append(Part(sphere(at(hand[0] + 0.01, hand[1], hand[2] - 0.05), 0.05 * scale), skin))

    def blob(center: Array, radii: tuple[float, float, float], material: Material) -> None:
        place = Frame(center, frame.axes)
        parts.append(Part(Ellipsoid(place, np.asarray(radii) * scale), material))

    blob(at(0.0, 0.0, 0.95 + bob), (0.13, 0.175, 0.15), jeans)
    blob(at(lean / 2, 0.0, 1.15 + bob), (0.135, 0.175, 0.27), cloth)
    blob(at(lean, 0.0, 1.33 + bob), (0.13, 0.215, 0.19), cloth)
    limb(at(lean, 0.0, 1.45 + bob), at(lean + 0.01, 0.0, 1.56 + bob), 0.055, skin)
    blob(at(lean + 0.02, 0.0, 1.63 + bob), (0.098, 0.078, 0.12), skin)
    blob(at(lean - 0.005, 0.0, 1.66 + bob), (0.1, 0.085, 0.105), hair)
    if outfit.backpack is not None:
        pack = Material(_woven(outfit.backpack), 290.0, 0.93)
        blob(at(lean - 0.19, 0.0, 1.25 + bob), (0.11, 0.15, 0.22), pack)
    center = Frame(at(0.0, 0.0, 1.75 / 2.0), frame.axes)
    feet = np.array([[*at(0.0, 0.0, 0.18), 0.2], [*at(0.0, 0.0, 0.8), 0.22]])
    return Thing(tuple(parts), "person", center, (0.75 * scale, 0.6 * scale, outfit.height), feet)


def _woven(color: Color) -> Mix:
    """A cloth colour with folds."""
    dark = (0.55 * color[0], 0.55 * color[1], 0.55 * color[2])
    return Mix(Noise(0.12, 1.2, 5), dark, color)


def car(frame: Frame, color: Color = (0.05, 0.12, 0.3)) -> Thing:
    """A small car with a warm bonnet.

    Args:
        frame: middle of the car on the ground, x axis forward.
        color: paint, linear RGB.
    """
    hood = Spot((1.55, 0.0, 0.75), 0.65)
    paint = Material(color, Mix(hood, 288.0, 308.0), 0.93, 0.55, solar_gain=6.0)
    roof = Material(color, 284.0, 0.93, 0.55, solar_gain=6.0)
    glass = Material((0.02, 0.025, 0.03), 285.5, 0.86, 0.9)
    plastic = Material((0.03, 0.03, 0.032), 287.0, 0.94, 0.1)
    tire = Material((0.025, 0.025, 0.025), Mix(Noise(0.2, 1.0), 296.0, 299.0), 0.95)
    rim = Material((0.45, 0.45, 0.47), 301.0, 0.6, 0.6)
    white = Material((0.9, 0.9, 0.85), 292.0, 0.9, 0.6, glow=(1.4, 1.3, 1.1))
    red = Material((0.5, 0.02, 0.02), 288.0, 0.9, 0.4, glow=(0.5, 0.02, 0.015))
    body = [(-2.05, 0.35), (-1.9, 0.22), (1.95, 0.22), (2.08, 0.4), (2.02, 0.66), (1.05, 0.88)]
    body += [(-1.85, 0.92), (-2.08, 0.75)]
    cabin = [(-1.75, 0.88), (1.05, 0.85), (0.3, 1.38), (-1.25, 1.42)]
    lid = [(-1.3, 1.36), (0.32, 1.33), (0.2, 1.44), (-1.15, 1.46)]
    parts = [
        Part(prism(frame, body, 1.72), paint),
        Part(prism(frame, cabin, 1.46), glass),
        Part(prism(frame, lid, 1.4), roof),
        Part(prism(frame, [(-0.52, 0.9), (-0.4, 0.9), (-0.42, 1.4), (-0.5, 1.4)], 1.48), roof),
        Part(box(Frame(frame.place((2.02, 0.0, 0.42)), frame.axes), (0.14, 1.5, 0.2)), plastic),
        Part(box(Frame(frame.place((0.0, 0.0, 0.27)), frame.axes), (2.3, 1.74, 0.12)), plastic),
    ]
    for side in (-1.0, 1.0):
        for x in (-1.3, 1.3):
            hub = frame.place((x, 0.74 * side, 0.31))
            outer = frame.place((x, 0.89 * side, 0.31))
            parts.append(Part(Cylinder(hub, outer, 0.31, frame), tire))
            cap = frame.place((x, 0.9 * side, 0.31))
            parts.append(Part(Cylinder(hub, cap, 0.19, frame), rim))
        lamp = Frame(frame.place((2.0, 0.66 * side, 0.6)), frame.axes)
        parts.append(Part(Ellipsoid(lamp, np.array([0.08, 0.15, 0.08])), white))
        rear = Frame(frame.place((-2.03, 0.68 * side, 0.72)), frame.axes)
        parts.append(Part(box(rear, (0.1, 0.26, 0.12)), red))
        mirror = Frame(frame.place((0.72, 0.92 * side, 0.95)), frame.axes)
        parts.append(Part(Ellipsoid(mirror, np.array([0.07, 0.1, 0.07])), roof))
    middle = Frame(frame.place((0.0, 0.0, 0.73)), frame.axes)
    shade = [[*frame.place((x, y, 0.45)), 0.5] for x in (-1.5, -0.5, 0.5, 1.5) for y in (-0.4, 0.4)]
    return Thing(tuple(parts), "car", middle, (4.2, 1.85, 1.46), np.asarray(shade))


def tree(x: float, y: float, height: float, seed: int) -> Thing:
    """A broad-leaved tree: a trunk and a crown of leafy shells."""
    rng = np.random.Generator(np.random.PCG64(seed))
    bark = Material(Mix(Noise(0.15, 2.0), (0.05, 0.035, 0.022), (0.14, 0.1, 0.07)), 285.5, 0.95)
    crown = 0.62 * height
    parts = [Part(Capsule(np.array([x, y, 0.0]), np.array([x, y, crown]), 0.035 * height), bark)]
    for _ in range(3):
        tip = np.array([x, y, crown]) + rng.uniform(-1, 1, 3) * [0.2, 0.2, 0.08] * height
        root = np.array([x, y, 0.42 * height])
        parts.append(Part(Capsule(root, tip, 0.014 * height), bark))
    for number in range(13):
        offset = rng.normal(0.0, 1.0, 3)
        offset *= 0.24 * height * rng.uniform(0.35, 1.0) / np.linalg.norm(offset)
        place = Frame(np.array([x, y, 0.7 * height]) + offset * [1.0, 1.0, 0.8])
        radii = height * rng.uniform(0.11, 0.17) * np.array([1.0, 1.0, 0.8])
        leaves = Material(
            Mix(Noise(0.22, 2.2, number), (0.018, 0.045, 0.012), (0.08, 0.16, 0.035)),
            Mix(Noise(0.4, 1.5, number), 283.5, 285.5),
            0.97,
            cutout=Noise(0.3, 6.0, number + 3),
        )
        parts.append(Part(Ellipsoid(place, radii), leaves))
    blockers = np.array([[x, y, 0.1, 0.06 * height], [x, y, 0.7 * height, 0.33 * height]])
    return Thing(tuple(parts), blockers=blockers)


def street_lamp(x: float, y: float, *, lit: bool) -> Thing:
    """A post with a glowing globe; its light is placed by the scene."""
    steel = Material((0.06, 0.065, 0.07), 284.5, 0.85, 0.2)
    globe = Material(
        (0.8, 0.8, 0.75), 293.0 if lit else 284.0, 0.92, 0.3, glow=(3.0, 2.3, 1.4) if lit else None
    )
    place = upright(x, y)

    def post(low: float, high: float, radius: float) -> Part:
        return Part(Cylinder(place.place((0, 0, low)), place.place((0, 0, high)), radius), steel)

    parts = (
        post(0.0, 0.5, 0.09),
        post(0.0, 3.3, 0.045),
        Part(sphere((x, y, 3.45), 0.2), globe),
        post(3.6, 3.68, 0.16),
    )
    return Thing(parts, blockers=np.array([[x, y, 0.1, 0.12]]))


def crate(x: float, y: float, z: float, side: float, heading: float) -> Thing:
    """A wooden box."""
    planks = Mix(
        Band(2, -0.01, 0.01, 0.01),
        Mix(Noise(0.3, 1.8, 4), (0.2, 0.12, 0.06), (0.36, 0.24, 0.13)),
        (0.05, 0.03, 0.02),
    )
    wood = Material(planks, Mix(Noise(0.5, 1.0), 284.5, 286.5), 0.92, solar_gain=5.0)
    frame = upright(x, y, z + side / 2.0, heading)
    part = Part(box(frame, (side, side, side)), wood)
    return Thing((part,), blockers=np.array([[x, y, z + side / 2.0, 0.62 * side]]))
