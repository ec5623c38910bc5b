"""What stands around a call of ONNX Runtime, in microseconds: for an exported node, and for a step of a decoder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import measuring, onnx_sides
from benchmarks.measuring import Spread

LOOPS = 200  # calls in one sample
NODE = """
modelgraft: 1
name: node
inputs: {x: "float[batch tokens 64]"}
nodes: {node: {use: projector/linear, with: {in_features: 64, out_features: 64}, in: {x: inputs.x}}}
outputs: {y: node.y}
"""


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Rows: what is called, its microseconds, and how many these are over the bare call, round by round."""
    return [*_node(folder, rounds), *_step(folder, rounds)]


def _rows(calls: dict[str, Callable[[], Any]], rounds: int) -> list[dict[str, Any]]:
    import torch

    bare = next(iter(calls))

    def sampled(call: Callable[[], Any]) -> Callable[[], measuring.Sample]:
        def run() -> measuring.Sample:
            with torch.no_grad():  # as the pipeline does
                start = time.process_time()
                for _ in range(LOOPS):
                    call()
                return {"us": (time.process_time() - start) / LOOPS * 1e6}

        return run

    found = measuring.interleave({name: sampled(call) for name, call in calls.items()}, rounds, warm=3)
    return [
        {
            "call": name,
            "bare": bare,
            "microseconds": str(Spread.of(one["us"] for one in found[name])),
            "over": str(Spread.of(one["us"] - other["us"] for one, other in zip(found[name], found[bare], strict=True))),
        }
        for name in list(calls)[1:]
    ]


def _node(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A projection of 2 x 3 vectors of 64 numbers: the session, the backend's call of it, and a run of a graph of this one node."""
    import torch

    import modelgraft as mg
    from modelgraft.backends.onnx import store
    from modelgraft.backends.onnx.calling import Exported

    path = folder.parent / "node.yaml"
    path.write_text(NODE, encoding="utf-8")
    pipeline = mg.open(path, backend="onnx", init="random", cache_bytes=0, timings=False)
    x = torch.randn(2, 3, 64)
    pipeline.run(x=x)
    (entry,) = pipeline.backend("onnx").exports.values()
    session, _ = store.session(entry.folder, "cpu")
    backend, feed = Exported(session, device="cpu"), {session.get_inputs()[0].name: x.numpy()}
    return _rows(
        {
            "session.run": lambda: session.run(None, feed),
            "the backend's call of a node": lambda: backend(x),
            "a run of a graph of one node": lambda: pipeline.run(x=x),
        },
        rounds,
    )


def _step(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A step of a decoder, batch 1: the bound session, and the decoder around it with the embedding of the token."""
    import torch

    import modelgraft as mg
    from modelgraft.backends.onnx import store
    from modelgraft.backends.onnx.decoding import Layout, OnnxDecoder

    path = folder.parent / "tongue.yaml"
    path.write_text(onnx_sides.TONGUE, encoding="utf-8")
    pipeline = mg.open(mg.load(path, params={"checkpoint": str(folder), "max_new_tokens": 2}), backend="onnx", cache_bytes=0)
    pipeline.run(prompt="a")
    (entry,) = pipeline.backend("onnx").exports.values()
    facts = dict(entry.manifest["layout"])
    layout = Layout(**{**facts, "dtype": torch.float32})
    table = torch.randn(layout.vocab, layout.width)
    session, _ = store.session(entry.folder, "cpu")
    decoder = OnnxDecoder(session, layout, lambda ids: table[ids], device="cpu")
    token = torch.tensor([5])

    def restart() -> None:
        with torch.no_grad():
            decoder.prefill([torch.randn(8, layout.width)], room=LOOPS + 1)
            decoder.step(token)

    restart()

    def step() -> None:
        if int(decoder.lengths) > LOOPS:
            restart()
        decoder.step(token)

    return _rows({"run_with_iobinding": lambda: session.run_with_iobinding(decoder.binding), "a step of a decoder": step}, rounds)
