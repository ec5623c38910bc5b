"""What stands around a call of ONNX Runtime, in microseconds: for an exported node, and for a step of a decoder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import measuring, onnx_sides
from benchmarks.measuring import Spread

if TYPE_CHECKING:
    from modelgraft_plugins.llm.grouped import GroupedSession
    from modelgraft_plugins.llm.stepping import DecodeStep

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


def _rows(calls: dict[str, Callable[[], Any]], rounds: int, before: Callable[[str], None] = lambda _: None) -> list[dict[str, Any]]:
    """before: makes ready for a sample of one of the calls."""
    import torch

    bare = next(iter(calls))

    def sampled(name: str, call: Callable[[], Any]) -> Callable[[], measuring.Sample]:
        def run() -> measuring.Sample:
            with torch.no_grad():  # as the pipeline does
                before(name)
                start = time.process_time()
                for _ in range(LOOPS):
                    call()
                return {"us": (time.process_time() - start) / LOOPS * 1e6}

        return run

    found = measuring.interleave({name: sampled(name, call) for name, call in calls.items()}, rounds, warm=3)
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
    from modelgraft_plugins.onnx import tuned
    from modelgraft_plugins.onnx.calling import Exported

    path = folder.parent / "node.yaml"
    path.write_text(NODE, encoding="utf-8")
    pipeline = mg.open(path, backend="onnx", init="random", cache_bytes=0, timings=False)
    x = torch.randn(2, 3, 64)
    pipeline.run(x=x)
    (entry,) = pipeline.backend("onnx").exports.values()
    session, _ = tuned.session(entry.folder, "cpu")
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
    from modelgraft.plugin import table_of
    from modelgraft_plugins.llm.grouped import GroupedDecoder
    from modelgraft_plugins.llm.sizes import layout_of
    from modelgraft_plugins.onnx import tuned
    from modelgraft_plugins.onnx.graphs import SessionGraph

    path = folder.parent / "tongue.yaml"
    path.write_text(onnx_sides.TONGUE, encoding="utf-8")
    pipeline = mg.open(mg.load(path, params={"checkpoint": str(folder), "max_new_tokens": 2}), backend="onnx", cache_bytes=0)
    pipeline.run(prompt="a")
    (entry,) = pipeline.backend("onnx").exports.values()
    layout = layout_of(entry.manifest["notes"]["layout"])
    session, _ = tuned.session(entry.folder, "cpu")
    decoder = GroupedDecoder(SessionGraph(session, device="cpu"), layout, table_of(torch.randn(layout.vocab, layout.width)))
    reading: list[GroupedSession] = []
    token, bare = torch.tensor([5]), "run_with_iobinding"

    def start(call: str) -> None:
        """Begin with eight tokens; the bare run, which does not move on, in the middle of where the steps come by."""
        while reading:
            reading.pop().close()
        reading.append(decoder.start([torch.randn(8, layout.width)], room=LOOPS + 2))
        reading[0].step(token)
        if call == bare:
            step_of(reading[0]).start([LOOPS // 2 + 8], [0])
            step_of(reading[0]).move(1)

    with torch.no_grad():
        start("")
    calls = {bare: lambda: run_bare(reading), "a step of a decoder": lambda: reading[0].step(token)}
    return _rows(calls, rounds, start)


def run_bare(reading: list[GroupedSession]) -> None:
    """What is bound, without anything around it."""
    step_of(reading[0]).bound.run()


def step_of(session: GroupedSession) -> DecodeStep:
    """What a session has bound for one token."""
    one = session.memory.one
    assert one is not None
    return one
