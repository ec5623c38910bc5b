"""Where all that a run needs was exported it answers on the host without torch: nothing imports it, nor transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft.records.writing import write_value
from support import checkpoints
from support.pictures import picture
from support.sounds import tone

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

WORDS = "a photo of"
LONGER = "a photo of a cat and a dog on the grass , and what is it ?"
# Each: what is set, and what is asked for; the runs of one entry are of one pipeline.
RUNS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "greedy": ({}, [WORDS]),
    "drawn": ({"temperature": 0.9, "top_p": 0.95}, [WORDS, LONGER]),
    "by rules": ({"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 6}, [WORDS]),
    "a batch": ({"temperature": 0.7}, [[WORDS, LONGER, "one"]]),
    "a conversation that is kept": ({}, [LONGER, LONGER + " one", LONGER + " one"]),
    "guessed ahead": ({"lookup": 4}, [LONGER]),
}
REFUSING = """
import json, sys

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "transformers"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refusing())
import modelgraft as mg
"""
PROGRAM = """
def answers(settings, asked):
    graph = mg.load(sys.argv[1], params={f"nodes.llm.with.{name}": value for name, value in settings.items()})
    with mg.open(graph, backend="onnx", device="cpu") as pipeline:
        return [pipeline.run(words=words)["text"] for words in asked]

print(json.dumps({name: answers(*run) for name, run in json.loads(sys.argv[2]).items()}))
"""
SEEING = """
graph = mg.load("llava", params={"checkpoint": sys.argv[1], "max_new_tokens": 5})
with mg.open(graph, backend="onnx", device="cpu", cache_bytes=0) as pipeline:
    print(json.dumps(pipeline.run(image=sys.argv[2], prompt="a cat", outputs=["text"])["text"]))
"""
GIVING = """
name, params, inputs, wanted = json.loads(sys.argv[1])
with mg.open(mg.load(name, params=params), backend="onnx", device="cpu", cache_bytes=0) as pipeline:
    print(json.dumps(dict(pipeline.run(**inputs, outputs=wanted))))
"""
COMMAND = """
from modelgraft.cli import main
sys.exit(main())
"""


def document(inputs: dict[str, str], nodes: dict[str, Any], text: str) -> dict[str, Any]:
    """A graph of the tests' own, around `${checkpoint}`."""
    return {"modelgraft": 1, "params": {"checkpoint": ""}, "inputs": inputs, "nodes": nodes, "outputs": {"text": text}}


ASKED = {"use": "llm/seq2seq", "from": "${checkpoint}", "with": {"prompt": "{words}", "max_new_tokens": 6}, "in": {"words": "inputs.words"}}
HEARD = {
    "features": {"use": "audio/preprocess", "from": "${checkpoint}", "in": {"audio": "inputs.audio"}},
    "ear": {"use": "audio/encoder", "from": "${checkpoint}#model.encoder", "in": {"features": "features"}},
    "written": {"use": "llm/seq2seq", "from": "${checkpoint}", "with": {"max_new_tokens": 6, "encoder": "none"}, "in": {"memory": "ear"}},
}
MEETING = {
    "pixels": {"use": "vision/preprocess", "from": "${checkpoint}", "in": {"image": "inputs.image"}},
    "eye": {"use": "vision/encoder", "from": "${checkpoint}#vit", "in": {"pixels": "pixels"}},
    "mean": {"use": "embedding/mean", "in": {"x": "eye.tokens"}},
    "unit": {"use": "embedding/normalize", "in": {"x": "eye.pooled"}},
    "first": {"use": "router/merge", "in": {"options": ["mean", "unit"]}},
    "named": {"use": "head/classifier", "with": {"names": list("abcdefghijklmnopqrstu")}, "in": {"logits": "first"}},
}
# Each: what makes a checkpoint, the name of a shipped graph or a document, what is given, and an output.
GRAPHS: dict[str, tuple[Any, str | dict[str, Any], dict[str, Any], str]] = {
    "one of some texts": (checkpoints.clip, "clip", {"image": "picture.png", "labels": ["a cat", "a dog on the grass", "it"]}, "label"),
    "letters of a sound": (checkpoints.wav2vec2, "wav2vec2", {"audio": "tone.wav"}, "text"),
    "a sound is written down": (checkpoints.whisper, document({"audio": "audio"}, HEARD, "written.text"), {"audio": "tone.wav"}, "text"),
    "an encoder reads": (checkpoints.t5, document({"words": "text"}, {"llm": ASKED}, "llm.text"), {"words": "a photo of a cat"}, "text"),
    "branches meet": (checkpoints.vit, document({"image": "image"}, MEETING, "named.label"), {"image": "picture.png"}, "text"),
    "layers look": (checkpoints.idefics, "idefics", {"image": "picture.png", "prompt": "a cat"}, "text"),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with a graph of one language model, and a cache of its own."""
    folder = tmp_path_factory.mktemp("without")
    checkpoints.smollm(folder / "smollm")
    node = {"use": "llm/causal", "from": "./smollm", "with": {"prompt": "{words}", "max_new_tokens": 8}, "in": {"words": "inputs.words"}}
    document = {"modelgraft": 1, "inputs": {"words": "text"}, "nodes": {"llm": node}, "outputs": {"text": "llm.text"}}
    (folder / "say.yaml").write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELGRAFT_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="module")
def seen(home: Path) -> tuple[Path, Path]:
    """The checkpoint of a model that sees, and a picture."""
    picture(40, 30).save(home / "picture.png")
    return checkpoints.llava(home / "llava").folder, home / "picture.png"


def answered(home: Path, backend: str, settings: dict[str, Any], asked: list[Any]) -> list[Any]:
    """The texts, in this process."""
    graph = mg.load(home / "say.yaml", params={f"nodes.llm.with.{name}": value for name, value in settings.items()})
    with mg.open(graph, backend=backend, device="cpu") as pipeline:
        return [pipeline.run(words=words)["text"] for words in asked]


def test_kept_exports_answer_in_a_fresh_process_without_torch(home: Path):
    """The same words as on torch: greedy, drawn, by rules, in a batch, of a conversation that goes on, and guessed ahead."""
    expected = {name: answered(home, "torch", *run) for name, run in RUNS.items()}
    answered(home, "onnx", *RUNS["greedy"])  # exports
    assert alone(PROGRAM, str(home / "say.yaml"), json.dumps(RUNS)) == expected


def test_a_picture_is_seen_and_spoken_of_without_torch(seen: tuple[Path, Path]):
    """From the file to the text: preprocessing, the eye, the connector and a decoder that reads what they give."""
    graph = mg.load("llava", params={"checkpoint": str(seen[0]), "max_new_tokens": 5})
    texts = list[str]()
    for backend in ("torch", "onnx"):
        with mg.open(graph, backend=backend, device="cpu") as pipeline:
            texts.append(pipeline.run(image=str(seen[1]), prompt="a cat", outputs=["text"])["text"])
    assert texts[0] == texts[1] == alone(SEEING, *map(str, seen))


@pytest.mark.parametrize("case", GRAPHS)
def test_graphs_answer_without_torch(case: str, home: Path):
    """Eyes, ears and readers, what prepares for them, and what makes words of what they give."""
    make, graph, given, output = GRAPHS[case]
    folder = home / case.replace(" ", "-")
    make(folder)
    picture(40, 30).save(home / "picture.png")
    write_value(tone(0.6), home / "tone.wav")
    if isinstance(graph, dict):
        (folder / "graph.yaml").write_text(json.dumps(graph))
        graph = str(folder / "graph.yaml")
    inputs = {name: str(home / value) if (home / str(value)).is_file() else value for name, value in given.items()}
    texts = list[Any]()
    for backend in ("torch", "onnx"):
        with mg.open(mg.load(graph, params={"checkpoint": str(folder)}), backend=backend, device="cpu") as pipeline:
            texts.append(pipeline.run(**inputs, outputs=[output])[output])
    told = json.dumps([graph, {"checkpoint": str(folder)}, inputs, [output]])
    assert texts[0] == texts[1] == alone(GIVING, told)[output]


def test_a_command_tells_numbers_without_torch(home: Path, tmp_path: Path):
    """As JSON and in files: probabilities and logits of a vision transformer, which a user of Python gets as tensors."""
    folder, image = checkpoints.vit(home / "vit").folder, tmp_path / "picture.png"
    picture(40, 30).save(image)
    with mg.open("vit", params={"checkpoint": str(folder)}, backend="onnx", device="cpu") as pipeline:
        found = pipeline.run(image=str(image))
    words = ["run", "vit", "--set", f"checkpoint={folder}", "--input", f"image={image}", "--backend", "onnx", "--device", "cpu", "--json"]
    files = [f"logits={tmp_path / 'logits.npy'}", f"probabilities={tmp_path / 'shares.safetensors'}"]
    told = [
        alone(COMMAND, *words, "--output", "label", "--output", one, "--output", other)
        for one, other in (files, ["probabilities", "logits"])
    ]
    assert told[0]["outputs"] == {"label": found["label"]}
    assert told[1]["outputs"] == {"label": found["label"], **{name: found[name].tolist() for name in ("probabilities", "logits")}}
    assert torch.equal(torch.from_numpy(numpy.load(tmp_path / "logits.npy")), found["logits"])
    assert torch.equal(load_file(tmp_path / "shares.safetensors")["value"], found["probabilities"])


def alone(program: str, *words: str) -> Any:
    """What a process of its own has printed as JSON, in which importing torch or transformers is an error."""
    done = subprocess.run([sys.executable, "-c", REFUSING + program, *words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
