"""How near a language model in few bits is to itself in float32: the real SmolLM2, over texts that are given.

    python -m benchmarks.nearness [--texts 5] [--json]

Every side reads the same pieces of the project's own pages once, 256 tokens each, and says at each place what it expects next: no token
that a side likes better leads it elsewhere. `KL` is how far that is from what float32 expects (Kullback-Leibler divergence, in nats, with
its standard error over the places), `likeliest` how often both expect the same token most, `loss` what the next token of the text costs.
`anew` does not keep the blocks of the file (MODELGRAFT_BLOCKS=32). None of it depends on how busy a machine is; kernels may differ.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, rivals
from benchmarks.peers import weights

GRAPH = """modelgraft: 1
nodes: {{say: {{use: llm/causal, from: "{source}", with: {{prompt: a, max_new_tokens: 1}}}}}}
outputs: {{text: say.text}}
"""
REFERENCE = ("float32", {})
SIDES = {"w4": ("w4", {}), "w8": ("w8", {}), "w4, anew": ("w4", {"MODELGRAFT_BLOCKS": "32"})}
Texts = Sequence[Sequence[int]]


def expectations(model: weights.Original, side: tuple[str, dict[str, str]], texts: Texts) -> list[Any]:
    """Of each text float32[tokens vocabulary]: the logarithms of what a side finds likely behind each token."""
    import torch

    import modelgraft as mg
    from modelgraft_plugins.onnx.sessions import open_session

    precision, variables = side
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"MODELGRAFT_BACKGROUND": "off", **variables}):
        path = Path(folder) / "say.yaml"
        path.write_text(GRAPH.format(source=model.source), encoding="utf-8")
        with mg.open(mg.load(path), backend="onnx", precision=precision, export="now") as pipeline:
            pipeline.run()  # which exports what is not kept
            export = pipeline.backend("onnx").exports["say"].folder
    session, table = open_session(export / "model.onnx", device="cpu"), embeddings(model.checkpoint)
    slabs = {slot.name: slot.shape for slot in session.get_inputs() if slot.name.startswith("past.")}
    found = []
    for text in texts:
        count = len(text)
        given = {
            "inputs_embeds": table[torch.tensor(text)][None],
            "position_ids": torch.arange(count)[None],
            "seqlens_k": torch.tensor([count - 1], dtype=torch.int32),
            "total": torch.tensor([count], dtype=torch.int32),
            "last": torch.arange(count)[None],
            **{name: torch.zeros(1, heads, count, width) for name, (_, heads, _, width) in slabs.items()},
        }
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in given.items()})
        found.append(torch.from_numpy(logits[0]).log_softmax(-1))
    return found


def embeddings(checkpoint: Path) -> Any:
    """float32[vocabulary width], as the checkpoint holds them."""
    from safetensors import safe_open

    for file in checkpoint.glob("*.safetensors"):
        with safe_open(file, "pt") as held:
            if "model.embed_tokens.weight" in held.keys():  # noqa: SIM118 it is no mapping
                return held.get_tensor("model.embed_tokens.weight").float()
    raise RuntimeError(f"{checkpoint} holds no embeddings")


def compared(wanted: Sequence[Any], got: Sequence[Any], texts: Texts) -> dict[str, float]:
    """How far the second is from the first over all places; the loss is over those that have a token behind them."""
    import torch

    far = torch.cat([(one.exp() * (one - other)).sum(-1) for one, other in zip(wanted, got, strict=True)])
    same = torch.cat([one.argmax(-1) == other.argmax(-1) for one, other in zip(wanted, got, strict=True)])
    return {
        "KL": far.mean().item(),
        "error": (far.std() / len(far) ** 0.5).item(),
        "likeliest": same.double().mean().item(),
        "loss": loss_of(got, texts),
    }


def loss_of(got: Sequence[Any], texts: Texts) -> float:
    """What a next token costs in the mean, in nats."""
    import torch

    said = [one[:-1].gather(1, torch.tensor(text[1:])[:, None]) for one, text in zip(got, texts, strict=True)]
    return -torch.cat(said).mean().item()


def main() -> None:
    """Compare each side, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=5, choices=range(1, rivals.PROMPTS + 1))
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    model = weights.original(measuring.usual_cache())
    texts = [prompt["ids"] for prompt in rivals.prompts(model.checkpoint / "tokenizer.json")[: asked.texts]]
    wanted = expectations(model, REFERENCE, texts)
    told: dict[str, Any] = {
        "places": sum(map(len, texts)),
        "loss of float32": loss_of(wanted, texts),
        "sides": dict[str, dict[str, float]](),
    }
    if not asked.json:
        print(measuring.surroundings())
        print(f"{told['places']:,} places; float32: loss {told['loss of float32']:.3f}", flush=True)
    for name, side in SIDES.items():
        row = told["sides"][name] = compared(wanted, expectations(model, side, texts), texts)
        if not asked.json:
            found = f"KL {row['KL']:.4f} ± {row['error']:.4f} nats, likeliest {row['likeliest']:.1%}, loss {row['loss']:.3f}"
            print(f"{name}: {found}", flush=True)
    if asked.json:
        print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
