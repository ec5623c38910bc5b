"""Graphs as this machine runs them best: written by onnxruntime, and tried before they are believed. Without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from modelgraft_plugins.cores import threads
from modelgraft_plugins.onnx.few_queries import laid_out
from modelgraft_plugins.onnx.panels import DOMAIN, fill, in_panels
from modelgraft_plugins.onnx.runtime import TYPES, open_on_host, options_of, runtime

# Weights smaller than this stay in the graph: saving packed ones of a few kilobytes makes a file that crashes (1.31).
TUNED_FROM_BYTES = 65_536
STEPS = (8, 512)  # of inputs that are made up; an encoder of sound makes its first vector of 400 samples
UNSAVED = b"MatMulNBits"  # an operator that packs its weights and does not hand them out: a file of "packed" ones gives NaN (1.31)


def tune(source: Path, target: Path, *, width: int = 0) -> str:
    """Write the graph as this machine runs it best: a session on it starts in a fraction.

    width  of panels, where this processor reads few rows faster by them, and weights are of float32: a decoder's matrices are laid so, see
           `panels.py`; 0: they are packed

    Of a graph with weights in blocks only the graph is kept as optimised; packing those anew takes little of a start.

    The result depends on the version of onnxruntime and on the processor; load it with `optimised=True`. It is tried in a
    process of its own, because a bad file ends the process. Gives an empty string, or why it must not be used.
    """
    ways = [partial(_write, source, source, target)]
    if (graph := laid_out(source)) is not None:
        ways.insert(0, partial(_write, source, graph, target))
    if width:
        ways.insert(0, partial(_write_panels, source, target, width))
    for place, write in enumerate(ways):
        why_not = write() or _tried_aside(source, target)
        if not why_not or place == len(ways) - 1:
            return why_not
        for file in target.parent.glob(f"{target.name}*"):
            file.unlink()
    raise AssertionError(source)


def write_forms(source: Path, folder: Path, width: int) -> dict[str, Path]:
    """A graph packed, and in panels of so many columns, each in a folder of its own below another: by "packed" and "panels".

    One that cannot be written is missing.
    """
    forms = {name: folder / name / source.name for name in ("packed", "panels")}
    for target in forms.values():
        target.parent.mkdir()
    whys = {"packed": _write(source, source, forms["packed"]), "panels": _write_panels(source, forms["panels"], width)}
    return {name: target for name, target in forms.items() if not whys[name]}


def _write_panels(source: Path, target: Path, width: int) -> str:
    """Write a decoder with its matrices in panels of so many columns, which onnxruntime does not see: it would copy them. Gives why not."""
    found = in_panels(source, width)
    if found is None:
        return "it is no decoder with matrices of float32"
    graph, matrices = found
    if not (why_not := _write(source, graph, target, packs=False)):
        fill(target, matrices, width)
    return why_not


def _write(source: Path, graph: Path | bytes, target: Path, *, packs: bool = True) -> str:
    """Have onnxruntime write a graph, which has the numbers and the weights of the source, as it optimises it. Gives why it cannot.

    packs  matrices are written packed; not where panels stand beside those that are left, of which it made files that crash (1.31)
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(target)
    for key, value in {
        "optimized_model_external_initializers_file_name": f"{target.name}.data",
        "optimized_model_external_initializers_min_size_in_bytes": str(TUNED_FROM_BYTES),
        "save_external_prepacked_constant_initializers": "1" if packs and not is_in_blocks(source) else "0",
        "model_external_initializers_file_folder_path": str(source.parent),  # a graph in memory lies in no folder
    }.items():
        options.add_session_config_entry(f"session.{key}", value)
    try:
        open_on_host(graph, options)
    except Exception as error:  # noqa: BLE001 onnxruntime has no class of its own for a file that it cannot write
        return f"it could not be written: {str(error).partition(chr(10))[0]}"
    return ""


def _tried_aside(source: Path, target: Path) -> str:
    """What `differ` finds, in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from modelgraft_plugins.onnx.tuning import differ; print(differ(*map(Path, sys.argv[1:])))"
    )
    child = [sys.executable, "-c", code, str(source), str(target)]
    tried = subprocess.run(child, capture_output=True, text=True, check=False)  # noqa: S603 our own interpreter and code
    if tried.returncode:
        return f"running it ended with {tried.returncode}"
    return tried.stdout.strip()


def panel_width() -> int:
    """How many columns a panel has in onnxruntime's kernels for this processor; 0 where there are none that go through several.

    Its operators tell how they lay two places of an image: behind the channels of a panel at the first one comes the second.
    """
    import numpy
    from onnx import TensorProto, helper

    channels = 64
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 1, 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("ReorderInput", ["x"], ["y"], domain=DOMAIN)], "reorder", ports[:1], ports[1:])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    places = numpy.zeros((1, channels, 1, 2), numpy.float32)
    places[..., 1] = 1
    try:
        (laid,) = open_on_host(model.SerializeToString(), options_of(count=1)).run(None, {"x": places})
    except Exception:  # noqa: BLE001 what onnxruntime raises where it has no such operator has no base of its own
        return 0
    width = int(laid.ravel().argmax())
    return width if width > 1 else 0


def is_in_blocks(graph: Path) -> bool:
    """Whether a graph has weights in blocks: tuned, it starts as it does plain, and takes as much memory."""
    return UNSAVED in graph.read_bytes()


def differ(plain: Path, tuned: Path) -> str:
    """Run two files of one graph on the same made-up inputs; gives what is wrong with the second, or an empty string.

    Inputs that the graph itself refuses prove nothing: then the second must not be used either.
    """

    session = open_on_host(plain, options_of())
    feed, expected = _tried(session)
    if not expected:
        return "no inputs are known that it could be tried with"
    one, wanted = _tried(session, (1,), batch=1) if _reads_tokens(session) else ({}, [])
    del session  # it is closed before the other one opens
    session = open_on_host(tuned, options_of(optimised=True))
    if not _gives(session, feed, expected):
        return "it gives other numbers"
    return "it gives other numbers for one token" if wanted and not _gives(session, one, wanted) else ""


def _gives(session: Any, feed: Mapping[str, Any], expected: Sequence[Any]) -> bool:
    """Whether a graph gives these numbers, but for their last digits."""
    import numpy

    for mine, theirs in zip(session.run(None, feed), expected, strict=True):
        scale = float(numpy.abs(theirs.astype(numpy.float64)).max(initial=1.0))
        if mine.shape != theirs.shape or not numpy.allclose(mine, theirs, atol=1e-3 * scale, rtol=1e-3, equal_nan=True):
            return False
    return True


def _reads_tokens(session: Any) -> bool:
    """Whether it is a decoder's: see `panels.TOKENS`."""
    return any("tokens" in entry.shape for entry in session.get_inputs())


def _tried(session: Any, several: Sequence[int] = STEPS, *, batch: int = 2) -> tuple[dict[str, Any], list[Any]]:
    """Made-up inputs that a graph takes, and what it gives for them; nothing where it takes none."""
    for steps in several:
        feed = _made_up(session, steps, batch=batch)
        try:
            return feed, session.run(None, feed)
        except Exception:  # noqa: BLE001, S112 whatever onnxruntime says about inputs that are made up
            continue
    return {}, []


def _made_up(session: Any, steps: int, *, batch: int = 2) -> dict[str, Any]:
    """Records of so many steps; the names of a decoder graph get values that make sense together."""
    import numpy

    room = 16
    grows = {"inputs_embeds", "past.key.0"} <= {entry.name for entry in session.get_inputs()}
    fixed = {
        "total": numpy.full(1, steps),
        "seqlens_k": numpy.full(batch, steps - 1),
        "last": numpy.full(batch, steps - 1),
        "position_ids": numpy.arange(steps)[None].repeat(batch, 0),
        **({"attention_mask": numpy.ones((batch, room + steps))} if grows else {}),
    }
    feed = {}
    for entry in session.get_inputs():
        kind = TYPES[entry.type]
        cache = entry.name.startswith("past.")
        shape = [
            size if isinstance(size, int) else batch if axis == 0 else room if cache else steps for axis, size in enumerate(entry.shape)
        ]
        value = fixed.get(entry.name)
        if value is None:
            value = numpy.random.default_rng(0).standard_normal(shape) if kind.startswith("float") else numpy.ones(shape)
        elif value.ndim < len(shape):  # the same for each of several places of a row
            value = numpy.broadcast_to(value.reshape(-1, *[1] * (len(shape) - value.ndim)), shape)
        feed[entry.name] = numpy.zeros(shape, kind) if cache else value.astype(kind)
    return feed
