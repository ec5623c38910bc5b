"""Whether one row is multiplied faster by matrices as they lie in their file than by packed ones: measured once per processor.

Onnxruntime packs float32 matrices for products of many rows, 16 columns at a time, and reads such a panel from one end to the other. For
one row, which is all that a token's step has, memory is the limit, and some processors read one stream more slowly than several side by
side (Zen 2, a plain loop: 16 GB/s by one, 21 to 24 by four). As they lie, a kernel for one row goes through four rows of a matrix at
once: a step of LLaMA's widths at 125M took 22.6 ms in place of 28.4 there. Several rows are faster by packed matrices everywhere
(four: 30 ms in place of 92). So a decoder may have both: packed for prompts and batches, as they lie for one row. Both are mapped from
the same file, and the second takes no memory that the system cannot take back; as long as nobody needs it, it takes as much again.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft.plugin import locked, seals
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.runtime import AS_THEY_LIE, installed, least_seconds, open_on_host, options_of
from modelgraft_plugins.processor import speed_key

LEAST_GAIN = 1.15  # how much faster it must be: matrices of both sessions, as large again, are in memory for as long as it has room
ROWS, COLUMNS, MATRICES = 1024, 2048, 8  # 64 MB of float32: more than the cache of a core holds
ROUNDS = 10
WEIGHTS = "zeros"  # their file


def is_faster_as_they_lie() -> bool:
    """What was measured; False where nothing was, or by another onnxruntime."""
    return _kept() is True


def prepare() -> None:
    """Measure what is not known of this processor, which takes about a second, and keep it where a file can be written and graphs can."""
    if _kept() is not None or not store.can_export():
        return
    with contextlib.suppress(OSError), locked(store.exports_root() / "locks" / "one-row"):
        if _kept() is None:  # no other process was faster
            taken = seconds()
            seals.write_sealed(file(), {"onnxruntime": installed(), "as_they_lie": taken["packed"] >= LEAST_GAIN * taken["as they lie"]})


def file() -> Path:
    """Where it is kept."""
    return store.exports_root() / f"one-row-{speed_key()}.json"


def seconds() -> Mapping[str, float]:
    """How long one row takes through a few matrices, "packed" and "as they lie": in turn, the least of some rounds, one thread."""
    import numpy

    feed = {"x": numpy.ones((1, ROWS), numpy.float32)}
    with tempfile.TemporaryDirectory() as folder:
        graph = _written(Path(folder))
        sessions = {
            "packed": open_on_host(graph, options_of(count=1)),
            "as they lie": open_on_host(graph, options_of(count=1, settings=AS_THEY_LIE)),
        }
        return least_seconds(sessions, feed, rounds=ROUNDS)


def _written(folder: Path) -> Path:
    """Products of one row by several matrices, added up; they are mapped from a file of zeros, as those of an export are from theirs."""
    from onnx import TensorProto, helper, save_model

    size = ROWS * COLUMNS * 4
    with (folder / WEIGHTS).open("wb") as file:
        file.truncate(MATRICES * size)
    constants = []
    for number in range(MATRICES):
        held = TensorProto(name=f"w.{number}", data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS], data_location=TensorProto.EXTERNAL)
        for key, value in {"location": WEIGHTS, "offset": number * size, "length": size}.items():
            held.external_data.add(key=key, value=str(value))
        constants.append(held)
    nodes = [helper.make_node("MatMul", ["x", constant.name], [f"y.{constant.name}"]) for constant in constants]
    nodes.append(helper.make_node("Sum", [f"y.{constant.name}" for constant in constants], ["y"]))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]) for name, width in (("x", ROWS), ("y", COLUMNS))]
    graph = helper.make_graph(nodes, "products", ports[:1], ports[1:], constants)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / store.GRAPH)
    return folder / store.GRAPH


def _kept() -> bool | None:
    """Whether it was faster, as it was measured; None where that is missing, broken, or of another onnxruntime."""
    try:
        found: Any = seals.read_sealed(file())
        return bool(found["as_they_lie"]) if found["onnxruntime"] == installed() else None
    except (OSError, seals.BrokenSeal, LookupError, TypeError, ValueError, AttributeError):
        return None
