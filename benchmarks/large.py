"""The first start of a large decoder on onnx: from empty exports to its first token, in seconds and in memory.

    python -m benchmarks.large [--minutes 5] [--quick] [--json]

A LLaMA of TinyLlama's sizes, 1.1 billion numbers at random in bfloat16, is written into a temporary folder (2.2 GB, and as many bytes as
its weights take for each export, one at a time). Each start is a process of its own with an empty cache, on all cores; it ends with its
first token, before anything is tuned in the background. Goals, on two quiet cores: 60 s, and 1.5 times the weights.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import checkpoints, measuring, memory, onnx_sides, tables
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table, told

LAYERS = 22
SIZES: Mapping[str, int] = {  # of TinyLlama (arXiv 2401.02385)
    "hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": checkpoints.PIECES,
}  # fmt: skip
PRECISIONS = ("float32", "w8", "w4")
ROUNDS = 3
MAKE = "import sys; from pathlib import Path; from benchmarks import large; print(large.make(Path(sys.argv[1]), int(sys.argv[2])))"


def make(folder: Path, layers: int) -> int:
    """Write the checkpoint with a tokenizer; gives how many numbers it holds.

    What a layer adds to its input is smaller the more layers there are, as in GPT-2 and in trained models: random weights without that
    multiply what is lost in 4 bits from layer to layer, and the parity gate refuses them.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig

    config = LlamaConfig(num_hidden_layers=layers, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=None, pad_token_id=0)
    config.update({**SIZES, "head_dim": SIZES["hidden_size"] // SIZES["num_attention_heads"], "dtype": "bfloat16"})
    config.save_pretrained(folder)
    checkpoints.tokenizer(checkpoints.PIECES).save_pretrained(folder)
    draw, found = torch.Generator().manual_seed(0), dict[str, torch.Tensor]()
    for name, shape in shapes(layers).items():
        scale = 0.02 / (2 * layers) ** 0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
        drawn = torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=draw) * scale
        found[name] = drawn.bfloat16()
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.numel() for tensor in found.values())


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """The tensors of the checkpoint, [out in] each."""
    width, inner, words = SIZES["hidden_size"], SIZES["intermediate_size"], SIZES["vocab_size"]
    pairs = width // SIZES["num_attention_heads"] * SIZES["num_key_value_heads"]
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, width), "lm_head.weight": (words, width)}
    found["model.norm.weight"] = (width,)
    for layer in range(layers):
        place = f"model.layers.{layer}"
        found |= {f"{place}.{norm}_layernorm.weight": (width,) for norm in ("input", "post_attention")}
        found |= {f"{place}.self_attn.{one}_proj.weight": (pairs if one in "kv" else width, width) for one in "qkvo"}
        found |= {f"{place}.mlp.{one}_proj.weight": (inner, width) for one in ("gate", "up")}
        found[f"{place}.mlp.down_proj.weight"] = (width, inner)
    return found


def first_token(place: Path, precision: str) -> None:
    """What a process does that starts, writes a token, and ends at once: before it would have its export tuned by another process."""
    import modelgraft as mg
    from modelgraft.engine.meanwhile import Meanwhile

    setattr(Meanwhile, "begin", lambda _: None)  # noqa: B010 mypy lets nobody assign it; it may come before the token is seen here
    graph = mg.load(place.parent / "tongue.yaml", params={"checkpoint": str(place), "max_new_tokens": 1})
    pipeline = mg.open(graph, backend="onnx", precision=precision)
    next(event for event in pipeline.stream(prompt="A text to go on with, of some tokens.") if event.kind == "token")
    os._exit(0)


def started(place: Path, precision: str, cache: Path) -> Sample:
    """Seconds and MB of such a process with an empty cache. Raises RuntimeError with what it said."""
    shutil.rmtree(cache, ignore_errors=True)
    surroundings = measuring.environment(os.cpu_count() or 1, cache)
    del surroundings["MODELGRAFT_BACKGROUND"]  # tuning is left to another process, as usual
    words = [sys.executable, "-m", "benchmarks.large", "--worker", str(place), precision]
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        one = subprocess.Popen(words, cwd=measuring.ROOT, env=surroundings, stdout=said, stderr=said)
        held = _watched(one.pid)
        _, status, used = os.wait4(one.pid, 0)
        wall, one.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        shutil.rmtree(cache, ignore_errors=True)
        if one.returncode:
            said.seek(0)
            raise RuntimeError(said.read().strip()[-500:] or f"it ended with {one.returncode}")
    return {"wall": wall, "cpu": used.ru_utime + used.ru_stime, **held}


def _watched(number: int) -> Sample:
    """The most MB that a process holds until it ends: see `measuring.with_peaks`. From outside, where it costs the process nothing."""
    found, names = {"peak": 0.0, "anonymous": 0.0}, {"peak": "VmHWM:", "anonymous": "RssAnon:"}
    while True:
        lines = Path(f"/proc/{number}/status").read_text(encoding="utf-8").splitlines()
        told = {name: int(line.split()[1]) / 1024 for line in lines for name, field in names.items() if line.startswith(field)}
        if not told:  # it has ended
            return found
        found = {name: max(most, told.get(name, 0.0)) for name, most in found.items()}
        time.sleep(measuring.POLL_S)


def rows(asked: Asked) -> list[Row]:
    """A row for each precision."""
    layers = 2 if asked.is_quick else LAYERS
    place = asked.folder / "large"
    words = [sys.executable, "-c", MAKE, str(place), str(layers)]
    made = subprocess.run(words, cwd=measuring.ROOT, check=True, capture_output=True, text=True)
    numbers = int(made.stdout.split()[-1])
    (asked.folder / "tongue.yaml").write_text(onnx_sides.TONGUE, encoding="utf-8")
    found: list[Row] = []
    for precision in PRECISIONS:
        side = {precision: partial(started, place, precision, asked.folder / "empty")}
        share = asked.share(1 / len(PRECISIONS))
        try:
            samples = measuring.interleave(side, 1 if asked.is_quick else ROUNDS, warm=0, seconds=share, least=1)[precision]
        except RuntimeError as error:
            found.append({"precision": precision, "why": str(error).splitlines()[-1]})
            continue
        found.append(row(precision, numbers, samples))
        told(f"  {precision}: {tables.shown(found[-1]['wall_s'])} s, {tables.shown(found[-1]['ratio'])} of the weights")
    return found


def row(precision: str, numbers: int, samples: list[Sample]) -> Row:
    """Of some starts; ratios are to all numbers in the precision, blocks of 32 with their scales."""
    mib = 2**20 / memory.MB
    weights = numbers * memory.BYTES[precision] / memory.MB
    return {
        "precision": precision,
        "weights": round(weights),
        "wall_s": measuring.spread_of(samples, "wall"),
        "cpu_s": measuring.spread_of(samples, "cpu"),
        "peak": measuring.spread_of(samples, "peak", times=mib),
        "ratio": measuring.spread_of(samples, "peak", times=mib / weights),
        "anonymous": measuring.spread_of(samples, "anonymous", times=mib),
        "own": measuring.spread_of(samples, "anonymous", times=mib / weights),
    }


TABLE = Table(
    name="large",
    title="The first start of a large decoder on onnx",
    says="A LLaMA of 1.1 billion numbers at random, from empty exports to its first token: whole processes on all cores, imports "
    "included. The peak counts all pages, those of mapped files as well; anonymous ones belong to no file.",
    columns={
        "precision": "precision", "weights": "weights, MB", "wall_s": "wall s", "cpu_s": "CPU s", "peak": "peak, MB",
        "ratio": "of the weights", "anonymous": "anonymous, MB", "own": "of the weights",
    },
    rows=rows,
    minutes=5.0,
)  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        first_token(Path(sys.argv[2]), sys.argv[3])
    else:
        tables.alone(TABLE)
