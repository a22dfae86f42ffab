"""Sample frames come back as they were written, and only for artifacts they fit."""

from __future__ import annotations

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from artifacts import write_artifact

from mmfusion_ros.core.artifact import open_artifact
from mmfusion_ros.core.engines.sample_frames import (
    SampleFrames,
    read_sample_frames,
    write_sample_frames,
)
from mmfusion_ros.core.errors import EngineError
from mmfusion_ros.core.frames import Modality


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return open_artifact(write_artifact(tmp_path_factory.mktemp("artifact") / "small"))


def frames_of(artifact, count=3):
    rng = np.random.default_rng(0)
    return [
        {
            name: rng.integers(0, 200, spec.shape).astype(spec.dtype)
            for name, spec in artifact.inputs.items()
        }
        for _ in range(count)
    ]


@pytest.fixture
def path(tmp_path, artifact):
    write_sample_frames(tmp_path / "new" / "f.npz", artifact, SampleFrames.of(frames_of(artifact)))
    return tmp_path / "new" / "f.npz"


def altered(path, **changes):
    """Write the file again with other arrays; None takes one out."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays = {n: a for n, a in {**arrays, **changes}.items() if a is not None}
    np.savez(path, **arrays)


def test_what_is_written_is_read(path, artifact):
    samples = read_sample_frames(path, artifact)
    assert len(samples) == 3
    for wanted, inputs in zip(frames_of(artifact), samples, strict=True):
        assert inputs.keys() == artifact.inputs.keys()
        for name, spec in artifact.inputs.items():
            np.testing.assert_array_equal(inputs[name], wanted[name])
            assert (inputs[name].dtype, inputs[name].shape) == (spec.dtype, spec.shape)
            assert inputs[name].flags.c_contiguous
    assert [entry.name for entry in path.parent.iterdir()] == ["f.npz"]


def test_the_digest_is_of_the_content_alone(path, artifact):
    frames = frames_of(artifact)
    assert SampleFrames.of(frames).digest == read_sample_frames(path, artifact).digest
    frames[1]["rgb"][0, 0, 0] ^= 1
    assert SampleFrames.of(frames).digest != read_sample_frames(path, artifact).digest


def test_writing_that_fails_leaves_what_was_there(path, artifact, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left")

    before = path.read_bytes()
    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        write_sample_frames(path, artifact, SampleFrames.of(frames_of(artifact)))
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["f.npz"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(90)])
def test_damaged_files_are_refused(path, artifact, content):
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"f.npz is no file of sample frames .*sample_frames BAG"):
        read_sample_frames(path, artifact)


def test_whatever_byte_is_damaged_nothing_else_is_raised(path, artifact):
    rng = np.random.default_rng(0)
    good, refused = path.read_bytes(), 0
    for place in rng.integers(0, len(good), 100):
        content = bytearray(good)
        content[place : place + 8] = rng.bytes(len(content[place : place + 8]))
        path.write_bytes(content)
        try:
            read_sample_frames(path, artifact)
        except EngineError:
            refused += 1
    assert refused > 30


HEADER = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1,)"


@pytest.mark.parametrize(
    "array",
    [
        b"\x93NUMPY\x01\x00\x40\x00" + HEADER,  # shorter than it says
        b"\x93NUMPY\x01\x00\x02\x00((",  # TokenError, where NumPy reads old headers
        b"\x93NUMPY\x01\x00\x0b\x00{'shape': 1",
        b"\x93NUMPY",
        b"",
    ],
)
def test_a_damaged_array_is_refused(path, artifact, array):
    """Within an archive that is whole."""
    with np.load(path) as file:
        names = [name for name in file.files if name != "rgb"]
        others = {name: file[name] for name in names}
    np.savez(path, **others)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("rgb.npy", array)
    with pytest.raises(EngineError, match="no file of sample frames"):
        read_sample_frames(path, artifact)


def test_only_the_frames_and_what_they_are_of_are_written(path, artifact):
    with zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    assert names == {"about", *artifact.inputs}


def test_a_file_that_was_cut_is_refused(path, artifact):
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(EngineError, match="no file of sample frames"):
        read_sample_frames(path, artifact)


def test_a_single_array_is_refused(path, artifact):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(EngineError, match="no file of sample frames"):
        read_sample_frames(path, artifact)


def test_a_missing_file_is_told_with_the_command(tmp_path, artifact):
    with pytest.raises(EngineError, match=r"no sample frames at .*ros2 run mmfusion_ros sample_fr"):
        read_sample_frames(tmp_path / "f.npz", artifact)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"about": None}, "no file of sample frames"),
        ({"about": np.array("[]")}, "no file of sample frames"),
        ({"depth": None}, "its inputs are rgb, depth, .* the frames' rgb, thermal"),
        ({"rig": np.zeros((3, 9), np.float32)}, "its inputs are"),
        (
            {"rgb": np.zeros((3, 24, 32, 3), np.uint8)},
            r"rgb is uint8 \[24, 32, 3\], expected",
        ),
        ({"present": np.zeros((3, 3), np.float64)}, r"present is float64 \[3\], expected float32"),
        ({"present": np.zeros((2, 3), np.float32)}, "the same number of each"),
        ({"present": np.array(1.0, np.float32)}, "the same number of each"),
    ],
)
def test_what_does_not_fit_is_refused(path, artifact, changes, words):
    altered(path, **changes)
    with pytest.raises(EngineError, match=words):
        read_sample_frames(path, artifact)


def test_frames_of_another_artifact_are_refused(path, artifact, tmp_path):
    other = open_artifact(
        write_artifact(tmp_path / "large", rgb=(96, 128), thermal=(96, 128), depth=(96, 128))
    )
    with pytest.raises(EngineError, match="are of artifact small, not for large: input rgb is"):
        read_sample_frames(path, other)


def test_other_meanings_of_the_same_numbers_are_refused(path, artifact):
    other = dataclasses.replace(
        artifact, encodings={**artifact.encodings, Modality.THERMAL: "mono8"}
    )
    with pytest.raises(EngineError, match=r"encodings is .*mono16.*, expected .*mono8"):
        read_sample_frames(path, other)


def test_nothing_is_run_that_a_file_brings_along(path, artifact):
    """Arrays of objects would be."""
    altered(path, rgb=np.array([json], dtype=object).astype(str).astype(object))
    with pytest.raises(EngineError, match="no file of sample frames"):
        read_sample_frames(path, artifact)
