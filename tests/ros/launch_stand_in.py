"""A small stand-in for ``launch`` and ``launch_ros``, which are not among the ROS wheels on PyPI.

It has what this repository's launch files use, with the signatures that the two packages document,
and runs a description as far as to what would be started. It starts nothing.
"""

from __future__ import annotations

import contextlib
import runpy
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class LaunchContext:
    """Values of the launch configurations, and what was started so far."""

    def __init__(self) -> None:
        self.launch_configurations: dict[str, str] = {}
        self.declared: dict[str, DeclareLaunchArgument] = {}
        self.started: list[Started] = []

    def perform(self, value: Any) -> str:
        """A substitution, a list of them or a text as text."""
        if isinstance(value, str):
            return value
        if isinstance(value, (list, tuple)):
            return "".join(map(self.perform, value))
        return value.perform(self)


@dataclass
class Started:
    """One process that would be started."""

    package: str
    executable: str
    arguments: list[str] = field(default_factory=list)
    name: str = ""
    namespace: str = ""
    parameter_files: list[str] = field(default_factory=list)
    parameters: dict[str, Any] = field(default_factory=dict)
    ros_arguments: list[str] = field(default_factory=list)
    lifecycle: bool = False


class LaunchConfiguration:
    def __init__(self, variable_name: str, *, default: str | None = None) -> None:
        self.name, self.default = variable_name, default

    def perform(self, context: LaunchContext) -> str:
        if self.name in context.launch_configurations:
            return context.launch_configurations[self.name]
        if self.default is None:
            raise LookupError(f"launch configuration '{self.name}' does not exist")
        return self.default


class ExecutableInPackage:
    def __init__(self, executable: str, package: str, *, exec_name: str | None = None) -> None:
        self.executable, self.package = executable, package


class ParameterValue:
    def __init__(self, value: Any, *, value_type: type | None = None) -> None:
        self.value, self.value_type = value, value_type

    def evaluate(self, context: LaunchContext) -> Any:
        text = context.perform(self.value)
        return text if self.value_type is str else self.value_type(text)


class IfCondition:
    def __init__(self, predicate_expression: Any) -> None:
        self.expression = predicate_expression

    def evaluate(self, context: LaunchContext) -> bool:
        text = context.perform(self.expression).lower()
        return {"true": True, "1": True, "false": False, "0": False}[text]


class Action:
    def __init__(self, *, condition: IfCondition | None = None) -> None:
        self.condition = condition

    def visit(self, context: LaunchContext) -> None:
        if self.condition is None or self.condition.evaluate(context):
            for action in self.execute(context) or ():
                action.visit(context)

    def execute(self, context: LaunchContext) -> Iterable[Action] | None:
        raise NotImplementedError


class LaunchDescription:
    def __init__(self, initial_entities: Iterable[Action] | None = None) -> None:
        self.entities = list(initial_entities or ())


class DeclareLaunchArgument(Action):
    def __init__(
        self,
        name: str,
        *,
        default_value: Any = None,
        description: str | None = None,
        choices: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(default_value, (str, LaunchConfiguration, type(None))):
            raise TypeError(f"default of {name} is {default_value!r}, no substitution")
        self.name, self.default, self.description = name, default_value, description

    def execute(self, context: LaunchContext) -> None:
        context.declared[self.name] = self
        if self.name not in context.launch_configurations:
            if self.default is None:
                raise RuntimeError(f"Required launch argument '{self.name}' was not provided")
            context.launch_configurations[self.name] = context.perform(self.default)


class OpaqueFunction(Action):
    def __init__(self, *, function: Callable[..., Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def execute(self, context: LaunchContext) -> Any:
        return self.function(context)


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path: str) -> None:
        self.path = launch_file_path


class IncludeLaunchDescription(Action):
    def __init__(
        self,
        launch_description_source: PythonLaunchDescriptionSource,
        *,
        launch_arguments: Iterable[tuple[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source, self.arguments = launch_description_source, list(launch_arguments or ())

    def execute(self, context: LaunchContext) -> list[Action]:
        for name, value in self.arguments:
            context.launch_configurations[name] = context.perform(value)
        entities = load(Path(self.source.path)).entities
        declared = {e.name for e in entities if isinstance(e, DeclareLaunchArgument)}
        unknown = {name for name, _ in self.arguments} - declared
        if unknown:
            raise RuntimeError(f"{self.source.path} has no arguments {unknown}")
        return entities


class GroupAction(Action):
    def __init__(self, actions: Iterable[Action], *, scoped: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.actions, self.scoped = list(actions), scoped

    def execute(self, context: LaunchContext) -> None:
        before = dict(context.launch_configurations)
        for action in self.actions:
            action.visit(context)
        if self.scoped:
            context.launch_configurations = before


class ExecuteProcess(Action):
    def __init__(self, *, cmd: Iterable[Any], output: str = "log", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cmd = list(cmd)

    def execute(self, context: LaunchContext) -> None:
        program, *words = self.cmd
        arguments = list(map(context.perform, words))
        context.started.append(Started(program.package, program.executable, arguments))


class Node(Action):
    lifecycle = False

    def __init__(
        self,
        *,
        executable: Any,
        package: Any = None,
        name: Any = None,
        namespace: Any = None,
        parameters: list[Any] | None = None,
        remappings: Any = None,
        ros_arguments: Iterable[Any] | None = None,
        arguments: Iterable[Any] | None = None,
        output: str = "log",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(parameters, (list, type(None))):
            raise TypeError("parameters must be a list")
        self.executable, self.package = executable, package
        self.name, self.namespace = name or "", namespace or ""
        self.parameters, self.arguments = parameters or [], list(arguments or ())
        self.ros_arguments = list(ros_arguments or ())

    def execute(self, context: LaunchContext) -> None:
        started = Started(
            context.perform(self.package),
            context.perform(self.executable),
            list(map(context.perform, self.arguments)),
            context.perform(self.name),
            context.perform(self.namespace),
            ros_arguments=list(map(context.perform, self.ros_arguments)),
            lifecycle=self.lifecycle,
        )
        for entry in self.parameters:
            if not isinstance(entry, Mapping):
                started.parameter_files.append(context.perform(entry))
                continue
            for name, value in entry.items():
                is_value = isinstance(value, ParameterValue)
                started.parameters[name] = value.evaluate(context) if is_value else value
        context.started.append(started)


class LifecycleNode(Node):
    lifecycle = True

    def __init__(self, *, name: Any, namespace: Any, **kwargs: Any) -> None:
        super().__init__(name=name, namespace=namespace, **kwargs)


MODULES = {
    "launch": (LaunchContext, LaunchDescription),
    "launch.actions": (
        DeclareLaunchArgument,
        ExecuteProcess,
        GroupAction,
        IncludeLaunchDescription,
        OpaqueFunction,
    ),
    "launch.conditions": (IfCondition,),
    "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
    "launch.substitutions": (LaunchConfiguration,),
    "launch_ros": (),
    "launch_ros.actions": (LifecycleNode, Node),
    "launch_ros.parameter_descriptions": (ParameterValue,),
    "launch_ros.substitutions": (ExecutableInPackage,),
}


@contextlib.contextmanager
def standing_in(share: Path) -> Iterator[None]:
    """Let launch files import the stand-in, and find the package's share folder."""
    index = types.ModuleType("ament_index_python.packages")
    index.get_package_share_directory = {"mmfusion_ros": str(share)}.__getitem__
    modules = {"ament_index_python.packages": index}
    for name, classes in MODULES.items():
        modules[name] = types.ModuleType(name)
        vars(modules[name]).update({each.__name__: each for each in classes})
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def load(path: Path) -> LaunchDescription:
    """The description that a launch file gives."""
    description = runpy.run_path(str(path))["generate_launch_description"]()
    assert isinstance(description, LaunchDescription)
    return description


def launch(path: Path, share: Path, **arguments: str) -> LaunchContext:
    """Run a launch file with arguments; return what it declared and would start."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    with standing_in(share):
        for entity in load(path).entities:
            entity.visit(context)
    return context
