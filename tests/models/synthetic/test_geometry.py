"""Ray spans against a brute-force walk along the ray, normals against finite differences."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.synthetic.geometry import (
    Capsule,
    Cylinder,
    Ellipsoid,
    Frame,
    HalfSpace,
    box,
    prism,
    sphere,
    upright,
)


def turned(origin=(0.3, -0.2, 0.1)):
    rotation, _ = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))
    return Frame(np.asarray(origin), rotation * np.linalg.det(rotation))


def inside_box(points, frame, size):
    return (np.abs((points - frame.origin) @ frame.axes) <= np.asarray(size) / 2).all(axis=1)


def to_segment(points, start, end):
    axis = end - start
    share = np.clip((points - start) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(points - start - share[:, None] * axis, axis=1)


START, END = np.array([-0.4, 0.1, -0.3]), np.array([0.5, 0.3, 0.6])
AXIS = (END - START) / np.linalg.norm(END - START)


def inside_tube(points):
    along = (points - START) @ AXIS
    radial = np.linalg.norm(points - START - along[:, None] * AXIS, axis=1)
    return (along >= 0) & (along <= np.linalg.norm(END - START)) & (radial <= 0.35)


def inside_prism(points):
    x, y, z = ((points - turned().origin) @ turned().axes).T
    return (np.abs(y) <= 0.4) & (z >= -0.5) & (z + x <= 0.5) & (z - x <= 0.5)


SOLIDS = {
    "half space": (HalfSpace(0.1), lambda p: p[:, 2] <= 0.1),
    "sphere": (
        sphere((0.1, 0.2, -0.1), 0.7),
        lambda p: np.linalg.norm(p - [0.1, 0.2, -0.1], axis=1) <= 0.7,
    ),
    "ellipsoid": (
        Ellipsoid(turned(), np.array([0.8, 0.4, 0.25])),
        lambda p: (
            np.square((p - turned().origin) @ turned().axes / [0.8, 0.4, 0.25]).sum(axis=1) <= 1
        ),
    ),
    "capsule": (Capsule(START, END, 0.35), lambda p: to_segment(p, START, END) <= 0.35),
    "cylinder": (Cylinder(START, END, 0.35), inside_tube),
    "box": (box(turned(), (1.2, 0.5, 0.8)), lambda p: inside_box(p, turned(), (1.2, 0.5, 0.8))),
    "prism": (prism(turned(), [(-1.0, -0.5), (1.0, -0.5), (0.0, 0.5)], 0.8), inside_prism),
}

coordinate = st.floats(-2, 2, allow_nan=False)
directions = st.tuples(coordinate, coordinate, coordinate).filter(
    lambda d: math.hypot(*d) > 0.1 and all(abs(x) > 1e-3 or x == 0 for x in d)
)


@pytest.mark.parametrize("name", SOLIDS)
@settings(max_examples=80, deadline=None)
@given(st.tuples(coordinate, coordinate, coordinate), directions)
def test_span_is_where_the_ray_is_inside(name, origin, direction):
    solid, inside = SOLIDS[name]
    origin, direction = np.asarray(origin), np.asarray(direction)
    direction = direction / np.linalg.norm(direction)
    enter, leave = solid.span(origin, direction[None])
    t = np.linspace(-6, 6, 2401)
    truth = inside(origin + t[:, None] * direction)
    margin = 1e-6
    surely_in = (t > enter[0] + margin) & (t < leave[0] - margin)
    surely_out = (t < enter[0] - margin) | (t > leave[0] + margin)
    assert truth[surely_in].all()
    assert not truth[surely_out].any()


@pytest.mark.parametrize("name", SOLIDS)
def test_many_origins_or_many_directions_give_the_same(name):
    solid, _ = SOLIDS[name]
    rng = np.random.default_rng(0)
    origin, along = rng.standard_normal(3), rng.standard_normal((50, 3))
    many = np.tile(origin, (50, 1))
    np.testing.assert_allclose(solid.span(origin, along), solid.span(many, along), atol=1e-12)
    one = np.tile(along[:1], (50, 1))
    starts = rng.standard_normal((50, 3))
    np.testing.assert_allclose(solid.span(starts, along[0]), solid.span(starts, one), atol=1e-12)


@pytest.mark.parametrize("name", SOLIDS)
def test_normals_point_out_and_bounds_hold_the_surface(name):
    solid, inside = SOLIDS[name]
    rng = np.random.default_rng(1)
    target = solid.bounds()[0] + 0.2 * rng.standard_normal((400, 3))
    along = rng.standard_normal((400, 3))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    origins = target - 4 * along
    enter, leave = solid.span(origins, along)
    hit = (enter < leave) & np.isfinite(enter)
    assert hit.sum() > 100
    points = origins[hit] + enter[hit, None] * along[hit]
    normals = solid.normals(points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)
    assert not inside(points + 1e-6 * normals).any()
    assert inside(points - 1e-6 * normals).mean() > 0.99  # not so just at a sharp edge
    assert (np.einsum("ni,ni->n", normals, along[hit]) <= 1e-9).all()
    center, radius = solid.bounds()
    assert (np.linalg.norm(points - center, axis=1) <= radius + 1e-9).all()


def test_upright_frame_turns_left():
    frame = upright(1.0, 2.0, 0.5, math.pi / 2)
    np.testing.assert_allclose(frame.place((1.0, 0.0, 0.0)), [1.0, 3.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(
        frame.points_to_local(np.array([1.0, 3.0, 0.5])), [1, 0, 0], atol=1e-12
    )
