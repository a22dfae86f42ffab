"""Every transition of the node, through the services a lifecycle manager uses."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.ros

pytest.importorskip("rclpy", reason="ROS 2 is not installed")
pytest.importorskip("mmfusion_msgs.msg", reason="mmfusion_msgs is not built")
pytest.importorskip("onnx", reason="onnx is not installed")

import rclpy
from artifacts import write_artifact, write_rig
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nodes import MS, Peer, spinning
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rclpy.parameter import Parameter

from mmfusion_ros import fusion_node, loading, outputs
from mmfusion_ros.core import engines
from mmfusion_ros.core.engines import Cancelled
from mmfusion_ros.core.engines.cuda_probe import CudaDevice
from mmfusion_ros.core.errors import EngineError, MmfusionError
from mmfusion_ros.fusion_node import FusionNode

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def files(tmp_path):
    return {
        "artifact": write_artifact(tmp_path / "tiny"),
        "rig": write_rig(tmp_path / "rig.yaml"),
    }


@contextlib.contextmanager
def running(**parameters):
    """A fusion node in this process, spun by another thread."""
    context = rclpy.Context()
    rclpy.init(context=context)
    overrides = [
        Parameter(name, value=value if isinstance(value, (bool, int, float)) else str(value))
        for name, value in {"backend": "onnxruntime", **parameters}.items()
    ]
    try:
        node = FusionNode(context=context, parameter_overrides=overrides)
        try:
            with spinning(node):
                yield node
        finally:
            node.destroy_node()  # else a test that fails leaves it to others in this domain
    finally:
        rclpy.shutdown(context=context)


def test_all_transitions(peer, files, capfd):
    with running(**files) as node:
        assert peer.state() == "unconfigured"
        assert not peer.change_state(ACTIVATE)
        for _ in range(2):
            assert peer.change_state(CONFIGURE)
            assert peer.state() == "inactive"
            for _ in range(2):
                assert peer.change_state(ACTIVATE)
                assert peer.state() == "active"
                assert node.count_subscribers("/rgb/image") == 0  # nobody publishes yet
                assert peer.change_state(DEACTIVATE)
                assert peer.state() == "inactive"
            assert peer.change_state(CLEANUP)
            assert peer.state() == "unconfigured"
        assert peer.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert peer.state() == "finalized"
    told = re.findall(
        r"\[fusion_node\]: (configured|activated|deactivated)", capfd.readouterr().err
    )
    assert told == ["configured", *["activated", "deactivated"] * 2] * 2


@pytest.mark.parametrize("steps", [(CONFIGURE,), (CONFIGURE, ACTIVATE)])
def test_shuts_down_from_every_state(peer, files, steps):
    with running(**files) as node:
        for step in steps:
            assert peer.change_state(step)
        last = (
            Transition.TRANSITION_INACTIVE_SHUTDOWN
            if len(steps) == 1
            else Transition.TRANSITION_ACTIVE_SHUTDOWN
        )
        assert peer.change_state(last)
        assert peer.state() == "finalized"
        assert node._loaded is None
        assert node._worker is None


def test_subscribes_and_publishes_only_while_active(peer, files):
    peer.advertise()
    peer.listen("status")
    picture = np.zeros((48, 64), np.uint16)
    pictures = {"rgb": np.zeros((48, 64, 3), np.uint8), "depth": picture, "thermal": picture}
    with running(**files):
        assert peer.change_state(CONFIGURE)
        assert not peer.node.count_subscribers("/rgb/image")
        assert peer.change_state(ACTIVATE)
        peer.warm_up(10**9, **pictures)
        assert peer.change_state(DEACTIVATE)
        peer.until(lambda: not peer.node.count_subscribers("/rgb/image"), "unsubscribing")
        assert peer.change_state(ACTIVATE)
        peer.received["status"].clear()
        peer.warm_up(20 * 10**9, **pictures)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"artifact": ""}, "parameter artifact is not set"),
        ({"rig": ""}, "parameter rig is not set"),
        ({"artifact": "/nowhere"}, "/nowhere is not an artifact: manifest.json is missing"),
        ({"rig": "/nowhere.yaml"}, "no readable rig file at /nowhere.yaml"),
    ],
)
def test_what_is_wrong_is_said_and_the_node_lives(peer, files, wrong, message):
    with running(**{**files, **wrong}):
        for _ in range(2):
            assert not peer.change_state(CONFIGURE)
            assert peer.state() == "unconfigured"
        peer.diagnosed("engine", DiagnosticStatus.ERROR, message)


def test_can_be_configured_once_the_artifact_is_there(peer, files, tmp_path):
    arriving = tmp_path / "arriving"
    with running(**{**files, "artifact": arriving}):
        assert not peer.change_state(CONFIGURE)
        shutil.copytree(files["artifact"], arriving)
        assert peer.change_state(CONFIGURE)
        assert peer.state() == "inactive"
        peer.diagnosed("engine", DiagnosticStatus.OK, "not active")


def test_a_backend_that_cannot_be_opened_fails_with_its_reason(peer, files, monkeypatch):
    def refuse(*_):
        raise EngineError("this engine has no cylinders")

    monkeypatch.setattr(loading, "open_engine", refuse)
    with running(**files):
        assert not peer.change_state(CONFIGURE)
        peer.diagnosed("engine", DiagnosticStatus.ERROR, "no cylinders")
        monkeypatch.undo()
        assert peer.change_state(CONFIGURE)


def test_a_rig_that_lacks_what_the_artifact_needs_is_told_before_an_engine_is_opened(
    peer, files, monkeypatch
):
    path = files["artifact"] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["rig_packing"] = [f"thermal_from_rgb_h{n // 3}{n % 3}" for n in range(9)]
    manifest["inputs"].append({"name": "rig", "dtype": "float32", "shape": [9], "meaning": "h"})
    path.write_text(json.dumps(manifest))
    rig = json.loads(files["rig"].read_text())
    del rig["thermal_from_rgb"]
    files["rig"].write_text(json.dumps(rig))
    opened = []
    monkeypatch.setattr(loading, "open_engine", lambda *_: opened.append(True))
    with running(**files):
        assert not peer.change_state(CONFIGURE)
        peer.diagnosed("engine", DiagnosticStatus.ERROR, "has no thermal_from_rgb homography")
    assert not opened


def test_an_engine_without_a_pipeline_is_closed(peer, files, monkeypatch):
    closed = []
    engine = SimpleNamespace(close=lambda: closed.append(True))
    monkeypatch.setattr(loading, "open_engine", lambda *_: engine)

    def no_pipeline(*_):
        raise MmfusionError("no pipe")

    monkeypatch.setattr(loading, "Pipeline", no_pipeline)
    with running(**files):
        assert not peer.change_state(CONFIGURE)
        peer.diagnosed("engine", DiagnosticStatus.ERROR, "no pipe")
    assert closed == [True]


@pytest.mark.parametrize("autostart", [False, True])
def test_a_long_opening_says_how_far_it_is(peer, files, monkeypatch, capfd, autostart):
    go_on = threading.Event()

    def build(artifact, options, progress):
        while not go_on.wait(0.05):
            progress("building an engine", 0.25)
        raise EngineError("this engine has no cylinders")

    monkeypatch.setattr(loading, "open_engine", build)
    with running(**files, autostart=autostart):
        if not autostart:
            assert peer.state() == "unconfigured"  # so that the service is known
            client = peer.node.create_client(ChangeState, "fusion_node/change_state")
            peer.until(client.service_is_ready, "the service")
            client.call_async(ChangeState.Request(transition=Transition(id=CONFIGURE)))
        peer.diagnosed("engine", DiagnosticStatus.OK, "not configured: building an engine, 25%")
        go_on.set()
        peer.diagnosed("engine", DiagnosticStatus.ERROR, "no cylinders")
    assert "engine: building an engine, 25%" in capfd.readouterr().err


def test_an_unexpected_error_is_reported_not_swallowed(peer, files, monkeypatch):
    def explode(*_):
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(loading, "load_rig", explode)
    with running(**files):
        assert not peer.change_state(CONFIGURE)
        assert peer.state() == "unconfigured"  # by way of error processing
        peer.diagnosed("engine", DiagnosticStatus.ERROR, "of all things")


@pytest.mark.parametrize("wrong", [{"backend": "steam"}, {"threads": -1}, {"window_ms": -0.5}])
def test_a_wrong_parameter_value_stops_the_start(files, wrong):
    (name,) = wrong
    with (
        pytest.raises(MmfusionError, match=rf"parameter {name}\b.*expected"),
        running(**files, **wrong),
    ):
        pass


def test_a_misspelt_parameter_is_told_of(files, capfd):
    with running(**files, windw_ms=20.0, speed_of_light=3e8) as node:
        assert node.settings.window_ms != 20
    told = capfd.readouterr().err
    assert "there is no parameter windw_ms, so its value has no effect; is window_ms meant?" in told
    assert "speed_of_light" not in told


@pytest.mark.parametrize(
    ("argument", "status", "told"),
    [
        ("--help", 0, "It is told by parameters: --ros-args -p"),
        ("--artifact=a", 2, "unrecognized arguments"),
    ],
)
def test_the_command_line_has_help_and_nothing_else(capsys, argument, status, told):
    with pytest.raises(SystemExit) as end:
        fusion_node.main(["fusion_node", argument])
    assert end.value.code == status
    captured = capsys.readouterr()
    assert told in captured.out + captured.err


def test_autostart_becomes_active_by_itself(peer, files):
    with running(**files, autostart=True):
        peer.until(lambda: peer.state() == "active", "autostart")


def test_autostart_with_a_wrong_artifact_waits_for_a_second_try(peer, files, tmp_path):
    arriving = tmp_path / "arriving"
    with running(**{**files, "artifact": arriving}, autostart=True):
        peer.diagnosed("engine", DiagnosticStatus.ERROR, "is not an artifact")
        shutil.copytree(files["artifact"], arriving)
        assert peer.change_state(CONFIGURE)
        assert peer.change_state(ACTIVATE)


def test_autostart_needs_no_simulated_clock(peer, files):
    with running(**files, autostart=True, use_sim_time=True):
        peer.until(lambda: peer.state() == "active", "autostart without /clock")


def test_an_engine_that_opens_after_the_end_is_closed(files, monkeypatch):
    may_open, closed = threading.Event(), threading.Event()
    load = loading.load

    def slow_load(*arguments):
        assert may_open.wait(30)
        loaded = load(*arguments)
        monkeypatch.setattr(loaded.pipeline, "close", closed.set)
        return loaded

    monkeypatch.setattr(loading, "load", slow_load)
    with running(**files, autostart=True):
        pass
    assert not closed.is_set()
    may_open.set()
    assert closed.wait(30)


def test_the_building_of_an_engine_ends_with_the_node(files, monkeypatch):
    begun, end, cancelled = threading.Event(), threading.Event(), threading.Event()

    def build(artifact, options, progress):
        begun.set()
        assert end.wait(30)
        try:
            progress("building an engine", 0.5)
        except Cancelled:
            cancelled.set()
            raise

    monkeypatch.setattr(loading, "open_engine", build)
    with running(**files, autostart=True):
        assert begun.wait(30)
    end.set()
    assert cancelled.wait(30)


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_a_building_that_ended_with_the_node_opens_no_other_engine(files, monkeypatch, backend):
    """Only the building itself is made up."""
    begun, end, over = threading.Event(), threading.Event(), threading.Event()
    opened, ends = [], []

    def build(artifact, options, progress):
        begun.set()
        assert end.wait(30)
        progress("building an engine", 0.5)

    load = loading.load

    def watched_load(*arguments):
        try:
            return load(*arguments)
        except BaseException as error:
            ends.append(error)
            raise
        finally:
            over.set()

    monkeypatch.setattr(engines, "cuda_devices", lambda: ([CudaDevice("Orin")], ""))
    monkeypatch.setattr(engines, "_open_tensorrt", build)
    monkeypatch.setattr(engines, "_open_on_cpu", lambda *_: opened.append(True))
    monkeypatch.setattr(loading, "load", watched_load)
    options = {"backend": backend, "engine_fallback": "onnxruntime", "autostart": True}
    with running(**files, **options):
        assert begun.wait(30)
    end.set()
    assert over.wait(30)
    assert [type(error) for error in ends] == [Cancelled]
    assert not opened


KINDS = {
    bool: (ParameterType.PARAMETER_BOOL, "bool_value"),
    float: (ParameterType.PARAMETER_DOUBLE, "double_value"),
    str: (ParameterType.PARAMETER_STRING, "string_value"),
}


def set_parameter(peer, name, value):
    kind, field = KINDS[type(value)]
    message = ParameterMessage(name=name, value=ParameterValue(type=kind, **{field: value}))
    return peer.set_parameter(message)


def test_parameters_at_run_time(peer, files):
    with running(**files, autostart=True) as node:
        peer.until(lambda: peer.state() == "active", "autostart")
        assert node._loaded.pipeline.min_score == 0.3
        stream = node._worker._synchronizer._depth
        assert set_parameter(peer, "min_score", 0.25).successful
        assert node._loaded.pipeline.min_score == 0.25
        # What has nothing to do with matching does not disturb it.
        assert node._worker._synchronizer._depth is stream
        assert not set_parameter(peer, "min_score", 1.5).successful
        assert set_parameter(peer, "window_ms", 40.0).successful
        assert node._worker._synchronizer._config.thermal.window_ns == 40 * MS
        refused = set_parameter(peer, "max_wait_ms", 5000.0)
        assert not refused.successful
        assert node._worker._synchronizer._config.thermal.window_ns == 40 * MS
        assert not set_parameter(peer, "artifact", "/elsewhere").successful
        worker = node._worker._synchronizer
        assert set_parameter(peer, "use_sim_time", True).successful  # rclpy's own
        assert node._worker._synchronizer is worker
        assert peer.state() == "active"


def test_nothing_is_built_when_nobody_listens(peer, files, monkeypatch, tmp_path):
    artifact = write_artifact(tmp_path / "all", saliency=True, detections=True)
    built = []

    def note(name):
        original = getattr(outputs, name)
        return lambda *args, **options: built.append(name) or original(*args, **options)

    drawing = {"draw_overlay", "detections_2d_message", "detections_3d_message", "place"}
    names = {"image_message", "camera_info_message", "status_message", "markers_message", *drawing}
    for name in names:
        monkeypatch.setattr(outputs, name, note(name))
    peer.advertise()
    rgb = {"rgb": np.zeros((48, 64, 3), np.uint8)}
    with running(**{**files, "artifact": artifact}, autostart=True) as node:
        peer.matched()
        stamp = 10**9

        def processed() -> bool:
            nonlocal stamp
            stamp += 100 * MS
            peer.send(stamp, **rgb)
            peer.executor.spin_once(timeout_sec=0.05)
            return node._tally._tallies[fusion_node.Modality.RGB].used > 0

        peer.until(processed, "a frame to be processed")
        assert not built
        peer.listen("status", "fused/image")
        peer.warm_up(stamp, **rgb)
        assert set(built) == {"image_message", "status_message"}
