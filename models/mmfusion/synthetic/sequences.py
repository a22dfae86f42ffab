"""Sequences of frames with ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfusion.synthetic.geometry import Array, Frame
from mmfusion.synthetic.render import View
from mmfusion.synthetic.sensors import DepthSensor, RgbSensor, ThermalSensor, generator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mmfusion.synthetic.camera import Rig
    from mmfusion.synthetic.scene import Scene, Snapshot

CLASS_NAMES = ("person", "car")
MIN_PIXELS = 24  # smaller remains of an object get no box


@dataclass(frozen=True)
class Sensors:
    """The three sensors of a rig and how late each one is.

    Attributes:
        rgb: colour camera.
        depth: depth camera.
        thermal: thermal camera.
        depth_delay: seconds after the RGB frame.
        thermal_delay: seconds after the RGB frame.
        delay_jitter: standard deviation of both delays, seconds.
    """

    rgb: RgbSensor = field(default_factory=RgbSensor)
    depth: DepthSensor = field(default_factory=DepthSensor)
    thermal: ThermalSensor = field(default_factory=ThermalSensor)
    depth_delay: float = 0.004
    thermal_delay: float = 0.009
    delay_jitter: float = 0.0008


@dataclass(frozen=True, eq=False)
class Box:
    """One object in the RGB view.

    Attributes:
        instance: its id in the instance map.
        class_name: what it is.
        xyxy: left, top, right, bottom in pixel edges around its visible pixels, so that
            ``picture[top:bottom, left:right]`` is just the object.
        pixels: number of its visible pixels.
        visible: share 0..1 of its outline within the picture that nothing hides.
        center: ``(3,)`` middle of its 3-D box in the RGB optical frame, metres.
        size: (length, width, height) of the 3-D box, metres.
        axes: ``(3, 3)`` columns are its length, width and height axes in the optical frame.
    """

    instance: int
    class_name: str
    xyxy: tuple[int, int, int, int]
    pixels: int
    visible: float
    center: Array
    size: tuple[float, float, float]
    axes: Array


@dataclass(frozen=True, eq=False)
class RenderedFrame:
    """One frame of all three cameras, with the truth in the RGB view.

    Attributes:
        index: number of the frame.
        stamps_ns: time of each picture, by name rgb, depth, thermal.
        rig: the cameras as they stood in the world at the RGB stamp.
        rgb: uint8 ``(h, w, 3)``.
        depth: uint16 ``(hd, wd)`` millimetres, 0 = no value.
        thermal: uint16 ``(ht, wt)`` counts, kelvin times 100.
        instances: uint16 ``(h, w)`` instance ids, 0 = sky.
        saliency: uint8 ``(h, w)``, 255 on people and cars, else 0.
        true_depth: float32 ``(h, w)`` z of the RGB view in metres, inf = sky.
        boxes: visible objects.
    """

    index: int
    stamps_ns: dict[str, int]
    rig: Rig
    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    thermal: NDArray[np.uint16]
    instances: NDArray[np.uint16]
    saliency: NDArray[np.uint8]
    true_depth: NDArray[np.float32]
    boxes: tuple[Box, ...]


def render_sequence(
    scene: Scene,
    rig: Rig,
    times_s: Iterable[float],
    seed: int = 0,
    sensors: Sensors | None = None,
) -> Iterator[RenderedFrame]:
    """Render frames one by one.

    Each sensor sees the scene at its own stamp. The result depends on the arguments only; frame
    ``i`` is the same whether or not other frames are asked for.

    Args:
        scene: what to look at.
        rig: cameras in the body frame; the scene says where the body is.
        times_s: RGB times.
        seed: of all sensor noise and jitter.
        sensors: noise models; the defaults stand for a stereo camera and a microbolometer.
    """
    sensors = Sensors() if sensors is None else sensors
    for index, time_s in enumerate(times_s):
        yield render_frame(scene, rig, time_s, index=index, seed=seed, sensors=sensors)


def render_frame(
    scene: Scene, rig: Rig, time_s: float, *, index: int, seed: int, sensors: Sensors
) -> RenderedFrame:
    """Render one frame; see `render_sequence`."""
    jitter = sensors.delay_jitter * np.clip(generator(seed, index, 0).standard_normal(2), -2, 2)
    times = {
        "rgb": time_s,
        "depth": time_s + max(0.0, sensors.depth_delay + float(jitter[0])),
        "thermal": time_s + max(0.0, sensors.thermal_delay + float(jitter[1])),
    }
    snapshot = scene.at(times["rgb"])
    placed = rig.placed(scene.viewpoint(times["rgb"]))
    color = View(snapshot, placed.rgb)
    rgb = sensors.rgb.read(color.radiance(), snapshot.light.noise, generator(seed, index, 1))

    ranging = View(scene.at(times["depth"]), rig.depth.placed(scene.viewpoint(times["depth"])))
    depth = sensors.depth.read(
        ranging.depth(), ranging.clearness(), ranging.gloss(), generator(seed, index, 2)
    )
    warmth = View(scene.at(times["thermal"]), rig.thermal.placed(scene.viewpoint(times["thermal"])))
    thermal = sensors.thermal.read(
        warmth.temperature(), times["thermal"], generator(seed, index, 3), generator(seed, 4)
    )
    instances = color.instances()
    salient = np.array([False, *(thing.salient for thing in snapshot.things)])
    return RenderedFrame(
        index=index,
        stamps_ns={name: round(t * 1e9) for name, t in times.items()},
        rig=placed,
        rgb=rgb,
        depth=depth,
        thermal=thermal,
        instances=instances.astype(np.uint16),
        saliency=np.where(salient[instances], 255, 0).astype(np.uint8),
        true_depth=color.depth().astype(np.float32),
        boxes=tuple(_boxes(snapshot, color, instances)),
    )


def _boxes(snapshot: Snapshot, view: View, instances: NDArray[np.int64]) -> Iterator[Box]:
    for number, thing in enumerate(snapshot.things):
        if not thing.salient or thing.frame is None:
            continue
        rows, columns = np.nonzero(instances == number + 1)
        if rows.size < MIN_PIXELS:
            continue
        corners = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        left, top, right, bottom = (int(corner) for corner in corners)
        frame: Frame = thing.frame
        yield Box(
            instance=number + 1,
            class_name=thing.class_name,
            xyxy=(left, top, right, bottom),
            pixels=int(rows.size),
            visible=rows.size / int(view.hits.outlines[number]),
            center=view.camera.to_optical(frame.origin[None])[0],
            size=thing.size,
            axes=np.asarray(view.camera.pose[:3, :3].T @ frame.axes),
        )
