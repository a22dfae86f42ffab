"""Play cameras into the fusion node, and look on with RViz.

ros2 launch mmfusion_ros demo.launch.py rviz:=true
ros2 launch mmfusion_ros demo.launch.py data:=/path/to/folder_or_bag
"""

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.frames import Modality

# Where the recording and the artifacts of this repository lie, also in a workspace that was built
# with links to it, as scripts/setup.sh builds it.
CHECKOUT = Path(__file__).resolve().parents[1]


def camera_player(context: LaunchContext) -> list[Node]:
    """The player, with images of the sizes that the artifact takes."""
    given = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("data", "artifact", "rate", "loop", "faults")
    }
    artifact = open_artifact(Path(given["artifact"]))
    loop = given["loop"].lower()
    if loop not in {"true", "false"}:
        raise RuntimeError(f"loop:={given['loop']}: expected true or false")
    words = [given["data"], "--loop" if loop == "true" else "--no-loop"]
    if given["rate"]:
        words += ["--rate", given["rate"]]
    for modality in Modality:
        if modality.value in artifact.inputs:
            height, width = artifact.image_size(modality)
            option = "--size" if modality is Modality.RGB else f"--{modality}-size"
            words += [option, f"{width}x{height}"]
        else:
            words += ["--without", modality.value]
    for fault in given["faults"].split():
        words += ["--fault", fault]
    return [
        Node(
            package="mmfusion_ros",
            executable="camera_player",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            arguments=words,
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    share = Path(get_package_share_directory("mmfusion_ros"))
    defaults: dict[str, tuple[Any, str]] = {
        "data": (CHECKOUT / "data" / "courtyard", "folder of pictures or bag to play"),
        "artifact": (
            CHECKOUT / "artifacts" / "rgbdt_tiny_640x480",
            "folder written by 'mmfusion export'",
        ),
        "rig": (share / "calibration" / "demo.yaml", "rig file of the cameras"),
        "rate": ("5", "RGB pictures per second; empty: as recorded"),
        "loop": ("true", "begin again at the end"),
        "faults": ("", "faults of the cameras, with spaces between: thermal:freeze=1.5@4 ..."),
        "namespace": ("", "namespace of cameras and node; RViz looks at the topics without one"),
        "log_level": ("info", "least severity that the node logs"),
        "rviz": ("false", "start RViz too"),
        "rviz_config": (share / "rviz" / "fusion.rviz", "what RViz shows"),
    }
    arguments = [
        DeclareLaunchArgument(name, default_value=str(default), description=description)
        for name, (default, description) in defaults.items()
    ]
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share / "launch" / "fusion.launch.py")),
        launch_arguments=[
            (name, LaunchConfiguration(name))
            for name in ("artifact", "rig", "namespace", "log_level")
        ],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", LaunchConfiguration("rviz_config")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, node, OpaqueFunction(function=camera_player), rviz])
