"""What it costs to make a module: built alone, built and drawn at random, built and filled from a checkpoint; now and before.

    python benchmarks/loading.py                                        # this tree alone
    python benchmarks/loading.py --before ../elsewhere                  # and that of an older one, in turns: ratios with their spread
    python benchmarks/loading.py --before ../elsewhere --size 300m --rounds 3

The model is a LLaMA. `build` takes the published 7B config, on parameters without memory. The others take a smaller one of the same
shape, by default 1.3 billion parameters, because float32 is part of what is measured. Every sample is a process of its own, with the
libraries imported before the clock starts; memory is the peak of resident memory above what stood then.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

if __package__ in {None, ""}:
    sys.path.pop(0)  # this folder, whose onnx.py would stand before the package onnx

SIZES = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1b": {"hidden_size": 2048, "intermediate_size": 5504, "num_hidden_layers": 24, "num_attention_heads": 16},
    "300m": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16},
}
# `llama` is built by modelgraft's own classes, `mistral` by those of transformers, which draw over what torch has drawn.
CASES = (("build", "llama"), ("build", "mistral"), ("random", "llama"), ("random", "mistral"), ("filled", "llama"), ("filled", "mistral"))


def config_of(family: str, size: str) -> dict[str, object]:
    """A config.json of the family."""
    facts = {
        "vocab_size": 32_000,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
    }
    return {"model_type": family, "rope_theta": 10_000.0, "num_key_value_heads": SIZES[size]["num_attention_heads"], **facts, **SIZES[size]}


def sample(case: str, family: str, size: str, dtype: str, folder: str) -> dict[str, float]:
    """Do it once in this process."""
    import transformers.models.llama.modeling_llama
    import transformers.models.mistral.modeling_mistral  # noqa: F401 imports are not what is measured

    from modelgraft.testing import node_of
    from modelgraft_plugins.llm import CausalConfig

    names = _names()
    node = node_of(CausalConfig, {"model": config_of(family, size)})
    weights = Files(Path(folder)) if case == "filled" else None
    context = names["LoadContext"](node, "cpu", dtype, weights, 0, offline=True, registry=None, init="random")
    before, clock, processor = _lowered_peak(), time.perf_counter(), time.process_time()
    if case == "build":
        with names["parameters_without_memory"]():
            made = names["build"](node.component, node)
    else:
        made = names[case](context)
    took = {"wall_s": time.perf_counter() - clock, "cpu_s": time.process_time() - processor}
    peak = _memory("VmHWM") - before
    assert made is not None
    return {**took, "peak_mb": peak}


def _lowered_peak() -> float:
    """Let the peak of memory begin at what is held now, and give that in MB (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(key: str) -> float:
    """A line of /proc/self/status, in MB: VmRSS is what is held now, VmHWM its peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(lines[key].split()[0]) / 1024


def _names() -> dict[str, object]:
    """The functions that do it, by what they are called in this tree or an older one."""
    try:
        from modelgraft.engine.backend import LoadContext
        from modelgraft.engine.modules.building import build, parameters_without_memory
        from modelgraft.engine.modules.filling import filled
        from modelgraft.engine.modules.fresh import fresh as random
    except ImportError:
        from modelgraft.backends.base import LoadContext
        from modelgraft.backends.torch import _build as build
        from modelgraft.backends.torch import _filled as filled
        from modelgraft.backends.torch import _without_weights as random
        from modelgraft.backends.torch import parameters_without_memory
    made = {"build": build, "filled": filled, "random": random}
    return {"LoadContext": LoadContext, "parameters_without_memory": parameters_without_memory, **made}


class Files:
    """The weights of a folder as both trees ask for them: mapped, not read."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.view = SimpleNamespace(root={}, text=str(folder))
        self.tensors = load_file(folder / "model.safetensors")

    def state(self) -> dict[str, object]:
        """All tensors by key."""
        return dict(self.tensors)


def write_checkpoint(folder: Path, family: str, size: str, dtype: str) -> None:
    """A checkpoint with the family's names and zeros: what they are does not matter here."""
    import torch
    from safetensors.torch import save_file

    facts = config_of(family, size)
    width, inner, vocabulary = facts["hidden_size"], facts["intermediate_size"], facts["vocab_size"]
    kind = getattr(torch, dtype)
    state = {f"{name}.weight": torch.zeros(vocabulary, width, dtype=kind) for name in ("model.embed_tokens", "lm_head")}
    state["model.norm.weight"] = torch.zeros(width, dtype=kind)
    shapes = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"} | {
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
    }
    shapes |= {"mlp.down_proj": (width, inner), "input_layernorm": (width,), "post_attention_layernorm": (width,)}
    for layer in range(facts["num_hidden_layers"]):
        state |= {f"model.layers.{layer}.{name}.weight": torch.zeros(shape, dtype=kind) for name, shape in shapes.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(facts), encoding="utf-8")


def measured(tree: Path, *words: str) -> dict[str, float]:
    """A sample in a process that imports modelgraft from a tree."""
    paths = os.pathsep.join(str(tree / part) for part in ("core", "plugins"))
    done = subprocess.run(
        [sys.executable, __file__, "--sample", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": paths},
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def spread(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):8.2f} ({min(values):.2f}-{max(values):.2f})"


def main() -> None:
    """Measure and print."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--before", type=Path, help="another tree of modelgraft, measured in turns with this one")
    ask.add_argument("--size", choices=[size for size in SIZES if size != "7b"], default="1b")
    ask.add_argument("--dtype", default="bfloat16")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--sample", nargs=5, help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.sample:
        print(json.dumps(sample(*given.sample)))
        return
    trees = {"now": Path(__file__).parent.parent, **({"before": given.before} if given.before else {})}
    with tempfile.TemporaryDirectory() as home:
        for family in ("llama", "mistral"):
            write_checkpoint(Path(home) / family, family, given.size, given.dtype)
        for case, family in CASES:
            size = "7b" if case == "build" else given.size
            rounds = [
                {name: measured(tree, case, family, size, given.dtype, str(Path(home) / family)) for name, tree in _turned(trees, turn)}
                for turn in range(given.rounds)
            ]
            _print(f"{case} {family} {size} {given.dtype}", rounds)


def _turned(trees: dict[str, Path], turn: int) -> list[tuple[str, Path]]:
    """The trees, in an order that turns round."""
    pairs = list(trees.items())
    return pairs if turn % 2 else pairs[::-1]


def _print(title: str, rounds: list[dict[str, dict[str, float]]]) -> None:
    print(title)
    for key in ("wall_s", "cpu_s", "peak_mb"):
        line = "   ".join(f"{name} {spread([found[name][key] for found in rounds])}" for name in rounds[0])
        ratios = [found["now"][key] / max(found["before"][key], 1e-9) for found in rounds if "before" in found]
        ratio = f"   ratio {spread(ratios)}" if ratios else ""
        print(f"  {key:8} {line}{ratio}")


if __name__ == "__main__":
    main()
