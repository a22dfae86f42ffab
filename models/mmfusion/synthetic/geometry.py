"""Convex solids and where rays meet them.

Every solid here is convex, so a ray meets it in one span ``[enter, leave]``. That one rule gives
first hits, shadows and the thickness of smoke alike.

World frame: REP 103, x forward, y left, z up, metres.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Span = tuple[Array, Array]


@dataclass(frozen=True)
class Frame:
    """A pose: where a solid's own axes lie in the world.

    Attributes:
        origin: ``(3,)`` position in the world.
        axes: ``(3, 3)`` rotation, columns are the local x, y, z in the world.
    """

    origin: Array = field(default_factory=lambda: np.zeros(3))
    axes: Array = field(default_factory=lambda: np.eye(3))

    def points_to_local(self, points: Array) -> Array:
        """World positions ``(..., 3)`` in this frame."""
        return (points - self.origin) @ self.axes

    def vectors_to_local(self, vectors: Array) -> Array:
        """World directions ``(..., 3)`` in this frame."""
        return vectors @ self.axes

    def place(self, point: tuple[float, float, float] | Array) -> Array:
        """A local position ``(3,)`` in the world."""
        return self.origin + self.axes @ np.asarray(point, np.float64)


def upright(x: float, y: float, z: float = 0.0, heading: float = 0.0) -> Frame:
    """A frame standing on the ground, its x axis turned left by ``heading`` radians."""
    c, s = math.cos(heading), math.sin(heading)
    return Frame(np.array([x, y, z]), np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]))


class Solid(ABC):
    """A convex solid with a frame of its own, in which its textures are fixed."""

    frame: Frame

    @abstractmethod
    def span(self, origins: Array, directions: Array) -> Span:
        """Where rays enter and leave.

        Args:
            origins: ``(n, 3)`` or ``(3,)`` ray origins.
            directions: ``(n, 3)`` or ``(3,)`` directions; distances are in their lengths.

        Returns:
            ``enter, leave``, each ``(n,)``, possibly negative; ``enter > leave`` for a miss.
        """

    @abstractmethod
    def normals(self, points: Array) -> Array:
        """Outward unit normals ``(n, 3)`` at surface points ``(n, 3)``."""

    @abstractmethod
    def bounds(self) -> tuple[Array, float]:
        """Centre ``(3,)`` and radius of a sphere around the solid; the radius may be inf."""


def _quadratic_span(a: Array, half_b: Array, c: Array) -> Span:
    """Roots of ``a t^2 + 2 half_b t + c <= 0``; a miss where there is none. ``a >= 0``."""
    discriminant = half_b * half_b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(np.maximum(discriminant, 0.0))
        enter, leave = (-half_b - root) / a, (-half_b + root) / a
    # A direction along an axis never changes its distance: all or nothing.
    still = a <= 1e-14
    enter = np.where(still, np.where(c <= 0.0, -np.inf, np.inf), enter)
    leave = np.where(still, np.where(c <= 0.0, np.inf, -np.inf), leave)
    miss = (discriminant < 0.0) & ~still
    return np.where(miss, np.inf, enter), np.where(miss, -np.inf, leave)


def _dot(first: Array, second: Array) -> Array:
    return np.asarray(np.einsum("...i,...i->...", first, second), np.float64)


@dataclass(frozen=True, eq=False)
class HalfSpace(Solid):
    """Everything below a horizontal plane: the ground."""

    height: float = 0.0
    frame: Frame = field(default_factory=Frame)

    def span(self, origins: Array, directions: Array) -> Span:
        """See `Solid.span`."""
        above, rise = origins[..., 2] - self.height, directions[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -above / rise
        level = np.where(above <= 0.0, -np.inf, np.inf)
        enter = np.where(rise < 0.0, t, np.where(rise > 0.0, -np.inf, level))
        leave = np.where(rise > 0.0, t, np.where(rise < 0.0, np.inf, -level))
        return enter, leave

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        return np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape)

    def bounds(self) -> tuple[Array, float]:
        """See `Solid.bounds`."""
        return np.zeros(3), math.inf


@dataclass(frozen=True, eq=False)
class Ellipsoid(Solid):
    """An ellipsoid with ``radii`` along the axes of its frame; a sphere if they are equal."""

    frame: Frame
    radii: Array

    def span(self, origins: Array, directions: Array) -> Span:
        """See `Solid.span`."""
        offset = self.frame.points_to_local(origins) / self.radii
        along = self.frame.vectors_to_local(directions) / self.radii
        return _quadratic_span(_dot(along, along), _dot(offset, along), _dot(offset, offset) - 1.0)

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        gradient = self.frame.points_to_local(points) / np.square(self.radii)
        world = gradient @ self.frame.axes.T
        return np.asarray(world / np.linalg.norm(world, axis=-1, keepdims=True))

    def bounds(self) -> tuple[Array, float]:
        """See `Solid.bounds`."""
        return self.frame.origin, float(self.radii.max())


def sphere(center: Array | tuple[float, float, float], radius: float) -> Ellipsoid:
    """A sphere; its textures keep the world's axes."""
    return Ellipsoid(Frame(np.asarray(center, np.float64)), np.full(3, float(radius)))


@dataclass(frozen=True, eq=False)
class Capsule(Solid):
    """All points within ``radius`` of the segment from ``start`` to ``end``: a limb, a trunk."""

    start: Array
    end: Array
    radius: float
    frame: Frame = field(default_factory=Frame)

    def span(self, origins: Array, directions: Array) -> Span:
        """See `Solid.span`."""
        # A union of a tube and two balls, and convex: the span reaches from the first entry
        # into any of the three to the last exit.
        enter, leave = _tube_span(self.start, self.end, self.radius, origins, directions)
        for end in (self.start, self.end):
            offset = origins - end
            squared = _dot(directions, directions)
            into, out = _quadratic_span(
                squared, _dot(offset, directions), _dot(offset, offset) - self.radius**2
            )
            enter, leave = np.minimum(enter, into), np.maximum(leave, out)
        return enter, leave

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        axis = self.end - self.start
        share = np.clip((points - self.start) @ axis / float(axis @ axis), 0.0, 1.0)
        away = points - (self.start + share[:, None] * axis)
        return np.asarray(away / np.linalg.norm(away, axis=-1, keepdims=True))

    def bounds(self) -> tuple[Array, float]:
        """See `Solid.bounds`."""
        reach = float(np.linalg.norm(self.end - self.start)) / 2.0
        return (self.start + self.end) / 2.0, reach + self.radius


@dataclass(frozen=True, eq=False)
class Cylinder(Solid):
    """A tube from ``start`` to ``end`` with flat ends: a wheel, a post."""

    start: Array
    end: Array
    radius: float
    frame: Frame = field(default_factory=Frame)

    def span(self, origins: Array, directions: Array) -> Span:
        """See `Solid.span`."""
        return _tube_span(self.start, self.end, self.radius, origins, directions)

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        axis = self.end - self.start
        length = float(np.linalg.norm(axis))
        axis = axis / length
        along = (points - self.start) @ axis
        away = points - self.start - along[:, None] * axis
        outside = np.linalg.norm(away, axis=-1)
        beyond = np.maximum(-along, along - length)  # signed distance past the nearer end
        on_end = beyond > outside - self.radius
        cap = np.where(along[:, None] > length / 2.0, axis, -axis)
        side = away / np.maximum(outside, 1e-12)[:, None]
        return np.where(on_end[:, None], cap, side)

    def bounds(self) -> tuple[Array, float]:
        """See `Solid.bounds`."""
        half = float(np.linalg.norm(self.end - self.start)) / 2.0
        return (self.start + self.end) / 2.0, math.hypot(half, self.radius)


def _tube_span(start: Array, end: Array, radius: float, origins: Array, directions: Array) -> Span:
    """Span within a tube with flat ends: the infinite tube between two planes."""
    length = float(np.linalg.norm(end - start))
    axis = (end - start) / length
    offset = origins - start
    along, advance = offset @ axis, directions @ axis
    radial = offset - along[..., None] * axis
    across = directions - advance[..., None] * axis
    enter, leave = _quadratic_span(
        _dot(across, across), _dot(radial, across), _dot(radial, radial) - radius**2
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        first, last = -along / advance, (length - along) / advance
    parallel = np.abs(advance) < 1e-14
    between = (along >= 0.0) & (along <= length)
    low = np.where(parallel, np.where(between, -np.inf, np.inf), np.minimum(first, last))
    high = np.where(parallel, np.where(between, np.inf, -np.inf), np.maximum(first, last))
    enter, leave = np.maximum(enter, low), np.minimum(leave, high)
    miss = enter > leave
    return np.where(miss, np.inf, enter), np.where(miss, -np.inf, leave)


@dataclass(frozen=True, eq=False)
class Polyhedron(Solid):
    """The common part of half spaces ``normals_ @ p <= offsets`` in the local frame.

    Attributes:
        frame: pose of the local frame.
        planes: ``(k, 3)`` outward unit normals, local.
        offsets: ``(k,)`` distances of the planes from the local origin.
        reach: ``(3,)`` half sides of a box around the solid, centred on the local origin.
    """

    frame: Frame
    planes: Array
    offsets: Array
    reach: Array

    def span(self, origins: Array, directions: Array) -> Span:
        """See `Solid.span`."""
        # One row for each plane, so that every step below runs over adjacent numbers.
        planes = self.planes @ self.frame.axes.T
        room = (self.offsets + planes @ self.frame.origin - origins @ planes.T).T
        speed = planes @ directions.T
        shape = np.broadcast_shapes(room.shape[1:], speed.shape[1:])
        enter, leave = np.full(shape, -np.inf), np.full(shape, np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            for space, rate in zip(room, speed, strict=True):
                t = space / rate
                # Along the plane: always or never within it.
                t = np.where(rate == 0.0, np.where(space < 0.0, np.inf, -np.inf), t)
                out = rate > 0.0
                np.minimum(leave, np.where(out, t, np.inf), out=leave)
                np.maximum(enter, np.where(out, -np.inf, t), out=enter)
        miss = enter > leave
        return np.where(miss, np.inf, enter), np.where(miss, -np.inf, leave)

    def normals(self, points: Array) -> Array:
        """See `Solid.normals`."""
        beyond = self.frame.points_to_local(points) @ self.planes.T - self.offsets
        return np.asarray(self.planes[np.argmax(beyond, axis=-1)] @ self.frame.axes.T)

    def bounds(self) -> tuple[Array, float]:
        """See `Solid.bounds`."""
        return self.frame.origin, float(np.linalg.norm(self.reach))


def box(frame: Frame, size: tuple[float, float, float]) -> Polyhedron:
    """A box of full ``size`` along the axes of a frame in its middle."""
    half = np.asarray(size, np.float64) / 2.0
    planes = np.concatenate([np.eye(3), -np.eye(3)])
    return Polyhedron(frame, planes, np.concatenate([half, half]), half)


def prism(frame: Frame, profile: list[tuple[float, float]], width: float) -> Polyhedron:
    """A convex outline in the local x-z plane, drawn out to ``width`` along local y.

    Args:
        frame: pose; the outline's coordinates and the middle of the width refer to it.
        profile: corners (x, z) counter-clockwise, seen with x to the right and z up.
        width: full width along y.
    """
    corners = np.asarray(profile, np.float64)
    edges = np.roll(corners, -1, axis=0) - corners
    outward = np.stack([edges[:, 1], np.zeros(len(edges)), -edges[:, 0]], axis=1)
    outward /= np.linalg.norm(outward, axis=1, keepdims=True)
    offsets = outward[:, 0] * corners[:, 0] + outward[:, 2] * corners[:, 1]
    planes = np.concatenate([outward, [[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]]])
    offsets = np.concatenate([offsets, [width / 2.0, width / 2.0]])
    reach = np.abs(corners).max(axis=0)
    return Polyhedron(frame, planes, offsets, np.array([reach[0], width / 2.0, reach[1]]))
