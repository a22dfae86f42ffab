"""What TensorBoard shows of a training: the pictures that were validated, as they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
events = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)

from safetensors.torch import load_file
from tiny_data import write_pairs, write_recording, write_scenes

from mmfusion.efficientmfd.config import M3FD_CLASSES
from mmfusion.evaluate_detection import detect_objects
from mmfusion.evaluate_fusion import fuse_luma
from mmfusion.graph.depth_range import DepthRange
from mmfusion.graph.luma_fusion import LumaFusion
from mmfusion.registry import create_model
from mmfusion.saliency_scenes import scenes_with_branch, see_scene
from mmfusion.train import run
from mmfusion.train.board import FOLDER, Board
from mmfusion.train.boxed_pairs import load_boxed_pairs
from mmfusion.train.pairs import load_pairs
from mmfusion.train.recipes import load_recipe
from mmfusion.train.scenes import load_scenes
from mmfusion.train.task import Validation

pytestmark = pytest.mark.torch
SHOWN = 4
GREEN = (0, 200, 0)


def on_board(out):
    accumulator = events.EventAccumulator(str(out / FOLDER), {events.IMAGES: 0, events.SCALARS: 0})
    return accumulator.Reload()


def pictures(out):
    """RGB by tag and step."""
    board = on_board(out)
    shown = {}
    for tag in board.Tags()["images"]:
        shown[tag] = {}
        for event in board.Images(tag):
            encoded = np.frombuffer(event.encoded_image_string, np.uint8)
            picture = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)[..., ::-1]
            assert picture.shape == (event.height, event.width, 3)
            shown[tag][event.step] = picture
    return shown


def train(model, data, out, *changes):
    """One step; the network that it gives, and what was shown before and after."""
    steps = ["loop.steps=1", "loop.batch=2"]
    run.train(load_recipe(model, [*steps, *changes]), run.Places([data], [data], out))
    network = create_model(model)
    network.load_state_dict(load_file(out / "model.safetensors"))
    shown = pictures(out)
    assert all(list(by_step) == [0, 1] for by_step in shown.values())
    return network.eval(), shown


def assert_grey(picture, expected):
    for channel in range(3):
        np.testing.assert_array_equal(picture[..., channel], expected)


def assert_beside(picture, *parts):
    """The picture is these in a row."""
    assert picture.shape == (parts[0].shape[0], sum(part.shape[1] for part in parts), 3)
    left = 0
    for part in parts:
        there = picture[:, left : left + part.shape[1]]
        left += part.shape[1]
        if part.ndim == 3:
            np.testing.assert_array_equal(there, part)
        else:
            assert_grey(there, part)


def test_fusion_shows_the_first_pairs_beside_what_becomes_of_them(tmp_path):
    data = write_pairs(tmp_path / "pairs", SHOWN + 1)
    network, shown = train("s4fusion_tiny", data, tmp_path / "out", "crop=41", "scales=[1]")
    assert sorted(shown) == ["0", "1", "2", "3"]
    fusion = LumaFusion(network).eval()
    for pair in load_pairs([data]).take(range(SHOWN)):
        visible, infrared = (
            cv2.imread(str(data / side / f"{pair.name}.png"), cv2.IMREAD_GRAYSCALE)
            for side in ("vi", "ir")
        )
        with torch.inference_mode():
            fused = fuse_luma(fusion, pair, torch.device("cpu"))
        assert_beside(shown[pair.name][1], visible, infrared, fused)
        before = shown[pair.name][0]
        assert_beside(before[:, :112], visible, infrared)
        assert (before[:, 112:] != shown[pair.name][1][:, 112:]).any()


def test_saliency_shows_scenes_beside_masks_and_maps(tmp_path):
    pytest.importorskip("py_sod_metrics", reason="mmfusion[eval] is not installed")
    data, model = write_scenes(tmp_path / "scenes"), "haf_mobilenetv3_small"
    network, shown = train(model, data, tmp_path / "out", "loop.norm_batches=0")
    assert sorted(shown) == ["0", "1", "2"]
    for branch, scene in scenes_with_branch(network, load_scenes([data]), DepthRange(0.3, 10)):
        rgb = cv2.imread(str(data / "rgb" / f"{scene.name}.png"))[..., ::-1]
        mask = cv2.imread(str(data / "gt" / f"{scene.name}.png"), cv2.IMREAD_GRAYSCALE)
        saliency = see_scene(branch, scene, with_depth=True)
        assert_beside(shown[scene.name][1], rgb, mask, saliency)


def test_detection_shows_the_fused_picture_and_the_boxes_that_are_there(tmp_path):
    pytest.importorskip("faster_coco_eval", reason="mmfusion[eval] is not installed")
    data, model = write_recording(tmp_path / "recording"), "efficientmfd_tiny"
    network, shown = train(model, data, tmp_path / "out", "size=[64, 96]")
    assert sorted(shown) == ["0", "1", "2"]
    for index, pair in enumerate(load_boxed_pairs([data], M3FD_CLASSES)):
        fused, found = detect_objects(network, pair)
        assert found.scores.max() < 0.3  # so that none of them is drawn
        left, top, right, bottom = 20 + 30 * index, 30, 44 + 30 * index, 80
        box = np.zeros((96, 128), np.bool_)
        box[top : bottom + 1, left : right + 1] = True
        box[top + 1 : bottom, left + 1 : right] = False
        picture = shown[pair.name][1]
        assert (picture[box] == GREEN).all()
        assert_grey(np.where(box[..., None], 0, picture), np.where(box, 0, fused))


def test_what_is_done_again_is_shown_once(tmp_path):
    def show(done, steps, value):
        board = Board(tmp_path, done)
        for step in steps:
            board.losses(step, {"loss": value}, 0.5)
            picture = np.full((8, 8, 3), value, np.uint8)
            board.validation(step, Validation(0, {"S": value}, {"scene": picture}))
        board.close()

    show(0, (1, 2, 3), 10)
    show(1, (2, 3, 4), 20)
    board = on_board(tmp_path)
    for tag in ("train/loss", "validation/S"):
        found = [(event.step, event.value) for event in board.Scalars(tag)]
        assert found == [(1, 10), (2, 20), (3, 20), (4, 20)]
    assert {event.value for event in board.Scalars("train/learning_rate")} == {0.5}
    found = {step: int(picture[0, 0, 0]) for step, picture in pictures(tmp_path)["scene"].items()}
    assert found == {1: 10, 2: 20, 3: 20, 4: 20}
