"""The managed node: cameras in, what the graph makes of them out."""

from __future__ import annotations

import argparse
import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from mmfusion_ros import topics
from mmfusion_ros.cameras import Cameras
from mmfusion_ros.clock_watch import ClockWatch
from mmfusion_ros.core.errors import MmfusionError
from mmfusion_ros.core.frames import Modality
from mmfusion_ros.core.fusion_worker import FusionWorker
from mmfusion_ros.core.results import Results
from mmfusion_ros.dds_profile import apply_dds_profile
from mmfusion_ros.diagnostics import (
    FrameTally,
    calibration_status,
    clock_status,
    engine_status,
    inputs_status,
    lifecycle_status,
    modality_status,
    synchronizer_status,
)
from mmfusion_ros.loading import Loaded, Loading, load
from mmfusion_ros.memory import keep_image_memory
from mmfusion_ros.outputs import Outputs
from mmfusion_ros.parameters import TABLE, Settings, declare, read
from mmfusion_ros.quality_of_service import publisher_qos, warn_of_idle_overrides
from mmfusion_ros.ros_logging import RosLogHandler
from mmfusion_ros.spinning import spin
from mmfusion_ros.starting import destroyed_on_failure, ended_by_signals, own_arguments, start_ros

_DIAGNOSTICS_PERIOD_S = 1.0
_POLL_PERIOD_S = 0.2
_PROGRESS_LOG_PERIOD_S = 5.0

_Transition = Callable[["FusionNode", LifecycleState], TransitionCallbackReturn]


def _differing(names: Iterable[str], one: Settings, other: Settings) -> list[str]:
    return [name for name in names if getattr(one, name) != getattr(other, name)]


def _told_idle(names: list[str], synchronizer: str) -> str:
    return f"{', '.join(names)} has no effect with synchronizer {synchronizer}"


def _reported(transition: _Transition) -> _Transition:
    """Log what a transition raises: rclpy itself swallows it."""

    @functools.wraps(transition)
    def wrapper(node: FusionNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # noqa: BLE001
            node.report(f"{transition.__name__}: {error!r}")
            return TransitionCallbackReturn.ERROR

    return wrapper


class FusionNode(LifecycleNode):
    """Fuses RGB, depth and thermal images by an exported artifact.

    Transitions run on the executor's thread, as do all callbacks; only the pipeline runs on a
    thread of its own, and publishes from there.
    """

    def __init__(self, **node_options: Any) -> None:
        """Declare the parameters; nothing is opened yet.

        Args:
            **node_options: as for `rclpy.node.Node`.

        Raises:
            MmfusionError: if a parameter has a value that is not allowed; the node is destroyed.
        """
        super().__init__("fusion_node", **node_options)
        self._log_handler = RosLogHandler(self.get_logger())
        self._loaded: Loaded | None = None
        self._outputs: Outputs | None = None
        self._worker: FusionWorker | None = None
        self._cameras: Cameras | None = None
        self._tally = FrameTally()
        self._problem = ""
        self._progress = ""  # of the opening of an engine
        self._progress_at = self._progress_logged_at = -math.inf
        self._unusable: dict[Modality, str] = {}
        self._dropped_before = 0
        self._loading: Loading | None = None
        self._clock_watch = ClockWatch(self, self._begin_anew)
        with destroyed_on_failure(self):
            self._take_up()

    def _take_up(self) -> None:
        """Read the parameters and begin with what runs in every state."""
        self._settings = declare(self)
        package_logger = logging.getLogger("mmfusion_ros")
        package_logger.addHandler(self._log_handler)
        package_logger.setLevel(logging.INFO)

        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        # In every state: also a node that cannot be configured says so.
        qos = publisher_qos(self, topics.DIAGNOSTICS.name, QoSProfile(depth=5))
        self._diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS.name, qos)
        # Not the node's clock: simulated time may not run yet, stop or go back.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        self.create_timer(_POLL_PERIOD_S, self._poll_inputs, clock=steady)
        if self._settings.autostart:
            self._loading = Loading(self._settings, self._note_progress)
            self._autostart_timer = self.create_timer(
                0.02, self._go_on_with_autostart, clock=steady
            )

    @property
    def settings(self) -> Settings:
        """The values of all parameters now."""
        return self._settings

    # Transitions.

    @_reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load rig and artifact, open the engine."""
        loading, self._loading = self._loading, None
        try:
            self._loaded = (
                load(self._settings, self._note_progress) if loading is None else loading.result()
            )
            self._outputs = Outputs(self, self._loaded.artifact, self._loaded.rig)
        except MmfusionError as error:
            self._release()
            self.report(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._problem = self._progress = ""
        engine = self._loaded.pipeline.pipeline.engine
        self.get_logger().info(
            f"configured: artifact {self._loaded.artifact.name}, rig {self._loaded.rig.name}, "
            f"engine {engine.backend} {engine.precision}"
        )
        return super().on_configure(state)

    @_reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe."""
        loaded = self._loaded
        if loaded is None:
            raise RuntimeError("activated without being configured")
        try:
            self._start(loaded)
        except MmfusionError as error:
            self._stop()
            self.report(f"cannot activate: {error}")
            return TransitionCallbackReturn.FAILURE
        self._problem = ""
        self.get_logger().info("activated")
        return super().on_activate(state)

    @_reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and stop the worker."""
        self._stop()
        self.get_logger().info("deactivated")
        return super().on_deactivate(state)

    @_reported
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the engine."""
        self._release()
        return super().on_cleanup(state)

    @_reported
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and close whatever runs."""
        self._release()
        return super().on_shutdown(state)

    @_reported
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured."""
        self._release()
        return super().on_error(state)

    def destroy_node(self) -> None:
        """Stop, close and give back everything."""
        self._release()
        self._clock_watch.close()
        logging.getLogger("mmfusion_ros").removeHandler(self._log_handler)
        super().destroy_node()
        # rclpy leaves it, and it alone keeps the node in the graph.
        self._state_machine.destroy_when_not_in_use()

    def report(self, problem: str) -> None:
        """Log what went wrong and keep it for the diagnostics."""
        self._problem, self._progress = problem, ""
        self.get_logger().error(problem)

    # Starting and stopping.

    def _note_progress(self, what: str, share: float) -> None:
        """Tell how far an engine is, now and then, on whichever thread it is opened."""
        now, told = time.monotonic(), f"{what}, {share:.0%}"
        if now - self._progress_logged_at >= _PROGRESS_LOG_PERIOD_S:
            self._progress_logged_at = now
            self.get_logger().info(f"engine: {told}")
        if self._worker is not None:
            return  # opened again after a failure, which the diagnostics tell
        self._progress = told
        # The executor publishes none while it is a manager that has the node configured.
        if now - self._progress_at >= _DIAGNOSTICS_PERIOD_S:
            self._progress_at = now
            self._publish_diagnostics()

    def _go_on_with_autostart(self) -> None:
        if self._loading is not None and not self._loading.done:
            return
        self.destroy_timer(self._autostart_timer)
        # Without one a manager has configured the node meanwhile: the rest is its business.
        if self._loading is not None and (
            self.trigger_configure() is TransitionCallbackReturn.SUCCESS
        ):
            self.trigger_activate()

    def _start(self, loaded: Loaded) -> None:
        outputs = self._outputs
        if outputs is None:
            raise RuntimeError("activated without being configured")
        loaded.pipeline.reset()
        loaded.pipeline.min_score = self._settings.min_score
        self._tally = FrameTally()
        self._dropped_before = 0
        idle = _differing(self._settings.without_effect, self._settings, Settings())
        if idle:
            self.get_logger().warning(_told_idle(idle, self._settings.synchronizer))
        self._worker = FusionWorker(
            loaded.pipeline, self._settings.synchronizer_config(loaded.rig), self._deliver
        )
        self._cameras = Cameras(
            self,
            self._settings,
            artifact=loaded.artifact,
            rig=loaded.rig,
            worker=self._worker,
            take_rgb_info=outputs.take_rgb_info,
        )
        warn_of_idle_overrides(self)

    def _begin_anew(self) -> None:
        """Forget what waits: simulated time was set back."""
        self._clock_watch.stamp_age_s = None
        if self._cameras is not None:
            self._cameras.begin_anew()

    def _stop(self) -> None:
        cameras, self._cameras = self._cameras, None
        if cameras is not None:
            cameras.close()
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self._clock_watch.stamp_age_s = None

    def _release(self) -> None:
        self._stop()
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        if self._loaded is not None:
            self._loaded.pipeline.close()
            self._loaded = None
        loading, self._loading = self._loading, None
        if loading is not None:
            loading.abandon()

    # Frames.

    def _deliver(self, results: Results) -> None:
        worker, outputs, loaded = self._worker, self._outputs, self._loaded
        if worker is None or outputs is None or loaded is None:
            return  # being deactivated
        self._tally.note(results)
        age_ns = self.get_clock().now().nanoseconds - results.frames.stamp_ns
        self._clock_watch.stamp_age_s = age_ns * 1e-9
        self._log_problems(results)
        outputs.publish(results, loaded.pipeline.pipeline.engine, worker.sets_dropped)

    def _log_problems(self, results: Results) -> None:
        """Say why a camera's images are of no use, once until they are again."""
        for modality in Modality:
            problem = results.problems.get(modality, "")
            if problem and not self._unusable.get(modality):
                self.get_logger().warning(problem)
            self._unusable[modality] = problem

    # Timers and parameters.

    def _poll_inputs(self) -> None:
        if self._cameras is not None:
            self._cameras.poll()

    def _publish_diagnostics(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status = self._statuses()
        for status in message.status:
            status.name = f"{self.get_fully_qualified_name().lstrip('/')}: {status.name}"
            status.hardware_id = "" if self._loaded is None else self._loaded.rig.name
        self._diagnostics.publish(message)

    def _statuses(self) -> list[DiagnosticStatus]:
        worker, cameras, loaded = self._worker, self._cameras, self._loaded
        if worker is None or cameras is None or loaded is None:
            state = "not configured" if loaded is None else "not active"
            return [
                lifecycle_status(state, self._problem, self._progress),
                clock_status(self._clock_watch.state()),
            ]
        newly_dropped = worker.sets_dropped - self._dropped_before
        self._dropped_before += newly_dropped
        busy_s = worker.busy_s()  # before the tally: what is finished between the two is in it
        tallies, stock_sets = self._tally.take(), cameras.stock_sets
        return [
            engine_status(loaded.pipeline, busy_s),
            synchronizer_status(
                worker.statistics() if stock_sets is None else stock_sets,
                self._dropped_before,
                newly_dropped,
            ),
            *(
                modality_status(
                    modality,
                    tallies[modality],
                    all_needed=stock_sets is not None,
                    busy=busy_s is not None,
                )
                for modality in cameras.modalities
            ),
            inputs_status(cameras.statuses),
            calibration_status(cameras.disagreements),
            clock_status(self._clock_watch.state()),
        ]

    def _check_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        try:
            settings = self._changed_settings(parameters)
        except MmfusionError as error:
            return SetParametersResult(successful=False, reason=str(error))
        idle = _differing(settings.without_effect, settings, self._settings)
        if idle:
            return SetParametersResult(
                successful=False, reason=_told_idle(idle, settings.synchronizer)
            )
        return SetParametersResult(successful=True)

    def _apply_parameters(self, parameters: list[Parameter[Any]]) -> None:
        before, self._settings = self._settings, self._changed_settings(parameters)
        if self._cameras is None or self._loaded is None:
            return
        self._loaded.pipeline.min_score = self._settings.min_score
        config = self._settings.synchronizer_config(self._loaded.rig)
        # Not for nothing: what waits is handed out early, and the cameras' rhythms are forgotten.
        if config != before.synchronizer_config(self._loaded.rig):
            self._cameras.reconfigure(config)

    def _changed_settings(self, parameters: list[Parameter[Any]]) -> Settings:
        # rclpy's own, such as use_sim_time, come this way too.
        ours = {row.name for row in TABLE}
        return read(self, {p.name: p.value for p in parameters if p.name in ours})


def main(args: list[str] | None = None) -> int:
    """Run the node until it is interrupted.

    Returns:
        Exit status: 1 if a parameter was wrong.
    """
    apply_dds_profile()
    keep_image_memory()
    node = None
    try:
        _parser().parse_args(own_arguments(sys.argv if args is None else args))
        start_ros(args)
        with ended_by_signals():
            node = FusionNode()
            spin(node, node.settings.executor)
    except MmfusionError as error:
        rclpy.logging.get_logger("fusion_node").fatal(str(error))
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        try:
            if node is not None:
                node.destroy_node()
        except MmfusionError as error:
            rclpy.logging.get_logger("fusion_node").error(str(error))
        finally:
            rclpy.try_shutdown()
    return 0


def _parser() -> argparse.ArgumentParser:
    """Nothing but help: all that the node is told are parameters."""
    return argparse.ArgumentParser(
        prog="fusion_node",
        description="Fuse cameras, as a managed node. It is told by parameters: "
        "--ros-args -p artifact:=FOLDER -p autostart:=true. They are listed by: "
        "python -m mmfusion_ros.parameters",
    )


if __name__ == "__main__":
    sys.exit(main())
