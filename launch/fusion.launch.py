"""Start the fusion node.

ros2 launch mmfusion_ros fusion.launch.py artifact:=/path/to/artifact rig:=/path/to/rig.yaml
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchDescription
from mmfusion_ros.dds_profile import apply_dds_profile


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    share = Path(get_package_share_directory("mmfusion_ros"))
    apply_dds_profile()  # for all processes of this launch, camera drivers too
    arguments = [
        DeclareLaunchArgument("artifact", description="folder written by 'mmfusion export'"),
        DeclareLaunchArgument(
            "rig",
            default_value=str(share / "calibration" / "demo.yaml"),
            description="rig file of the cameras",
        ),
        DeclareLaunchArgument(
            "backend", default_value="auto", description="engine that runs the graph"
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="namespace of the node and of its inputs"
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="configure and activate without a lifecycle manager",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=str(share / "config" / "fusion.yaml"),
            description="all other parameters",
        ),
    ]
    node = LifecycleNode(
        package="mmfusion_ros",
        executable="fusion_node",
        name="fusion_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "artifact": LaunchConfiguration("artifact"),
                "rig": LaunchConfiguration("rig"),
                "backend": LaunchConfiguration("backend"),
                "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
            },
        ],
    )
    return LaunchDescription([*arguments, node])
