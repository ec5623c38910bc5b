"""Variants side by side: each ends at what it ends at alone, on data that are read and frozen parts that are called once."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft.cli import main
from modelgraft_plugins.training import records
from modelgraft_plugins.training.variants import variants_of
from support.learners import write_graph

STAGES = ("steps: 12", "valid: 0.3\n  stages:\n    one: {steps: 7, evaluate: 3, save: 4}\n    two: {epochs: 1}")
WIDTHS = {"hand": {"wide": {"hand.use": "projector/mlp", "hand.hidden_features": 11}, "plain": {}}, "learning_rate": [0.05, 0.01]}
FILE = """
sweep: 1
set: {training.stages.one.steps: 5}
axes:
  hand:
    wide: {nodes.hand.use: projector/mlp, hand.hidden_features: 11}
    plain: {seed: 3}
  learning_rate: [0.05, 0.01]
"""


def trained_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("hand.safetensors", "metrics.csv")}


@pytest.mark.parametrize("features", ["off", "float32"])
def test_each_variant_ends_at_the_bytes_that_it_ends_at_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: str):
    """Four connectors of two stages; the data are read once for all of a stage, and features written once."""
    graph, reads = write_graph(tmp_path, STAGES), []
    read = records.read_rows
    monkeypatch.setattr(records, "read_rows", lambda *given, **more: reads.append(given) or read(*given, **more))
    found = mg.train(graph, out=tmp_path / "out", device="cpu", sweep=WIDTHS, features=features)
    assert len(reads) == 2
    assert len(found.folder) == 8
    assert len(list((tmp_path / "out").glob("features/*"))) == (0 if features == "off" else 1)
    for name, settings in {"wide": WIDTHS["hand"]["wide"], "plain": {}}.items():
        params = {f"nodes.{key.replace('.hid', '.with.hid')}": value for key, value in settings.items()}
        for rate in (0.05, 0.01):
            alone = mg.train(graph, out=tmp_path / f"{name}{rate}", device="cpu", params=params, learning_rate=rate, features=features)
            for stage, folder in alone.folder.items():
                assert trained_bytes(found.folder[f"{name},learning_rate={rate}/{stage}"]) == trained_bytes(folder), (name, rate, stage)
    table = list(csv.DictReader((tmp_path / "out" / "sweep.csv").read_text().splitlines()))
    assert [row["variant"] for row in table[:4]] == [f"{name},learning_rate={rate}" for name in ("wide", "plain") for rate in (0.05, 0.01)]
    assert [row["steps"] for row in table[:4]] == ["7"] * 4
    assert [row["parameters"] for row in table[:3:2]] == [str(7 * 11 + 11 + 11 * 3 + 3), str(7 * 3 + 3)]
    assert (tmp_path / "out" / "sweep.one.svg").read_text().count("<polyline") == 4


def test_a_variant_without_numbers_stops_alone(tmp_path: Path):
    """And what was stopped is told by the table; a sweep of which none is left is an error."""
    graph, told = write_graph(tmp_path, ("steps: 12", "steps: 6\n  optimizer: sgd\n  clip: 0\n  warmup: 0")), []
    found = mg.train(graph, out=tmp_path / "out", device="cpu", sweep={"learning_rate": [1e38, 0.01]}, note=told.append)
    assert list(found.folder) == ["learning_rate=0.01/train"]
    wild, tame = found.table
    assert "no number" in wild.stopped
    assert (tame.stopped, tame.steps) == ("", 6)
    assert any("stops, and the others go on" in text for text in told)
    with pytest.raises(mg.InputError, match="none of the 2 variants is left"):
        mg.train(graph, out=tmp_path / "none", device="cpu", sweep={"learning_rate": [1e38, 2e38]})


def test_a_sweep_that_was_stopped_goes_on_to_the_same_bytes(tmp_path: Path):
    """As if it had been killed behind the tenth step of one; the other is done."""
    graph = write_graph(tmp_path, ("steps: 12", "steps: 12\n  save: 5"))
    sweep = {"learning_rate": [0.05, 0.01]}

    whole = mg.train(graph, out=tmp_path / "whole", device="cpu", sweep=sweep)
    cut = mg.train(graph, out=tmp_path / "cut", device="cpu", sweep=sweep)
    folder = tmp_path / "cut" / "learning_rate=0.05" / "train"
    (folder / "card.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "step-00000012")
    again = mg.train(graph, out=tmp_path / "cut", device="cpu", sweep=sweep, resume=True)
    assert list(again.folder) == list(cut.folder)
    for key, folder in whole.folder.items():
        assert trained_bytes(again.folder[key]) == trained_bytes(folder), key
    assert [one.steps for one in again.table] == [12, 12]


def test_a_sweep_file_and_the_table_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    graph = write_graph(tmp_path, STAGES)
    (tmp_path / "sweep.yaml").write_text(FILE)
    asked = ["train", str(graph), "--out", str(tmp_path / "out"), "--device", "cpu", "--sweep", str(tmp_path / "sweep.yaml")]
    assert main([*asked, "--stage", "one", "--dry-run"]) == 0
    assert "one: 4 variants train" in "".join(capsys.readouterr())
    assert not (tmp_path / "out").exists()
    assert main([*asked, "--stage", "one"]) == 0
    said = capsys.readouterr().out
    assert "steps/s" in said
    assert said.count("wide,learning_rate=0.01") == 3  # a row, and its folder by its name
    assert json.loads((tmp_path / "out" / "plain,learning_rate=0.05" / "one" / "run.json").read_text())["stage.seed"] == 3
    wide, plain = (
        "training.stages.one.steps: 5, nodes.hand.use: projector/mlp",
        "training.stages.one.steps: 5, seed: 3, learning_rate: 0.01",
    )
    listed = (tmp_path / "out" / "sweep.md").read_text().splitlines()
    assert f"- wide,learning_rate=0.05: {wide}, nodes.hand.with.hidden_features: 11, learning_rate: 0.05" in listed
    assert f"- plain,learning_rate=0.01: {plain}" in listed


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        (["learning_rate"], "names no values"),
        ([], "has no axes"),
        ({"learning_rate": 3}, "wanted: a list of values"),
        ({"features": {"features": {}}}, "cannot be called 'features'"),
        (["learning_rate=1,2", "learning_rate=3,4"], "is given twice"),
        ({"seed": list(range(99))}, "spans 99 variants"),
    ],
)
def test_a_sweep_that_says_nothing_is_refused(sweep, told):
    with pytest.raises(mg.InputError, match=told):
        variants_of(sweep, ["hand"])


def test_variants_that_do_not_fit_are_told_before_anything_is_trained(tmp_path: Path):
    sweep = {"hand": {"good": {}, "wrong": {"hand.out_features": 4}}}
    with pytest.raises(mg.InputError, match=r"(?s)1 of 2 variants cannot be trained.*wrong: .*dim-mismatch"):
        mg.train(write_graph(tmp_path), out=tmp_path / "out", device="cpu", sweep=sweep)
    assert not (tmp_path / "out").exists()
