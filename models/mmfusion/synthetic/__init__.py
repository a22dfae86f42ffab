"""Made-up scenes with perfect ground truth, rendered for RGB, depth and thermal cameras alike."""

from mmfusion.synthetic.camera import Camera, Rig, aligned_rig, correspondence, offset_rig
from mmfusion.synthetic.courtyard import SCENES, Courtyard, Target, TargetScene, make_scene
from mmfusion.synthetic.recording import write_sequence
from mmfusion.synthetic.scene import Part, Scene, Smoke, Snapshot, Thing
from mmfusion.synthetic.sensors import DepthSensor, RgbSensor, ThermalSensor
from mmfusion.synthetic.sequences import Box, RenderedFrame, Sensors, render_frame, render_sequence

__all__ = [
    "SCENES",
    "Box",
    "Camera",
    "Courtyard",
    "DepthSensor",
    "Part",
    "RenderedFrame",
    "RgbSensor",
    "Rig",
    "Scene",
    "Sensors",
    "Smoke",
    "Snapshot",
    "Target",
    "TargetScene",
    "ThermalSensor",
    "Thing",
    "aligned_rig",
    "correspondence",
    "make_scene",
    "offset_rig",
    "render_frame",
    "render_sequence",
    "write_sequence",
]
