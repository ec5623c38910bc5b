"""Data that a recipe makes are what its training reads: the file of `map`, as it is written, through two steps, by the commands alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

from modelgraft.cli import main
from modelgraft.records.writing import write_value
from modelgraft_plugins.training.watching import read_table
from support import speechgpt
from support.dialogues import instructed_made, speechgpt_made
from support.kosmos import kosmos2
from support.llm_server import served
from support.speech import talk

FOX = """Human: Hello.
GPT: Look. <Image>a red fox</Image>
Human: And its voice?
GPT: Hear. <Audio>a fox</Audio>"""
HENS = FOX.replace("Audio>", "Image>")
SERVER = """# Ask a server.
modelgraft: 1
extends: nextgpt/mosit
params.url: {type: text}
nodes.llm: {use: llm/remote, from: null, with: {url: "${url}", model: "${language}"}}
"""


def settings(params: Mapping[str, object]) -> list[str]:
    """Words of a command that set params."""
    return [word for name, value in params.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A command in a folder, with params to set; gives what it said, once it has ended as it should."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0, **params: Any) -> str:
        found = main([*words, *settings(params)])
        said = "".join(capsys.readouterr())
        assert (found, "Traceback" in said) == (code, False), said
        return said

    return run


def written(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Records in a file of JSON lines."""
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return name


def learnt(stage: str) -> list[str]:
    """The trained files of a stage that ended after two steps, each with a loss that is a number."""
    losses = [float(row["loss"]) for row in read_table(Path("out", stage, "metrics.csv")) if row["part"] == "train"]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    return sorted(path.name for path in Path("out", stage).glob("*.safetensors"))


TRAIN = ("--out", "out", "--device", "cpu", "--steps", "2")


@pytest.mark.slow  # all parts of a NExT-GPT are made
def test_mosit(command: Callable[..., str], tmp_path: Path):
    """A dialogue that is none is told, and left out where that is asked for."""
    Path("remote.yaml").write_text(SERVER, encoding="utf-8")
    topics = {"foxes": FOX, "hens": HENS, "cats": "I do not know any."}
    data = written("topics.jsonl", [{"topic": topic} for topic in topics])
    with served(lambda body, _: topics[body["messages"][-1]["content"]]) as told:
        command("map", "remote.yaml", data, "--out", "dialogues.jsonl", url=told.url, language="tiny")
    params, _ = instructed_made(tmp_path)
    columns = "{text: answer, " + ", ".join(f"{name}_captions: answer_{name}_captions" for name in ("image", "video", "audio")) + "}"
    train = ("train", "nextgpt/train_instruct", "--data", "dialogues.jsonl", *TRAIN, "--batch", "2")
    params["training.columns"] = columns
    assert "no column gives" in command(*train, code=1, **params)
    assert not Path("out").exists()
    command(*train, "--skip-bad", **params)
    names = ("audio_words", "image_words", "llm", "seen", "video_words")
    assert learnt("train") == [f"{name}.safetensors" for name in names]


@pytest.mark.slow  # weights are fetched
@pytest.mark.network
@pytest.mark.timeout(900)
def test_grit(command: Callable[..., str], tmp_path: Path):
    """Photographs beside the data; one on which no phrase was found is told, and left out where that is asked for."""
    pytest.importorskip("spacy", reason="texts are parsed by spaCy")
    skimage = pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    photographs = Path(skimage.__file__).parent / "data"
    Path("made").mkdir()
    for name in ("astronaut.png", "chelsea.png"):
        Path("made", name).write_bytes((photographs / name).read_bytes())
    ImageOps.mirror(Image.open("made/astronaut.png")).save("made/mirrored.png")
    captions = {"astronaut.png": "An astronaut in an orange suit smiles.", "chelsea.png": "A cat looks.", "mirrored.png": "A woman smiles."}
    data = written("made/pairs.jsonl", [{"image": name, "file": name, "caption": caption} for name, caption in captions.items()])
    command("map", "kosmos2/grit", data, "--out", "made/grounded.jsonl")
    params = {"checkpoint": str(kosmos2(tmp_path / "kosmos2", bins=32).folder), "training.columns": "{image: file}"}
    train = ("train", "kosmos2/train", "--data", "made/grounded.jsonl", *TRAIN, "--batch", "2")
    assert "grounded.jsonl:2: no column gives text" in command(*train, code=1, **params)
    command(*train, "--skip-bad", **params)
    assert learnt("train") == ["latents.safetensors", "llm.safetensors", "vision.safetensors"]


@pytest.mark.slow  # three stages of a training
@pytest.mark.network
@pytest.mark.timeout(900)
def test_speechinstruct(command: Callable[..., str], tmp_path: Path):
    """All three stages, each from what the one before has trained, and their answer; the language model is given the units as words."""
    Path("sounds").mkdir()
    said = "A whale swims in the large sea."  # is not what they say: units are learnt as they are heard
    write_value(talk(5.0, 2.5), Path("sounds/a.wav"))
    command("units", "fit", "hubert/mfcc", "sounds", "--clusters", "20", "--out", "centres.safetensors")
    units = {"hears": "hubert/units_mfcc", "centres": "centres.safetensors", "units": "20"}
    data = written("recordings.jsonl", [{"audio": "sounds/a.wav", "text": said}] * 2)
    command("map", "speechgpt/pairs", data, "--out", "pairs.jsonl", **units)
    params, _ = speechgpt_made(words=True)(tmp_path)
    command("train", "speechgpt/train", "--data", "pairs.jsonl", *TRAIN, "--batch", "2", checkpoint=params["checkpoint"])
    assert [learnt(stage) for stage in ("adapt", "cross")] == [["llm.safetensors"]] * 2
    data = written("questions.jsonl", [{"instruction": "What is a whale?", "response": "A large mammal."}])
    command("map", "speechgpt/instruct", data, "--out", "chains.jsonl", form="speech-speech", **units)
    trained = "out/cross/llm.safetensors"
    command("train", "speechgpt/train_chain", "--data", "chains.jsonl", *TRAIN, "--batch", "1", checkpoint=trained)
    assert learnt("chain") == ["llm.safetensors"]
    hears = {"ear": speechgpt.ear(tmp_path / "ear"), "centres": speechgpt.centres(tmp_path / "ear.safetensors")}
    voice = {"voice": speechgpt.voice(tmp_path / "voice"), "units": speechgpt.UNITS, "layer": speechgpt.LAYER}
    both = {"checkpoint": trained, "adapter": "out/chain/llm.safetensors", "temperature": 0, "max_new_tokens": 12}
    asked = ("--input", "text=What is the sea?", "--output", "reply", "--device", "cpu")
    assert command("run", "speechgpt", *asked, **hears, **voice, **both)
