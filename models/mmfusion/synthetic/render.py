"""From hits to radiance, temperature and depth, for one camera at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmfusion.synthetic.geometry import Array
from mmfusion.synthetic.materials import cloud_noise, evaluate
from mmfusion.synthetic.tracing import TILE, Hits, Index, Tracer, surface_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmfusion.synthetic.camera import Camera
    from mmfusion.synthetic.light import Lamp
    from mmfusion.synthetic.scene import Snapshot

Number = TypeVar("Number", bound=np.generic)
LIFT = 1e-3  # metres a shadow ray starts above its surface
_OFFSETS = np.array([(-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375)])


@dataclass(frozen=True, eq=False)
class _Points:
    """Where rays met surfaces, for the rays that did."""

    rays: Index  # (m,) int numbers of the rays
    points: Array  # (m, 3)
    normals: Array  # (m, 3)
    views: Array  # (m, 3) unit directions of the rays
    footprint: Array  # (m,)
    groups: list[tuple[int, Index]]  # part index, numbers into the arrays above


class View:
    """One camera's view of a snapshot. The camera must be placed in the world."""

    def __init__(self, snapshot: Snapshot, camera: Camera) -> None:
        self.snapshot = snapshot
        self.camera = camera
        self.tracer = Tracer(snapshot)
        # Rays go tile by tile, so that neighbours in the list are neighbours in the picture.
        self._order = _tile_order(camera.height, camera.width)
        self.directions = camera.rays(camera.pixels()[self._order])
        self.hits = self.tracer.first_hits(camera.position, self.directions)

    def _picture(self, values: NDArray[Number]) -> NDArray[Number]:
        """Values of all rays ``(n, ...)`` as a picture ``(height, width, ...)``."""
        flat = np.empty_like(values)
        flat[self._order] = values
        return flat.reshape(self.camera.height, self.camera.width, *values.shape[1:])

    def depth(self) -> Array:
        """True depth z in metres, ``(height, width)``, inf for the sky; smoke is not seen."""
        forward = self.camera.pose[:3, 2]
        return self._picture(self.hits.distance * (self.directions @ forward))

    def instances(self) -> Index:
        """Instance ids ``(height, width)`` int64: 0 for the sky, else number of the thing + 1."""
        owner = np.append(self.tracer.owner + 1, 0)  # the sky's part index is -1
        return self._picture(owner[self.hits.part])

    def clearness(self) -> Array:
        """Share of visible light that passes the smoke, ``(height, width)`` 0..1."""
        return self._picture(self._smoke(self.directions, self.hits, thermal=False))

    def gloss(self) -> Array:
        """Mirror share of the surface each pixel sees, ``(height, width)`` 0..1."""
        table = np.array([part.material.gloss for part in self.tracer.parts] + [0.0])
        return self._picture(table[self.hits.part])

    def radiance(self) -> Array:
        """Linear RGB ``(height, width, 3)``, exposed and clipped to 0..1, edges smoothed."""
        return self._smoothed(self._exposed, 3)

    def temperature(self) -> Array:
        """Apparent temperature in kelvin ``(height, width)``, edges smoothed."""
        return self._smoothed(self._apparent, 1)[..., 0]

    def _smoothed(self, shade: Callable[[Array, Hits], Array], channels: int) -> Array:
        """Shade every pixel once, and pixels on edges four times more."""
        values = shade(self.directions, self.hits)
        part = self._picture(self.hits.part)
        edge = np.zeros(part.shape, bool)
        edge[:, 1:] |= part[:, 1:] != part[:, :-1]
        edge[:, :-1] |= part[:, 1:] != part[:, :-1]
        edge[1:] |= part[1:] != part[:-1]
        edge[:-1] |= part[1:] != part[:-1]
        rays = np.flatnonzero(edge.ravel()[self._order])
        if rays.size:
            v, u = np.divmod(self._order[rays], self.camera.width)
            centers = np.stack([u, v], axis=1).astype(np.float64)
            directions = self.camera.rays((centers[:, None] + _OFFSETS).reshape(-1, 2))
            hits = self.tracer.first_hits(self.camera.position, directions)
            finer = shade(directions, hits).reshape(rays.size, len(_OFFSETS), channels)
            values[rays] = finer.mean(axis=1)
        return self._picture(values)

    # --- visible light ---

    def _exposed(self, directions: Array, hits: Hits) -> Array:
        light = self.snapshot.light
        color = light.sky(directions)
        found = self._points(directions, hits)
        if found.rays.size:
            color[found.rays] = self._reflected(found)
            # Air light: far things fade towards the horizon.
            haze = 1.0 - np.exp(-hits.distance[found.rays] / 900.0)[:, None]
            color[found.rays] += haze * (np.asarray(light.horizon) - color[found.rays])
        clear = self._smoke(directions, hits, thermal=False)[:, None]
        cloud = 0.75 * (0.6 * np.asarray(light.zenith) + 0.4 * np.asarray(light.horizon))
        color = color * clear + (1.0 - clear) * light.ambient * cloud
        return np.asarray(1.0 - np.exp(-color * light.exposure))

    def _reflected(self, found: _Points) -> Array:
        light, tracer = self.snapshot.light, self.tracer
        count = len(found.points)
        albedo, glow = np.empty((count, 3)), np.zeros((count, 3))
        gloss = np.zeros(count)
        for index, chosen in found.groups:
            part = tracer.parts[index]
            surface = surface_of(part, found.points[chosen], found.footprint[chosen])
            albedo[chosen] = evaluate(part.material.albedo, surface, 3)
            gloss[chosen] = part.material.gloss
            if part.material.glow is not None:
                glow[chosen] = part.material.glow
        # Sky light from above, light bounced off the ground from below.
        up = 0.5 + 0.5 * found.normals[:, 2:3]
        dome = 0.55 * np.asarray(light.zenith) + 0.45 * np.asarray(light.horizon)
        sun = light.sun_direction
        bounce = 0.18 * (dome + np.asarray(light.sun_color) * max(0.0, sun[2]))
        incoming = light.ambient * (up * dome + (1.0 - up) * bounce)
        incoming *= self._openness(found)[:, None]
        lit = self._sunlit(found)
        incoming += lit[:, None] * np.asarray(light.sun_color)
        for lamp in self.snapshot.lamps:
            incoming += self._lamp(lamp, found)
        color = albedo * incoming + glow
        shiny = np.flatnonzero(gloss > 0.0)
        if shiny.size:
            view, normal = found.views[shiny], found.normals[shiny]
            facing = -np.einsum("ni,ni->n", view, normal)
            mirrored = view + 2.0 * facing[:, None] * normal
            fresnel = gloss[shiny] * (0.05 + 0.95 * (1.0 - np.clip(facing, 0.0, 1.0)) ** 5)
            # Below the horizon a mirror shows the ground, not the sky.
            seen = np.where(mirrored[:, 2:3] > 0.0, light.sky(mirrored), 0.4 * bounce)
            spark = np.clip(mirrored @ sun, 0.0, 1.0) ** 200 * (lit[shiny] > 0.0)
            seen += 6.0 * spark[:, None] * np.asarray(light.sun_color)
            color[shiny] += fresnel[:, None] * (seen - color[shiny])
        return np.asarray(color)

    def _sunlit(self, found: _Points) -> Array:
        """Cosine to the sun where it shines, 0 in shadow."""
        sun = self.snapshot.light.sun_direction
        cosine = np.clip(found.normals @ sun, 0.0, None)
        facing = np.flatnonzero(cosine > 0.0)
        starts = found.points[facing] + LIFT * found.normals[facing]
        cosine[facing[self.tracer.blocked_towards(sun, starts)]] = 0.0
        return np.asarray(cosine)

    def _lamp(self, lamp: Lamp, found: _Points) -> Array:
        """Irradiance ``(m, 3)`` from one lamp."""
        place = np.asarray(lamp.position)
        to_lamp = place - found.points
        squared = np.einsum("ni,ni->n", to_lamp, to_lamp)
        distance = np.sqrt(squared)
        strength = np.einsum("ni,ni->n", to_lamp, found.normals) / distance / (squared + 0.05)
        if lamp.direction is not None:
            axis = np.asarray(lamp.direction) / np.linalg.norm(lamp.direction)
            angle = np.arccos(np.clip(-(to_lamp @ axis) / distance, -1.0, 1.0))
            strength *= np.clip((lamp.opening - angle) / (0.5 * lamp.opening), 0.0, 1.0)
        # Lamps end softly at their reach: beyond it nobody would see their light or shadow.
        strength *= np.square(np.clip(1.0 - np.square(squared / lamp.reach**2), 0.0, 1.0))
        reached = np.flatnonzero(strength > 1e-5)
        keep = np.zeros(len(strength))
        keep[reached] = strength[reached]
        if lamp.shadows and reached.size:
            starts = found.points[reached] + LIFT * found.normals[reached]
            keep[reached[self.tracer.blocked_from(place, starts)]] = 0.0
        return np.asarray(keep[:, None] * np.asarray(lamp.color))

    def _openness(self, found: _Points) -> Array:
        """Share of the sky left by things close by: soft contact shadows."""
        share = np.ones(len(found.points))
        for thing in self.snapshot.things:
            for x, y, z, radius in thing.blockers:
                near = np.flatnonzero(
                    (np.abs(found.points[:, 0] - x) < 4.0 * radius)
                    & (np.abs(found.points[:, 1] - y) < 4.0 * radius)
                )
                away = np.array([x, y, z]) - found.points[near]
                squared = np.einsum("ni,ni->n", away, away)
                cosine = np.einsum("ni,ni->n", away, found.normals[near]) / np.sqrt(squared)
                hidden = np.clip(cosine, 0.0, 1.0) * np.minimum(radius**2 / squared, 1.0)
                # Ends softly at the edge of the neighbourhood.
                reach = np.clip(2.0 - np.sqrt(squared) / (2.0 * radius), 0.0, 1.0)
                # A sphere must not darken the thing it stands for.
                share[near] *= 1.0 - 0.75 * hidden * reach * (squared > radius**2 * 0.25)
        return share

    # --- thermal ---

    def _apparent(self, directions: Array, hits: Hits) -> Array:
        """Temperature a thermal camera reads, ``(n, 1)`` kelvin.

        Emission and mirrored sky add up as T^4; over the small range of a scene that stands well
        enough for the band's own law.
        """
        light = self.snapshot.light
        kelvin = light.thermal_sky(directions[:, 2])
        found = self._points(directions, hits)
        if found.rays.size:
            own, emissivity = np.empty(len(found.points)), np.empty(len(found.points))
            gain = np.zeros(len(found.points))
            for index, chosen in found.groups:
                material = self.tracer.parts[index].material
                surface = surface_of(
                    self.tracer.parts[index], found.points[chosen], found.footprint[chosen]
                )
                own[chosen] = evaluate(material.temperature, surface, 1)[:, 0]
                emissivity[chosen], gain[chosen] = material.emissivity, material.solar_gain
            if light.solar_heat > 0.0 and np.any(gain > 0.0):
                own += light.solar_heat * gain * self._sunlit(found)
            facing = np.einsum("ni,ni->n", found.views, found.normals)
            rise = found.views[:, 2] - 2.0 * facing * found.normals[:, 2]
            around = np.where(rise > 0.0, light.thermal_sky(rise), light.air_temperature)
            mixed = emissivity * own**4 + (1.0 - emissivity) * around**4
            seen = np.sqrt(np.sqrt(mixed))
            haze = 1.0 - np.exp(-hits.distance[found.rays] / 2500.0)
            kelvin[found.rays] = seen + haze * (light.air_temperature - seen)
        clear = self._smoke(directions, hits, thermal=True)
        return np.asarray(clear * kelvin + (1.0 - clear) * (light.air_temperature + 6.0))[:, None]

    # --- shared ---

    def _points(self, directions: Array, hits: Hits) -> _Points:
        rays = np.flatnonzero(hits.part >= 0)
        views, distance, parts = directions[rays], hits.distance[rays], hits.part[rays]
        points = self.camera.position + distance[:, None] * views
        normals = np.empty_like(points)
        order = np.argsort(parts, kind="stable")
        numbers, starts = np.unique(parts[order], return_index=True)
        groups = list(zip(numbers.tolist(), np.split(order, starts[1:]), strict=False))
        for index, chosen in groups:
            normals[chosen] = self.tracer.parts[index].solid.normals(points[chosen])
        facing = np.einsum("ni,ni->n", views, normals)
        # Seen through a gap, a leafy shell shows its inner side.
        normals[facing > 0.0] *= -1.0
        slant = np.maximum(np.abs(facing), 0.03)
        footprint = distance * self.camera.pixel_angle / np.sqrt(slant)
        return _Points(rays, points, normals, views, footprint, groups)

    def _smoke(self, directions: Array, hits: Hits, *, thermal: bool) -> Array:
        clear = np.ones(len(directions))
        for smoke in self.snapshot.smoke:
            enter, leave = smoke.solid.span(self.camera.position, directions)
            enter = np.maximum(enter, 0.0)
            thickness = np.clip(np.minimum(leave, hits.distance) - enter, 0.0, None)
            inside = np.flatnonzero(thickness > 0.0)
            middle = enter[inside, None] + 0.5 * thickness[inside, None]
            local = smoke.solid.frame.points_to_local(
                self.camera.position + middle * directions[inside]
            )
            billow = 0.4 + 1.2 * cloud_noise(0.8 * local[:, 1], 0.8 * local[:, 2])
            density = smoke.thermal_density if thermal else smoke.density
            clear[inside] *= np.exp(-density * billow * thickness[inside])
        return clear


@lru_cache(maxsize=8)
def _tile_order(height: int, width: int) -> Index:
    """Pixel numbers row by row within tiles, tile after tile."""
    v, u = np.divmod(np.arange(height * width), width)
    return np.asarray(np.lexsort((u, v, u // TILE, v // TILE)), np.int64)
