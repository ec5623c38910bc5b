"""Frozen parts run once: what is kept gives the same training, and what cannot be kept is told."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft import port
from modelgraft.commands import Learning
from modelgraft.data.datasets import DataRow, Dataset
from modelgraft.records.values import read_input
from modelgraft.tools.keeping import Keeping
from modelgraft_plugins.training import stage
from modelgraft_plugins.training.features import Features
from modelgraft_plugins.training.rows import packed, read_rows
from modelgraft_plugins.training.watching import read_table
from support.checkpoints import clip
from support.learners import write_graph


def trained(folder):
    return load_file(folder / "hand.safetensors")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 2e-2)])
def test_kept_features_give_the_same_training(tmp_path, dtype, tolerance):
    """Float16 keeps eleven bits of each number."""
    graph, told = write_graph(tmp_path), []
    plain = mg.train(graph, out=tmp_path / "plain", device="cpu").last
    kept = mg.train(graph, out=tmp_path / "kept", device="cpu", features=dtype, note=told.append).last
    torch.testing.assert_close(trained(kept), trained(plain), atol=tolerance, rtol=tolerance)
    (folder,) = (tmp_path / "kept" / "features").iterdir()
    values = np.fromfile(folder / "eye.y.bin", np.dtype(dtype))
    rows = [json.loads(line)["x"][0] for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    with mg.open(graph) as pipeline:
        wanted = pipeline.run(x=torch.tensor(rows), outputs=["eye.y"])["eye.y"].numpy()
    np.testing.assert_allclose(values.reshape(wanted.shape), wanted, atol=tolerance, rtol=tolerance)
    assert any("kept the features of 13 records" in text for text in told)


def test_metrics_of_an_evaluation_look_at_what_is_kept(tmp_path, monkeypatch):
    """The frozen part is not called for them either, and their figures are those without features."""
    made = []

    class Noted(Learning):
        def __init__(self, *given, **more):
            super().__init__(*given, **more)
            made.append({job.name for job in self.layout.jobs})

    monkeypatch.setattr(stage, "Learning", Noted)
    asked = 'steps: 12\n  valid: 0.4\n  evaluate: 6\n  metrics: ["recall:k=1,prediction=hand,references=y"]'
    graph, figures = write_graph(tmp_path, ("steps: 12", asked)), {}
    for features, called in (("off", {"eye", "hand", "apart"}), ("float32", {"hand", "apart"})):
        made.clear()
        folder = mg.train(graph, out=tmp_path / features, device="cpu", features=features).last
        assert made == [called, called]
        figures[features] = [row["recall(k=1)"] for row in read_table(folder / "metrics.csv") if row["part"] == "valid"]
    assert figures["float32"] == figures["off"]
    assert len(figures["off"]) == 2


def test_features_are_used_again_and_not_for_other_data(tmp_path):
    graph, told = write_graph(tmp_path), []

    def train(**options):
        told.clear()
        mg.train(graph, out=tmp_path / "out", device="cpu", features="float32", force=True, steps=2, note=told.append, **options)
        return [text for text in told if "kept the features" in text]

    assert train()
    assert not train()
    assert train(seed=1)  # the eye is new, and drawn from the seed
    write_graph(tmp_path, records=14)
    assert train()


def test_a_record_that_cannot_be_read_is_left_out_of_every_epoch(tmp_path):
    graph = write_graph(tmp_path)
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"x": [[1, 2]], "y": [[1, 2, 3]]}\n')
    with pytest.raises(mg.InputError, match=r"data\.jsonl:14"):
        mg.train(graph, out=tmp_path / "out", device="cpu", features="float32")
    folder = mg.train(graph, out=tmp_path / "out", device="cpu", features="float32", skip_bad=True, force=True).last
    assert json.loads((folder / "card.json").read_text())["skipped"] == 1


def test_a_dry_run_tells_what_a_stage_takes_and_writes_nothing(tmp_path):
    graph, told = write_graph(tmp_path), []
    found = mg.train(graph, out=tmp_path / "out", device="cpu", dry_run=True, note=told.append)
    one = found.forecasts["train"]
    assert (one.trainable, one.total) == (3 * 7 + 3, 3 * 7 + 3 + 7 * 5 + 7)
    assert one.optimizer == one.trainable * 4 * 3  # gradients, and two means of Adam
    assert one.steps == 12
    assert any("trains 24 of 66 parameters" in text for text in told)
    mg.train(graph, out=tmp_path / "out", device="cpu", dry_run=True, note=told.append, features="float16")
    assert "train: a dry run keeps no features, so that its steps are those without" in told
    assert not (tmp_path / "out").exists()


def test_rows_tell_the_files_that_they_name_apart_from_what_stands_there_later(tmp_path):
    """What is kept of a picture is not taken for what another of its name gives."""
    (tmp_path / "a.png").write_bytes(b"one")
    inputs = {"x": SimpleNamespace(has_default=False, port=port("text"))}
    rows = [DataRow("d:1", 1, {"x": str(tmp_path / "a.png")}), DataRow("d:2", 2, {"x": "no file"})]

    def found():
        return read_rows(Dataset((), lambda: iter(rows), "same"), {"x": "x"}, inputs).files

    before = found()
    assert found() == before
    (tmp_path / "a.png").write_bytes(b"other")
    assert found() != before


@pytest.mark.parametrize("value", [[[0.1, 1 / 3, 1e-40]], [[1, 2.5]], [1, 2], [[1.0], [2.0, 3.0]], [1e39], [float("nan")], [], "0.5,1"])
def test_a_row_is_read_as_the_numbers_that_stand_in_it(value):
    """Vectors are kept as arrays; what they are read as, or why they are refused, is what it is of the lists themselves."""
    wanted_port = port("float[batch ...]")

    def read(given):
        try:
            return read_input("x", wanted_port, given).value
        except mg.InputError as error:
            return str(error)

    found, wanted = read(packed(value, wanted_port)), read(value)
    assert type(found) is type(wanted)
    if isinstance(wanted, torch.Tensor):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    else:
        assert found == wanted
    assert isinstance(packed([[0.5]], wanted_port), np.ndarray)
    assert packed([[0.5]], port("float64[batch ...]")) == packed([[0.5]], port("text")) == [[0.5]]


def test_features_of_texts_have_the_length_of_their_own(tmp_path):
    """Tokens of a frozen reader: as many as the text has; a batch is filled up with zeros behind them."""
    from modelgraft_plugins.training.features import _Column, _Writer

    values = [torch.arange(3 * size, dtype=torch.float32).reshape(size, 3) + 1 for size in (2, 5, 1)]
    with (tmp_path / "a.bin").open("wb") as file:
        writer = _Writer(file, "float32")
        for value in values:
            writer.add(value)
        writer.finish(tmp_path / "a.bin")
    found = _Column(tmp_path / "a.bin", {"dtype": writer.kind, "is_even": False}).take([2, 1])
    assert found.shape == (2, 5, 3)
    assert torch.equal(found[0, :1], values[2])
    assert not found[0, 1:].any()
    assert torch.equal(found[1], values[1])


def test_features_are_listed_among_what_is_kept_and_deleted_unless_they_are_read(tmp_path, monkeypatch):
    """The folder is the user's: what else lies there stays."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu", features="float32", steps=2)
    (tmp_path / "out/features/mine").mkdir()
    (tmp_path / "out/features/mine/features.json").write_text("{}")
    keeping = Keeping(mg.Graph("none").registry)
    (item,) = keeping.items(("features",))
    assert (item.path.parent, keeping.bytes_of(item)) == (tmp_path / "out/features", Features(item.path, ()).bytes)
    assert keeping.verify(item) == []
    used = Features(item.path, ())
    assert not keeping.delete(item)
    del used
    assert keeping.delete(item)
    assert [path.name for path in (tmp_path / "out/features").iterdir()] == ["mine"]


DRAWN = """
modelgraft: 1
inputs: {text: text, wanted: "float[batch 3]"}
nodes:
  cut:  {use: text/split, in: {text: inputs.text}}
  ids:  {use: text/tokenizer, from: "./CLIP", in: {text: cut.beginning}}
  read: {use: text/encoder, from: "./CLIP#text_model", in: {ids: ids.ids, mask: ids.mask}, frozen: true}
  hand: {use: projector/linear, with: {over: vector, out_features: 3}, in: {x: read.pooled}}
outputs: {hand: hand}
losses: {apart: {use: loss/alignment, with: {over: vector}, in: {x: hand, wanted: inputs.wanted}}}
training: {data: data.jsonl, batch: 2, steps: 4, features: float16}
"""


def test_the_checker_tells_what_cannot_be_kept_and_why(tmp_path):
    """A reader behind a cut that is drawn; without the cut there is nothing to tell; without a frozen part there is nothing to keep."""
    clip(tmp_path / "CLIP")

    def told(text):
        (tmp_path / "drawn.yaml").write_text(text)
        return [str(one) for one in mg.check(tmp_path / "drawn.yaml").warnings if one.code == "not-kept"]

    (found,) = told(DRAWN)
    assert "features keeps nothing of what read gives" in found
    assert "it follows from what cut draws anew for each record" in found
    assert told(DRAWN.replace("cut.beginning", "inputs.text").replace("  cut:", "  #cut:")) == []
    (found,) = told(DRAWN.replace(", frozen: true", ""))
    assert "there is nothing for features to keep" in found
    assert told(DRAWN.replace(", features: float16", "")) == []
