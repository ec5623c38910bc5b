"""A recipe by the commands alone: data are made, a stage is planned and trained, and what comes out answers; what cannot be is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft_plugins.training.watching import read_table
from support import checkpoints
from support.llm_server import served
from support.pictures import picture

WRITES = """# Descriptions by a server.
modelgraft: 1
extends: llava/instruct_detail
params.language: {type: any, default: tiny}
nodes.llm.use: llm/remote
nodes.llm.from: null
nodes.llm.with: {url: URL, model: "${language}"}
"""
CAPTIONS = ("A cat sleeps.", "A dog runs.", "Two red cars.", "The sea is calm.")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny LLaVA, pictures and their captions."""
    monkeypatch.chdir(tmp_path)
    checkpoints.llava(tmp_path / "llava")
    rows = []
    for number, caption in enumerate(CAPTIONS):
        picture(17, 23, seed=number).save(f"{number}.png")
        rows.append({"image": f"{number}.png", "captions": [caption]})
    Path("captions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path


TRAIN = ["train", "llava/train", "--data", "data.jsonl", "--out", "out", "--set", "checkpoint=./llava", "--device", "cpu"]


def test_data_are_made_and_a_stage_is_trained_by_them(home: Path, capsys: pytest.CaptureFixture[str]):
    """The columns of llava/instruct_detail are those that llava/train takes; the trained projector is a `from` of `llava`."""
    with served(lambda body, _: body["messages"][-1]["content"].splitlines()[0].lower()) as told:
        Path("write.yaml").write_text(WRITES.replace("URL", told.url))
        assert main(["map", "write.yaml", "captions.jsonl", "--out", "data.jsonl"]) == 0, capsys.readouterr().err
    made = [json.loads(line) for line in Path("data.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in made] == [caption.lower() for caption in CAPTIONS]
    assert all(row["prompt"] for row in made)
    usual = [*TRAIN, "--stage", "align", "--batch", "4", "--steps", "24", "--set", "training.stages.align.learning_rate=0.02"]
    assert main([*usual, "--dry-run"]) == 0
    assert "trains" in "".join(capsys.readouterr())
    assert not list(Path("out").glob("*/*.safetensors"))
    assert main(usual) == 0, capsys.readouterr().err
    assert [path.name for path in Path("out/align").glob("*.safetensors")] == ["project.safetensors"]
    losses = [float(row["loss"]) for row in read_table(Path("out/align/metrics.csv")) if row["part"] == "train"]
    assert len(losses) == 24
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    capsys.readouterr()
    asked = [
        "run",
        "llava",
        "--set",
        "checkpoint=./llava",
        "--set",
        "max_new_tokens=3",
        "--input",
        "image=0.png",
        "--input",
        "prompt=what is it?",
    ]
    answers = []
    for more in ([], ["--set", "nodes.project.from=out/align/project.safetensors"]):
        assert main([*asked, *more, "--json"]) == 0, capsys.readouterr().err
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] != answers[1]
    assert main(usual) == 1  # a training lies there
    assert "--resume" in capsys.readouterr().err


def test_dialogues_are_made_and_learnt(home: Path, capsys: pytest.CaptureFixture[str]):
    """The rows of llava/instruct are those of llava/train_dialogues, with pictures beside them; one that could not be read is skipped."""
    (home / "made").mkdir()
    for path in (*home.glob("*.png"), home / "captions.jsonl"):
        path.rename(home / "made" / path.name)
    said = "Question: What is it?\nAnswer: {}\nQuestion: Where?\nAnswer: Here."
    with served(lambda body, _: "No." if "sea" in (one := body["messages"][-1]["content"]) else said.format(one.splitlines()[0])) as told:
        Path("write.yaml").write_text(WRITES.replace("URL", told.url).replace("_detail", ""))
        assert main(["map", "write.yaml", "made/captions.jsonl", "--out", "made/data.jsonl"]) == 0, capsys.readouterr().err
    train = ["train", "llava/train_dialogues", *TRAIN[2:], "--batch", "3", "--steps", "2", "--set", "nodes.llm.with.system=Be kind."]
    train[train.index("data.jsonl")] = "made/data.jsonl"
    assert main(train) == 1
    assert "no column gives conversation" in capsys.readouterr().err
    assert main([*train, "--skip-bad"]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in Path("out/train").glob("*.safetensors")) == ["llm.safetensors", "project.safetensors"]


@pytest.mark.parametrize(
    ("row", "more", "wanted"),
    [
        ({"image": "0.png", "prompt": "what?"}, [], "answer"),
        ({"image": "none.png", "prompt": "what?", "answer": "a cat"}, [], "data.jsonl:1"),
        ({"image": "0.png", "prompt": "what?", "answer": "a cat"}, ["--stage", "alignn"], "align"),
    ],
)
def test_what_cannot_be_trained_is_told(home: Path, capsys: pytest.CaptureFixture[str], row, more, wanted):
    """A column that is missing, a picture that is not there, a stage of another name: one error, before anything is trained."""
    Path("data.jsonl").write_text(f"{json.dumps(row)}\n")
    assert main([*TRAIN, "--steps", "2", *more]) in (1, 2)
    said = capsys.readouterr().err
    assert wanted in said
    assert "Traceback" not in said
    assert not list(Path("out").glob("*/*.safetensors"))


def test_a_training_without_accelerate_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """From the command line and from Python alike, before anything of the training is imported."""
    monkeypatch.setitem(sys.modules, "accelerate", None)
    for module in [name for name in sys.modules if name.startswith("modelgraft_plugins.training.")]:
        monkeypatch.delitem(sys.modules, module)
    assert main(["train", "llava/train"]) == 1
    assert "pip install 'modelgraft[train]'" in capsys.readouterr().err
    with pytest.raises(mg.InputError, match=r"training needs the package accelerate: pip install 'modelgraft\[train\]'"):
        mg.train(mg.load("llava/train"), out="out")
