"""Rays against a snapshot: what is hit first, and what lies between a point and a light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfusion.synthetic.geometry import Array
from mmfusion.synthetic.materials import Surface

if TYPE_CHECKING:
    from mmfusion.synthetic.scene import Part, Snapshot

NEAR = 1e-4  # metres; nearer hits are the surface the ray started on
LIGHT_SLACK = 1e-3  # metres; a hit this close to a point is the point itself
TILE = 8
BUNDLE = TILE * TILE
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Hits:
    """First hits of ``n`` rays.

    Attributes:
        distance: ``(n,)`` metres along the unit directions, inf for the sky.
        part: ``(n,)`` index into `Tracer.parts`, -1 for the sky.
        outlines: for each salient thing, how many rays would hit it if nothing else stood there.
    """

    distance: Array
    part: Index
    outlines: Index


class Tracer:
    """A snapshot prepared for many rays.

    Rays come in an order that keeps neighbours together and are handled in bundles of
    `BUNDLE`. A bundle's cone (rays from one point) or box (parallel rays) against the parts'
    bounding spheres decides which parts it is tested with, all bundles and parts in one product.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.parts: list[Part] = []
        owners: list[int] = []
        for number, thing in enumerate(snapshot.things):
            self.parts += thing.parts
            owners += [number] * len(thing.parts)
        self.owner: Index = np.asarray(owners, np.int64)
        """For each part, the number of its thing."""
        self._salient = np.array([thing.salient for thing in snapshot.things])
        bounds = [part.solid.bounds() for part in self.parts]
        self._centers = np.stack([center for center, _ in bounds])
        self._radii = np.array([radius for _, radius in bounds])
        # Nothing shines up through the ground, and what glows lets its light out.
        self._blocking = np.isfinite(self._radii) & np.array(
            [part.material.glow is None for part in self.parts]
        )

    def first_hits(self, origin: Array, directions: Array) -> Hits:
        """What rays from one point ``(3,)`` in unit ``directions`` ``(n, 3)`` hit first."""
        count = len(directions)
        if count == 0:
            return Hits(np.empty(0), np.empty(0, np.int64), np.zeros(len(self._salient), np.int64))
        bundles = _bundled(directions)
        touch = self._in_cones(origin, bundles)
        distance = np.full(bundles.shape[:2], np.inf)
        index = np.full(bundles.shape[:2], -1, np.int64)
        outlines = np.zeros(len(self._salient), np.int64)
        outline = np.zeros(bundles.shape[:2], bool)
        for number, part in enumerate(self.parts):
            thing = self.owner[number]
            if number == 0 or self.owner[number - 1] != thing:
                outline[:] = False
            chosen = np.flatnonzero(touch[:, number])
            if chosen.size:
                t = entry(part, origin, bundles[chosen].reshape(-1, 3)).reshape(-1, BUNDLE)
                nearest = distance[chosen]
                closer = t < nearest
                distance[chosen] = np.where(closer, t, nearest)
                index[chosen] = np.where(closer, number, index[chosen])
                if self._salient[thing]:
                    outline[chosen] |= np.isfinite(t)
                    outlines[thing] = np.count_nonzero(outline.ravel()[:count])
        return Hits(distance.ravel()[:count], index.ravel()[:count], outlines)

    def blocked_from(self, lamp: Array, points: Array) -> NDArray[np.bool_]:
        """Which points ``(n, 3)`` a lamp at ``(3,)`` does not reach."""
        count = len(points)
        if count == 0:
            return np.zeros(0, bool)
        away = _bundled(points) - lamp
        distances = np.sqrt(np.einsum("bni,bni->bn", away, away))
        directions = away / distances[..., None]
        touch = self._in_cones(lamp, directions)
        nearest = np.linalg.norm(self._centers - lamp, axis=1) - self._radii
        touch &= nearest < distances.max(axis=1)[:, None]
        limits = distances - LIGHT_SLACK
        dark = np.zeros(distances.shape, bool)
        for number in np.flatnonzero(touch.any(axis=0) & self._blocking):
            chosen = np.flatnonzero(touch[:, number])
            chosen = chosen[~dark[chosen].all(axis=1)]
            rays = directions[chosen].reshape(-1, 3)
            t = entry(self.parts[number], lamp, rays).reshape(-1, BUNDLE)
            dark[chosen] |= t < limits[chosen]
        return np.asarray(dark.ravel()[:count])

    def blocked_towards(self, direction: Array, points: Array) -> NDArray[np.bool_]:
        """Which points ``(n, 3)`` have something in a unit ``direction`` ``(3,)``."""
        count = len(points)
        if count == 0:
            return np.zeros(0, bool)
        first = np.cross(direction, [0.0, 0.0, 1.0] if abs(direction[2]) < 0.9 else [1.0, 0, 0])
        first /= np.linalg.norm(first)
        axes = np.stack([first, np.cross(direction, first), direction], axis=1)
        bundles = _bundled(points)
        flat = bundles @ axes
        low, high = flat.min(axis=1)[:, None], flat.max(axis=1)[:, None]
        balls, radii = self._centers @ axes, self._radii
        # Distance from a ball's centre to the bundle's box in the plane square to the light.
        beyond = np.maximum(np.maximum(low - balls, balls - high), 0.0)
        touch = np.square(beyond[..., 0]) + np.square(beyond[..., 1]) <= np.square(radii)
        touch &= low[..., 2] < balls[:, 2] + radii
        dark = np.zeros(bundles.shape[:2], bool)
        for number in np.flatnonzero(touch.any(axis=0) & self._blocking):
            chosen = np.flatnonzero(touch[:, number])
            chosen = chosen[~dark[chosen].all(axis=1)]
            starts = bundles[chosen].reshape(-1, 3)
            t = entry(self.parts[number], starts, direction).reshape(-1, BUNDLE)
            dark[chosen] |= np.isfinite(t)
        return np.asarray(dark.ravel()[:count])

    def _in_cones(self, origin: Array, bundles: Array) -> NDArray[np.bool_]:
        """Which bundles ``(b, BUNDLE, 3)`` of unit directions may touch which parts."""
        axis = bundles.mean(axis=1)
        axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-12)
        cosine = np.einsum("bni,bi->bn", bundles, axis).min(axis=1)
        away = self._centers - origin
        distance = np.linalg.norm(away, axis=1)
        inside = distance <= self._radii
        sine_ball = np.where(inside, 0.0, self._radii / np.maximum(distance, 1e-12))
        sine_ball[inside] = 0.0
        cosine_ball = np.sqrt(1.0 - np.square(sine_ball))
        sine = np.sqrt(np.maximum(1.0 - np.square(cosine), 0.0))
        between = axis @ (away / np.maximum(distance, 1e-12)[:, None]).T
        # Within the sum of both half angles; bundles wider than a right angle see everything.
        limit = np.outer(cosine, cosine_ball) - np.outer(sine, sine_ball)
        return np.asarray((between >= limit - 1e-9) | inside | (cosine[:, None] <= 0.0))


def _bundled(vectors: Array) -> Array:
    """``(n, 3)`` as ``(b, BUNDLE, 3)``, the last one repeated to fill the last bundle."""
    missing = -len(vectors) % BUNDLE
    if missing:
        vectors = np.concatenate([vectors, np.repeat(vectors[-1:], missing, axis=0)])
    return vectors.reshape(-1, BUNDLE, 3)


def entry(part: Part, origins: Array, directions: Array) -> Array:
    """Distances ``(n,)`` to the first surface of a part ahead, inf for a miss."""
    enter, leave = part.solid.span(origins, directions)
    t = np.where(enter > NEAR, enter, leave)
    t = np.where((enter <= leave) & (t > NEAR), t, np.inf)
    if part.material.cutout is None:
        return t
    # A leafy shell: try its near side, then, through a gap, its far side.
    t = _through_gaps(part, origins, directions, t)
    far = np.where(np.isinf(t) & (enter <= leave) & (leave > NEAR), leave, np.inf)
    return np.minimum(t, _through_gaps(part, origins, directions, far))


def _through_gaps(part: Part, origins: Array, directions: Array, t: Array) -> Array:
    cutout = part.material.cutout
    hit = np.flatnonzero(np.isfinite(t))
    if hit.size and cutout is not None:
        start = origins if origins.ndim == 1 else origins[hit]
        along = directions if directions.ndim == 1 else directions[hit]
        surface = surface_of(part, start + t[hit, None] * along, np.zeros(hit.size))
        t = t.copy()
        t[hit[cutout.weight(surface) < 0.5]] = np.inf
    return t


def surface_of(part: Part, points: Array, footprint: Array) -> Surface:
    """World points ``(n, 3)`` on a part as its textures see them."""
    frame = part.solid.frame
    normals = frame.vectors_to_local(part.solid.normals(points))
    return Surface.of(frame.points_to_local(points), normals, footprint)
