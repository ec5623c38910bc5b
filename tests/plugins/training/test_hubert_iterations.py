"""HuBERT's iterations by the shipped graphs: units of MFCC, a model that names them, units of one of its layers, and the next model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.records.sounds import write_wave
from modelgraft_plugins.training.watching import read_table
from support.sounds import tone

CLUSTERS = 6
WORDS = {
    "model_type": "hubert",
    "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2", "encoder_layers": 2, "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 37, "encoder_attention_heads": 3, "conv_pos": 16, "conv_pos_groups": 4, "final_dim": 6,
    "codes": [CLUSTERS + 4],
}  # fmt: skip


def falls(folder: Path) -> bool:
    losses = [float(row["loss"]) for row in read_table(folder / "metrics.csv") if row["part"] == "train"]
    return sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with sounds, a list of them, and the config of a model."""
    monkeypatch.chdir(tmp_path)
    for folder in ("sounds", "model"):
        Path(folder).mkdir()
    names = [f"sounds/{number}.wav" for number in range(4)]
    for number, name in enumerate(names):
        write_wave(tone(0.4 + 0.1 * number, hertz=110.0 * (2 * number + 1)), Path(name))
    Path("sounds.jsonl").write_text("".join(f"{json.dumps({'audio': name})}\n" for name in names))
    Path("model/config.json").write_text(json.dumps(WORDS))
    return tmp_path


@pytest.mark.slow
def test_each_iteration_names_units_of_the_one_before(home: Path):
    """Centres of MFCC, then of the first layer of what was trained: other units, and the same sounds are learnt again by them."""
    fit = ["units", "fit", "--clusters", str(CLUSTERS)]
    assert main([*fit, "hubert/mfcc", "sounds", "--out", "first.safetensors"]) == 0
    told = {"steps": 16, "batch": 4, "learning_rate": 3e-3, "device": "cpu", "init": "random"}
    given = {"checkpoint": "./model", "training.warmup": 0}
    params = {**given, "units": "./first.safetensors", "codes": [CLUSTERS + 4]}
    first = mg.train("hubert/pretrain_mfcc", out="first", data="sounds.jsonl", params=params, **told).last
    assert falls(first)
    assert {path.name for path in first.glob("*.safetensors")} == {"encoder.safetensors", "codes.safetensors"}

    trained = {"checkpoint": "./model", "nodes.encoder.from": str(first / "encoder.safetensors"), "layer": 1}
    again = [word for name, value in trained.items() for word in ("--set", f"{name}={value}")]
    assert main([*fit, "hubert", "sounds", "--out", "second.safetensors", *again]) == 0
    after = {"teacher": str(first / "encoder.safetensors"), "layer": 1, "units": "./second.safetensors", "codes": [CLUSTERS + 4]}
    with mg.open(mg.load("hubert/pretrain_layer", params={**given, **after}), init="random") as pipeline:
        units = pipeline.run(audio="sounds/0.wav", outputs=["frames"])["frames"]
    with mg.open(mg.load("hubert/units", params={**trained, "units": "./second.safetensors"})) as pipeline:
        assert torch.equal(pipeline.run(audio="sounds/0.wav")["frames"], units)
    second = mg.train("hubert/pretrain_layer", out="second", data="sounds.jsonl", params={**given, **after}, **told).last
    assert falls(second)
    one, other = (load_file(folder / "encoder.safetensors") for folder in (first, second))
    assert any(not torch.equal(one[name], other[name]) for name in one)
