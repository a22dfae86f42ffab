"""Fuse a recorded bag offline, with metrics and a report.

ros2 launch mmfusion_ros replay.launch.py bag:=/path/to/bag artifact:=/path/to/artifact out:=DIR
"""

import shlex

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

from launch import LaunchContext, LaunchDescription

REQUIRED = {
    "bag": "bag folder, or a .mcap, .db3 or .bag file",
    "artifact": "folder written by 'mmfusion export'",
    "out": "folder for the results",
}
OPTIONAL = {
    "rig": "rig file of the cameras; empty: none",
    "backend": "engine that runs the graph; empty: auto",
    "options": "any other options of 'replay', as on the command line: '--stride 5 --no-report'",
}


def replay(context: LaunchContext) -> list[ExecuteProcess]:
    """The program; it is no node, so it takes no ROS arguments."""
    given = {name: LaunchConfiguration(name).perform(context) for name in (*REQUIRED, *OPTIONAL)}
    command = [ExecutableInPackage(package="mmfusion_ros", executable="replay"), given["bag"]]
    for name in ("artifact", "out", "rig", "backend"):
        if given[name]:
            command += [f"--{name}", given[name]]
    return [ExecuteProcess(cmd=[*command, *shlex.split(given["options"])], output="screen")]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    required = [
        DeclareLaunchArgument(name, description=description)
        for name, description in REQUIRED.items()
    ]
    optional = [
        DeclareLaunchArgument(name, default_value="", description=description)
        for name, description in OPTIONAL.items()
    ]
    return LaunchDescription([*required, *optional, OpaqueFunction(function=replay)])
