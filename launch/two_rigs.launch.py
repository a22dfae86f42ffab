"""Start two fusion nodes, one for the cameras in front and one for those at the back.

Each has a namespace of its own: /front/rgb/image goes into /front/fusion_node, and so on.

ros2 launch mmfusion_ros two_rigs.launch.py artifact:=A front_rig:=F.yaml rear_rig:=R.yaml
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

RIGS = ("front", "rear")


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    share = Path(get_package_share_directory("mmfusion_ros"))
    arguments = [
        DeclareLaunchArgument("artifact", description="folder written by 'mmfusion export'"),
        *(
            DeclareLaunchArgument(
                f"{name}_rig",
                default_value=str(share / "calibration" / "demo.yaml"),
                description=f"rig file of the {name} cameras",
            )
            for name in RIGS
        ),
    ]
    source = str(share / "launch" / "fusion.launch.py")
    nodes = [
        # A group keeps to itself what is set for it.
        GroupAction(
            [
                IncludeLaunchDescription(
                    PythonLaunchDescriptionSource(source),
                    launch_arguments=[
                        ("artifact", LaunchConfiguration("artifact")),
                        ("rig", LaunchConfiguration(f"{name}_rig")),
                        ("namespace", name),
                    ],
                )
            ]
        )
        for name in RIGS
    ]
    return LaunchDescription([*arguments, *nodes])
