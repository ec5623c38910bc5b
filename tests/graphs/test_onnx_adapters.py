"""Language models with LoRA on ONNX Runtime: the updates are part of the exported weights, and tell exports apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from modelgraft.cli.tables import plan_document
from modelgraft_plugins.onnx.keys import identity_of, key_of
from support import checkpoints
from support.untuned import leave_untuned

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

GRAPH = """
modelgraft: 1
params: {alpha: 6}
inputs: {prompt: text}
nodes:
  llm:
    use: llm/causal
    from: ./model
    with: {max_new_tokens: 4}
    in: {prompt: inputs.prompt}
    adapters:
      - {use: adapter/lora, from: ./lora.safetensors, with: {rank: 2, alpha: "${alpha}", targets: [q_proj, o_proj]}}
outputs: {text: llm.text, logits: llm.logits}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A LLaMA, a graph with LoRA, and a cache of their own; exports are not tuned, which takes a process each."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    leave_untuned(monkeypatch)
    checkpoints.llama(tmp_path / "model")
    (tmp_path / "graph.yaml").write_text(GRAPH)
    return tmp_path


def write_updates(folder: Path, *, seed: int) -> None:
    """A file of peft for both layers: A [rank in], B [out rank]."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"q_proj": (28, 64), "o_proj": (64, 28)}  # inputs and outputs: four heads of sixteen
    save_file(
        {
            f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{letter}.weight": 0.3 * torch.randn(shape, generator=generator)
            for layer in range(2)
            for name, (width, outer) in sizes.items()
            for letter, shape in (("A", (2, width)), ("B", (outer, 2)))
        },
        folder / "lora.safetensors",
    )


def answer(folder: Path, backend: str, **params: int) -> tuple[str, torch.Tensor]:
    """Text and first logits."""
    with mg.open(mg.load(folder / "graph.yaml", params=params), backend=backend) as pipeline:
        result = pipeline.run(prompt="how many cats are there?")
    return result["text"], result["logits"]


def test_an_export_holds_the_updates(folder: Path):
    """The numbers of torch, where the updates stand beside their layers; a plan knows the export that is kept."""
    write_updates(folder, seed=1)
    text, logits = answer(folder, "torch")
    found, got = answer(folder, "onnx")
    assert found == text
    assert (got - logits).abs().max() <= 1e-4 * logits.abs().max()
    assert set(plan_document(mg.plan(mg.load(folder / "graph.yaml"), backend="onnx"))["parity"]) == {"llm"}
    write_updates(folder, seed=2)
    assert (answer(folder, "torch")[1] - logits).abs().max() > 1e-2, "the updates count"


def test_exports_with_other_updates_are_told_apart(folder: Path):
    """By the file, by alpha, and by whether there are updates at all."""

    def key(**params: int) -> str:
        node = mg.check(mg.load(folder / "graph.yaml", params=params)).nodes["llm"]
        weights = identity_of(node.source.identity(), [adapter.source.identity() for adapter in node.adapters])
        return key_of(node, None, [weights], precision="float32")

    write_updates(folder, seed=1)
    one, other = key(alpha=6), key(alpha=9)
    write_updates(folder, seed=22)
    (folder / "graph.yaml").write_text(GRAPH)
    assert len({one, other, key(alpha=6)}) == 3
    (folder / "graph.yaml").write_text(
        GRAPH.partition("    adapters:")[0].replace("params: {alpha: 6}\n", "") + "outputs: {text: llm.text}\n"
    )
    assert key() not in {one, other}
