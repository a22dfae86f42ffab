"""Frames of a bag, kept for comparing engines."""

from __future__ import annotations

import subprocess
import sys

import bags
import numpy as np
import pytest
from artifacts import write_artifact, write_rig

from mmfusion_ros import sample_frames
from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines.sample_frames import read_sample_frames

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return write_artifact(tmp_path_factory.mktemp("artifact") / "small")


def sample(bag, artifact, out, *options):
    words = [bag, "--artifact", artifact, "--out", out, "--threads", 1, *options]
    return sample_frames.main([str(word) for word in words])


def test_frames_are_spread_and_packed_as_the_graph_gets_them(tmp_path, artifact, capsys):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(12))
    rig = write_rig(tmp_path / "rig.json")
    assert sample(bag, artifact, tmp_path / "f.npz", "--frames", 4, "--rig", rig) == 0
    assert "4 frame sets of depth, rgb, thermal" in capsys.readouterr().out
    frames = list(read_sample_frames(tmp_path / "f.npz", open_artifact(artifact)))
    for number, inputs in zip((0, 3, 6, 9), frames, strict=True):
        shown = bags.pictures(number, (48, 64))
        np.testing.assert_array_equal(inputs["rgb"], shown["rgb"])
        for name in ("depth", "thermal"):
            np.testing.assert_array_equal(inputs[name].view("<u2")[..., 0], shown[name])
        assert inputs["present"].tolist() == [1, 1, 1]
    # The graph counts the frames that it ran in what it gives to the next.
    assert [inputs["thermal_range"].tolist() for inputs in frames] == [
        [0, 0],
        [1, 2],
        [2, 3],
        [3, 4],
    ]


def test_sets_that_lack_a_camera_are_passed_over(tmp_path, artifact):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(6, no_thermal=(0, 3, 4, 5)))
    assert sample(bag, artifact, tmp_path / "f.npz", "--frames", 2) == 0
    (inputs,) = read_sample_frames(tmp_path / "f.npz", open_artifact(artifact))
    np.testing.assert_array_equal(inputs["rgb"], bags.pictures(1, (48, 64))["rgb"])


def test_a_camera_may_be_left_out(tmp_path, artifact):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(3, no_thermal=(0, 1, 2)))
    assert sample(bag, artifact, tmp_path / "f.npz", "--frames", 9, "--without", "thermal") == 0
    samples = read_sample_frames(tmp_path / "f.npz", open_artifact(artifact))
    assert len(samples) == 3
    assert samples.inputs["present"].tolist() == [[1, 1, 0]] * 3


def test_a_bag_without_a_complete_set_leaves_nothing_behind(tmp_path, artifact, capsys):
    messages = bags.cameras(3, thermal_shift_ns=50_000_000)
    bag = bags.write_bag(tmp_path / "bag", messages)
    assert sample(bag, artifact, tmp_path / "out" / "f.npz") == 1
    assert "no set in which all of depth, rgb, thermal" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pictures_of_another_size_are_refused(tmp_path, artifact, capsys):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(2, size=(24, 32)))
    assert sample(bag, artifact, tmp_path / "f.npz") == 1
    assert "exported for 64x48" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told(tmp_path, artifact, capsys):
    bag = bags.write_bag(tmp_path / "bag", bags.cameras(2))
    (tmp_path / "file").write_text("")
    assert sample(bag, artifact, tmp_path / "file" / "f.npz") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_help_is_quick():
    code = (
        "from mmfusion_ros import sample_frames\ntry: sample_frames.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\nimport sys\n"
        "assert not {'rclpy', 'cv2', 'onnxruntime', 'tqdm', 'rosbags'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
