"""A training as its users begin it: from another folder, with words of the command line, with rows of every kind."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.commands import open_dataset, types_of
from support.checkpoints import clip
from support.learners import TEXTS, write_graph

MEDIA = """
modelgraft: 1
inputs: {image: image, text: text}
nodes: {pixels: {use: vision/preprocess, from: preset:vit-ti-16, in: {image: inputs.image}}}
outputs: {pixels: pixels}
"""
KEPT = TEXTS.replace("steps: 4", "steps: 4, features: float32")


def test_a_mapping_of_training_is_given_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Braces are text elsewhere, because they stand in prompts."""
    graph = write_graph(tmp_path)
    data = tmp_path / "data.jsonl"
    data.write_text(data.read_text().replace('"y"', '"wanted"'))
    asked = ["train", str(graph), "--out", str(tmp_path / "out"), "--device", "cpu", "--steps", "2"]
    assert main([*asked, "--set", "training.columns={y: wanted}"]) == 0, capsys.readouterr().err
    assert main([*asked, "--force", "--set", "training.columns={y}"]) == 1
    assert "columns" in capsys.readouterr().err


def test_what_the_caller_gives_is_what_the_checker_looks_at(tmp_path: Path):
    """Columns are those of the data that are given, not of those that the graph names; `best` has evaluations where `valid` is given."""
    graph = write_graph(tmp_path, ("steps: 12", "steps: 12\n  best: loss"))
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(f"{json.dumps({'a': row['x'], 'b': row['y']})}\n" for row in rows))
    given = {"data": other, "columns": {"x": "a", "y": "b"}, "valid": 0.3, "steps": 2}
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", **given).last
    assert json.loads((folder / "card.json").read_text())["weights"] == "of step 2"
    with pytest.raises(mg.GraphError, match=r"--data  missing-column  .*the first record of other.jsonl has no column 'x'; it has: a, b"):
        mg.train(graph, out=tmp_path / "out", device="cpu", data=other, valid=0.3, force=True)


def test_every_row_of_numbers_that_do_not_fit_is_told_before_anything_loads(tmp_path: Path):
    """A vector that is no batch of one: all rows in the order of the data, and the way out."""
    graph, told = write_graph(tmp_path), []
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps({**row, 'x': row['x'][0]})}\n" for row in rows))
    first = r"(?s)13 rows of .* do not fit\s+data.jsonl:1: input 'x': .*brackets of its own.*data.jsonl:2: .*data.jsonl:13: "
    with pytest.raises(mg.InputError, match=first):
        mg.train(graph, out=tmp_path / "out", device="cpu", note=told.append)
    assert not told


@pytest.mark.parametrize("word", ["", " ", "-"])
def test_an_out_that_names_no_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str):
    assert main(["train", str(write_graph(tmp_path)), "--out", word]) == 1
    assert "names no folder" in capsys.readouterr().err


def test_checkpoints_have_the_mode_that_others_get(tmp_path: Path):
    before = os.umask(0o022)
    try:
        folder = mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu").last
    finally:
        os.umask(before)
    (kept,) = (folder / "checkpoints").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()} == {0o644}


def test_a_record_that_is_refused_while_features_are_written_is_named(tmp_path: Path):
    clip(tmp_path / "CLIP")
    (tmp_path / "texts.yaml").write_text(KEPT)
    texts = ["a cat", "a dog", "word " * 90, "a cow", "a hen"]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"text": text, "wanted": [[1, 2, 3]]}) + "\n" for text in texts))
    with pytest.raises(mg.InputError, match=r"(?s)1 row of .* does not fit\s+data.jsonl:3: a text has \d+ tokens .*skip_bad"):
        mg.train(tmp_path / "texts.yaml", out=tmp_path / "out", device="cpu")
    folder = mg.train(tmp_path / "texts.yaml", out=tmp_path / "out", device="cpu", skip_bad=True, force=True).last
    assert json.loads((folder / "card.json").read_text())["skipped"] == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_files_that_records_name_lie_beside_their_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    """Those that are not there are seen from where the command runs; a text is no file, although there is one of its name."""
    home = tmp_path / "data"
    home.mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("data/a.png", "a.png", "b.png"):
        Path(name).touch()
    rows = [{"image": "a.png", "text": "a.png"}, {"image": "b.png", "text": "b"}]
    lines = [json.dumps(row) for row in rows] if kind == "jsonl" else ["image,text", *(",".join(row.values()) for row in rows)]
    data = home / f"d.{kind}"
    data.write_text("\n".join(lines))
    Path("media.yaml").write_text(MEDIA)
    graph = mg.load("media.yaml", allow=["unused"]).spec
    found = open_dataset(str(data), graph.inputs, note=print, types=types_of(graph.registry)).read()
    assert [(row.inputs["image"], row.inputs["text"]) for row in found] == [(str(home / "a.png"), "a.png"), ("b.png", "b")]


@pytest.mark.parametrize(("save", "told"), [(3, "resume=True goes on from step-00000003"), (9, "no checkpoint is written yet")])
def test_a_training_that_is_stopped_says_where_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: int, told: str):
    from modelgraft_plugins.training.stepping import Stepper

    update, notes = Stepper.update, []

    def stopped(self, *given, step, **more):
        if step == 5:
            raise KeyboardInterrupt
        return update(self, *given, step=step, **more)

    monkeypatch.setattr(Stepper, "update", stopped)
    with pytest.raises(KeyboardInterrupt):
        mg.train(write_graph(tmp_path, ("steps: 12", f"steps: 12\n  save: {save}")), out=tmp_path / "out", device="cpu", note=notes.append)
    assert any("train: stopped behind step 5; " in text for text in notes)
    assert any(told.removeprefix("resume=True ") in text for text in notes)
