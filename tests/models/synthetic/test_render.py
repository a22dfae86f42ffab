"""Rendered pictures against closed forms, and the culling tracer against testing everything."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmfusion.synthetic import (
    Part,
    Smoke,
    Snapshot,
    TargetScene,
    Thing,
    aligned_rig,
    correspondence,
    make_scene,
    offset_rig,
)
from mmfusion.synthetic.camera import looking
from mmfusion.synthetic.geometry import Frame, HalfSpace, box, sphere, upright
from mmfusion.synthetic.light import DAY
from mmfusion.synthetic.materials import Material
from mmfusion.synthetic.render import View
from mmfusion.synthetic.tracing import Tracer, entry

CLEAR = replace(DAY, clouds=0.0)
GREY = Material((0.4, 0.4, 0.4), 300.0, 1.0)


def world(*things, **more):
    return Snapshot(tuple(things), CLEAR, **more)


def thing(solid, material=GREY, name="person"):
    return Thing((Part(solid, material),), name, Frame(solid.bounds()[0]), (1, 1, 1))


def level_camera(height=1.5):
    return aligned_rig().rgb.placed(looking((0, 0, height), (10, 0, height)))


def ray_grid(camera):
    v, u = np.mgrid[: camera.height, : camera.width]
    x = (u - camera.matrix[0, 2]) / camera.matrix[0, 0]
    y = (v - camera.matrix[1, 2]) / camera.matrix[1, 1]
    return x, y


class TestClosedForms:
    def test_sphere(self):
        """Ray (x, y, 1) s meets a sphere at c where |s d - c|^2 = r^2."""
        camera = level_camera()
        view = View(world(thing(sphere((5.0, 0.6, 1.2), 0.9))), camera)
        x, y = ray_grid(camera)
        center = np.array([-0.6, 0.3, 5.0])  # left is -x, lower is +y
        a, b = x * x + y * y + 1, x * center[0] + y * center[1] + center[2]
        discriminant = b * b - a * (center @ center - 0.81)
        hit = discriminant > 0
        np.testing.assert_array_equal(view.instances() == 1, hit)
        depth = view.depth()
        np.testing.assert_allclose(
            depth[hit], ((b - np.sqrt(np.maximum(discriminant, 0))) / a)[hit]
        )
        assert np.isinf(depth[~hit]).all()

    def test_ground(self):
        camera = level_camera(1.5)
        depth = View(world(thing(HalfSpace())), camera).depth()
        _, y = ray_grid(camera)
        np.testing.assert_allclose(depth[240:], (1.5 / y)[240:], rtol=1e-9)
        assert np.isinf(depth[:240]).all()

    def test_wall_has_one_depth(self):
        view = View(world(thing(box(upright(6.5, 0, 0), (1, 30, 30)))), level_camera())
        np.testing.assert_allclose(view.depth(), 6.0)

    def test_temperature_of_a_black_wall(self):
        wall = thing(box(upright(6.5, 0, 0), (1, 30, 30)), Material((0.1, 0.1, 0.1), 310.0, 1.0))
        kelvin = View(world(wall), level_camera()).temperature()
        # 0.2 % of the way is air.
        np.testing.assert_allclose(kelvin, 310.0, atol=0.08)

    def test_temperature_of_a_mirror(self):
        """Level rays come back level: own emission plus the mirrored sky just there."""
        wall = thing(
            box(upright(2.5, 0, 0), (1, 30, 30)), Material(temperature=310.0, emissivity=0.6)
        )
        kelvin = View(world(wall), level_camera()).temperature()
        beside = CLEAR.air_temperature  # below the horizon mirrors show things as warm as the air
        want = (0.6 * 310.0**4 + 0.4 * beside**4) ** 0.25
        assert kelvin[300, 320] == pytest.approx(want, abs=0.05)

    def test_sky_is_coldest_overhead(self):
        camera = aligned_rig().rgb.placed(looking((0, 0, 1), (0.01, 0, 10)))
        up = View(world(thing(HalfSpace())), camera).temperature()
        assert up[240, 320] == pytest.approx(CLEAR.sky_temperature, abs=0.3)
        assert View(world(thing(HalfSpace())), level_camera()).temperature()[0, 320] > up[240, 320]

    def test_shadow_lies_where_the_sun_says(self):
        ball = sphere((6.0, 0.0, 3.0), 0.5)
        scene = world(Thing((Part(HalfSpace(), GREY),)), Thing((Part(ball, GREY),)))
        camera = level_camera(3.0)
        sun = CLEAR.sun_direction
        spot = np.array([6.0, 0.0, 3.0]) - sun * 3.0 / sun[2]
        beside = spot + np.array([0.0, 1.5, 0.0])
        (dark, lit), _ = camera.project(np.stack([spot, beside]))
        picture = View(scene, camera).radiance().mean(axis=2)
        assert (
            picture[tuple(np.rint(dark[::-1]).astype(int))]
            < 0.5 * picture[tuple(np.rint(lit[::-1]).astype(int))]
        )


class TestTracer:
    """The tracer tests bundles of rays with few parts; here every ray meets every part."""

    @pytest.fixture
    def tracer(self):
        return Tracer(make_scene("courtyard").at(1.7))

    def some_rays(self, seed):
        rng = np.random.default_rng(seed)
        origin = np.array([0.5, 0.2, 1.3])
        targets = np.array([9.0, 0.0, 1.0]) + rng.standard_normal((700, 3)) * [3.0, 3.5, 1.2]
        directions = targets - origin
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        # A picture's order: neighbours together.
        return origin, directions[np.lexsort((directions[:, 2], directions[:, 1].round(1)))]

    @pytest.mark.parametrize("seed", range(3))
    def test_first_hits(self, tracer, seed):
        origin, directions = self.some_rays(seed)
        each = np.stack([entry(part, origin, directions) for part in tracer.parts])
        hits = tracer.first_hits(origin, directions)
        np.testing.assert_allclose(hits.distance, each.min(axis=0), rtol=1e-9)
        hit = np.isfinite(hits.distance)
        np.testing.assert_array_equal(hits.part[hit], each.argmin(axis=0)[hit])
        assert (hits.part[~hit] == -1).all()
        for person in range(4):
            mine = each[tracer.owner == person]
            assert hits.outlines[person] == np.isfinite(mine).any(axis=0).sum()

    def test_shadows(self, tracer):
        origin, directions = self.some_rays(7)
        hits = tracer.first_hits(origin, directions)
        found = np.isfinite(hits.distance)
        points = origin + 0.999 * hits.distance[found, None] * directions[found]
        blocking = [
            part
            for part in tracer.parts
            if part.material.glow is None and math.isfinite(part.solid.bounds()[1])
        ]
        sun = np.array([0.5, -0.4, 0.6])
        sun /= np.linalg.norm(sun)
        want = np.isfinite([entry(part, points, sun) for part in blocking]).any(axis=0)
        np.testing.assert_array_equal(tracer.blocked_towards(sun, points), want)
        lamp = np.array([6.6, 3.7, 3.45])
        away = points - lamp
        far = np.linalg.norm(away, axis=1)
        each = np.stack([entry(part, lamp, away / far[:, None]) for part in blocking])
        np.testing.assert_array_equal(
            tracer.blocked_from(lamp, points), (each < far - 1e-3).any(axis=0)
        )
        assert 0.02 < want.mean() < 0.98

    def test_no_rays(self, tracer):
        nothing = np.empty((0, 3))
        assert tracer.first_hits(np.zeros(3), nothing).distance.size == 0
        assert tracer.blocked_from(np.ones(3), nothing).size == 0
        assert tracer.blocked_towards(np.array([0, 0, 1.0]), nothing).size == 0


class TestCameras:
    def test_depth_carries_pixels_into_the_thermal_view(self):
        """Where nothing hides it, an RGB pixel lands on its own object in the thermal camera."""
        scene = make_scene("courtyard")
        rig = offset_rig().placed(scene.viewpoint(2.0))
        color, warm = View(scene.at(2.0), rig.rgb), View(scene.at(2.0), rig.thermal)
        pixels, z = correspondence(color.depth(), rig.rgb, rig.thermal)
        near = np.full(z.shape, np.nan)
        ids = np.zeros(z.shape, int)
        inside = np.isfinite(pixels).all(axis=2)
        nearest = np.rint(np.nan_to_num(pixels, nan=-1)).astype(int)
        inside &= (nearest >= 0).all(axis=2) & (nearest[..., 0] < 320) & (nearest[..., 1] < 256)
        u, v = nearest[inside].T
        near[inside], ids[inside] = warm.depth()[v, u], warm.instances()[v, u]
        open_view = inside & (np.abs(near - z) < 0.02 * z)
        assert open_view.sum() > 0.5 * inside.sum()
        same = ids[open_view] == color.instances()[open_view]
        assert same.mean() > 0.98
        people = open_view & (color.instances() >= 1) & (color.instances() <= 3)
        assert people.sum() > 300
        assert (ids[people] == color.instances()[people]).mean() > 0.97

    def test_known_points_land_on_their_things(self):
        scene = make_scene("courtyard")
        snapshot = scene.at(0.5)
        camera = offset_rig().rgb.placed(scene.viewpoint(0.5))
        ids = View(snapshot, camera).instances()
        for number, object_ in enumerate(snapshot.things[:4]):
            assert object_.frame is not None
            (pixel,), _ = camera.project(object_.frame.origin[None] + [0, 0, 0.25])
            assert ids[round(pixel[1]), round(pixel[0])] == number + 1

    def test_smoke_hides_from_light_but_not_from_heat(self):
        wall = thing(box(upright(8.5, 0, 0), (1, 40, 40)), Material((0.9, 0.1, 0.1), 300.0, 1.0))
        cloud = Smoke(sphere((4.0, 0.0, 1.5), 1.2), density=3.0)
        clear, smoky = (View(world(wall, smoke=smoke), level_camera()) for smoke in ((), (cloud,)))
        middle = (240, 320)
        assert clear.clearness().min() == 1.0
        assert smoky.clearness()[middle] < 0.1
        redness = [
            view.radiance()[middle][0] - view.radiance()[middle][1] for view in (clear, smoky)
        ]
        assert redness[1] < 0.2 * redness[0]
        assert abs(clear.temperature()[middle] - smoky.temperature()[middle]) < 1.5
        assert smoky.clearness()[5, 5] == 1.0

    @pytest.mark.parametrize("time_s", [0.0, 0.8])
    def test_target_corners_are_where_its_points_project(self, time_s):
        scene = TargetScene()
        rig = offset_rig().placed(scene.viewpoint(time_s))
        points = scene.target(time_s).points()
        for camera, picture in (
            (rig.rgb, View(scene.at(time_s), rig.rgb).radiance().mean(axis=2)),
            (rig.thermal, (View(scene.at(time_s), rig.thermal).temperature() - 290) / 20),
        ):
            want, _ = camera.project(points)
            grey = np.clip(255 * picture, 0, 255).astype(np.uint8)
            stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-3)
            start = want.astype(np.float32).reshape(-1, 1, 2)
            got = cv2.cornerSubPix(grey, start.copy(), (4, 4), (-1, -1), stop).reshape(-1, 2)
            assert np.linalg.norm(got - want, axis=1).max() < 0.35
