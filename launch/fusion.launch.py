"""Start the fusion node.

ros2 launch mmfusion_ros fusion.launch.py artifact:=/path/to/artifact rig:=/path/to/rig.yaml
"""

from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from launch import LaunchContext, LaunchDescription
from mmfusion_ros.dds_profile import apply_dds_profile
from mmfusion_ros.parameters import TABLE, Parameter

# What is passed in any case; every other parameter of the node only if it is given.
ALWAYS = ("artifact", "rig", "autostart")


def given_parameters(context: LaunchContext) -> dict[str, Any]:
    """The parameters that an argument gives, ready for the node."""
    texts = {row: LaunchConfiguration(row.name).perform(context) for row in TABLE}
    return {
        row.name: value_of(row, text) for row, text in texts.items() if text or row.name in ALWAYS
    }


def value_of(row: Parameter, text: str) -> Any:
    """An argument's text as a value of the parameter's type."""
    if row.type is str:
        return ParameterValue(text, value_type=str)  # else "123" would become a number
    try:
        if row.type is bool:
            return {"true": True, "false": False}[text.lower()]
        return row.type(text)
    except (KeyError, ValueError):
        raise RuntimeError(
            f"{row.name}:={text}: expected a value of type {row.type.__name__}"
        ) from None


def fusion_node(context: LaunchContext) -> list[LifecycleNode]:
    """The node, with what was given; later entries of its parameters win."""
    return [
        LifecycleNode(
            package="mmfusion_ros",
            executable="fusion_node",
            name="fusion_node",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=[LaunchConfiguration("params_file"), given_parameters(context)],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe the launch."""
    share = Path(get_package_share_directory("mmfusion_ros"))
    apply_dds_profile()  # for all processes of this launch, camera drivers too
    defaults = {"rig": str(share / "calibration" / "demo.yaml"), "autostart": "true"}
    arguments = []
    for row in TABLE:
        if row.name == "artifact":  # the one that must be given
            arguments.append(DeclareLaunchArgument(row.name, description=row.description))
            continue
        default = defaults.get(row.name, "")
        unset = "" if default else f"; unset: as in params_file, which has {row.default}"
        arguments.append(
            DeclareLaunchArgument(
                row.name, default_value=default, description=f"{row.description}{unset}"
            )
        )
    arguments += [
        DeclareLaunchArgument(
            "params_file",
            default_value=str(share / "config" / "fusion.yaml"),
            description="YAML file of parameters; arguments that are given win over it",
        ),
        DeclareLaunchArgument(
            "namespace", default_value="", description="namespace of the node and of its inputs"
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="least severity that is logged: debug, info, warn, error or fatal",
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=fusion_node)])
