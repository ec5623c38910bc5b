"""Whether a decoder's matrices are faster here in panels that are read side by side than packed: measured once per processor.

For one row, which is all that a token's step has, memory is the limit, and how much several streams gain over one differs by processor;
for the many rows of a prompt kernels are, those of packed matrices and those of convolutions. What is compared are texts: a prompt and
some tokens behind it. Both forms are measured as they run, mapped from a file that was written before: see `panels.py`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft.plugin import locked, seals
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.runtime import installed, least_seconds, open_on_host, options_of
from modelgraft_plugins.onnx.tuning import panel_width, write_forms
from modelgraft_plugins.processor import speed_key

ROWS, COLUMNS, MATRICES = 1024, 2048, 8  # 64 MB of float32: more than the cache of a core holds
ROUNDS = {1: 15, 250: 4}  # by rows: of a token, and of a prompt
TOKENS = 64  # behind a prompt
MOST_LOSS = (
    1.15  # of a text that panels may lose, as far as is measured on a busy machine: they open in a tenth of the time, in half the files
)
WEIGHTS = "weights"  # their file


def panels() -> int:
    """How many columns a panel has, where that was measured to pay; 0 where it was not, or by another onnxruntime."""
    return _kept() or 0


def prepare() -> None:
    """Measure what is not known of this processor, which takes some seconds, and keep it where a file can be written and graphs can."""
    if _kept() is not None or not store.can_export():
        return
    with contextlib.suppress(OSError), locked(store.exports_root() / "locks" / "one-row"):
        if _kept() is None:  # no other process was faster
            width = panel_width()
            taken = seconds(width) if width else {}
            pays = bool(taken) and taken["panels"] <= MOST_LOSS * taken["packed"]
            seals.write_sealed(file(), {"onnxruntime": installed(), "panels": width if pays else 0})


def file() -> Path:
    """Where it is kept."""
    return store.exports_root() / f"one-row-{speed_key()}.json"


def seconds(width: int) -> Mapping[str, float]:
    """How long a text takes through a few matrices, "packed" and in "panels" of so many columns: the least of some rounds, one thread.

    Nothing where one of them cannot be written.
    """
    import numpy

    with tempfile.TemporaryDirectory() as folder:
        forms = write_forms(_written(Path(folder)), Path(folder), width)
        sessions = {name: open_on_host(graph, options_of(count=1, optimised=True)) for name, graph in forms.items()}
        if len(sessions) < 2:
            return {}
        one, many = (
            least_seconds(sessions, {"x": numpy.ones((1, rows, ROWS), numpy.float32)}, rounds=rounds) for rows, rounds in ROUNDS.items()
        )
    return {name: many[name] + TOKENS * one[name] for name in sessions}


def _written(folder: Path) -> Path:
    """Products of rows by several matrices, added up; they are mapped from a file, as those of an export are."""
    from onnx import TensorProto, helper, save_model

    size = ROWS * COLUMNS * 4
    with (folder / WEIGHTS).open("wb") as file:
        file.truncate(MATRICES * size)
        for number in range(MATRICES):  # what is packed of equal ones is written once
            file.seek(number * size)
            file.write(bytes([0, 0, number, 64]))  # a float32
    constants = []
    for number in range(MATRICES):
        held = TensorProto(name=f"w.{number}", data_type=TensorProto.FLOAT, dims=[ROWS, COLUMNS], data_location=TensorProto.EXTERNAL)
        for key, value in {"location": WEIGHTS, "offset": number * size, "length": size}.items():
            held.external_data.add(key=key, value=str(value))
        constants.append(held)
    nodes = [helper.make_node("MatMul", ["x", constant.name], [f"y.{constant.name}"]) for constant in constants]
    nodes.append(helper.make_node("Sum", [f"y.{constant.name}" for constant in constants], ["y"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "tokens", width]) for name, width in (("x", ROWS), ("y", COLUMNS))
    ]
    graph = helper.make_graph(nodes, "products", ports[:1], ports[1:], constants)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / store.GRAPH)
    return folder / store.GRAPH


def _kept() -> int | None:
    """The width of a panel, or 0, as it was measured; None where that is missing, broken, or of another onnxruntime."""
    try:
        found: Any = seals.read_sealed(file())
        return int(found["panels"]) if found["onnxruntime"] == installed() else None
    except (OSError, seals.BrokenSeal, LookupError, TypeError, ValueError, AttributeError):
        return None
