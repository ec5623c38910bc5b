"""Which blocks of weights this processor multiplies fastest: measured once, and kept beside the exports.

A larger block is quicker to multiply by, and less exact: fewer numbers share a scale, those of the weights and those that are multiplied
by them. How much quicker depends on the kernels that onnxruntime has for a processor (SmolLM2-135M in w8, one thread, Xeon with VNNI:
1.23 times with 64 numbers, 1.46 with 128, where the distribution of the next token is 0.004, 0.007 and 0.013 nats away for 32, 64 and
128). So blocks are larger than 32 only where that has been seen to pay. What is kept is read without onnxruntime: it is part of what an
export is kept under.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft import ModelgraftWarning
from modelgraft.plugin import InputError, locked, seals
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.blocks import ACCURACY, SIZE, SIZES
from modelgraft_plugins.onnx.runtime import installed, least_seconds, open_on_host, options_of
from modelgraft_plugins.processor import speed_key

BLOCKS_VARIABLE = "MODELGRAFT_BLOCKS"  # a size of blocks for all exports: nothing is measured then

# Blocks that are tried, by bits: in 4 bits, 128 numbers of one scale lose too much.
TRIED: Mapping[int, tuple[int, ...]] = {8: (SIZE, 64), 4: (SIZE, 64)}
LEAST_GAIN = 1.15  # how much faster a larger block must be to be taken
ROWS, COLUMNS, MATRICES = 1024, 2048, 8  # what is multiplied by: with 8 bits more than the cache of a core holds
ROUNDS = 30
MANY = 64  # rows of a prompt that are read by blocks brought to float32, where it pays: making them takes as long as some dozens of rows
MANY_MATRICES, MANY_ROUNDS = 2, 5
MANY_GAIN = 1.1  # nothing is lost by it but a few pages more of a mapped file

Array = Any  # of numpy, which is imported when something is measured


def size_of(bits: int) -> int:
    """How many numbers share a scale in exports of this machine; `blocks.SIZE` where nothing was measured, or by another onnxruntime.

    Raises InputError for a setting that is no size of a block.
    """
    return asked() or _kept().get(bits, SIZE)


def asked() -> int | None:
    """The size that is asked for by name. Raises InputError for one that there is not."""
    chosen = os.environ.get(BLOCKS_VARIABLE, "")
    if chosen and chosen not in map(str, SIZES):
        raise InputError(f"{BLOCKS_VARIABLE} is '{chosen}', wanted one of {', '.join(map(str, SIZES))}: how many weights share a scale")
    return int(chosen) if chosen else None


def beside(graph: Path) -> Path:
    """Where the graph for many rows lies that a graph has, if there is one: see `many_rows`."""
    return graph.with_name(f"{graph.stem}.many{graph.suffix}")


def widens() -> bool:
    """Whether blocks of 8 bits are multiplied faster here, for many rows, where they are brought to float32 first; False: not known."""
    return bool(_found().get("widens", False))


def prepare() -> None:
    """Measure what is not known of this processor, which takes a second or two, and keep it; nothing where a size is asked for.

    Where it cannot be kept, blocks are of 32: a cache that nobody can write is told of when the export is written. So they are
    where what writes graphs is not installed. Warns of a file that is damaged: other blocks than before give other answers.
    """
    if asked() or _kept():
        return
    if complaint := _complaint():
        warnings.warn(complaint, ModelgraftWarning, stacklevel=2)
    if not store.can_export():
        return
    with contextlib.suppress(OSError), locked(store.exports_root() / "locks" / "measured"):
        if _kept():
            return  # another process was faster
        store.tell(1, "measuring which blocks are fastest on this processor")
        sizes = {str(bits): chosen(seconds(bits, tried)) for bits, tried in TRIED.items()}
        blocks, plain = seconds_of_many()
        widened = blocks >= MANY_GAIN * plain
        seals.write_sealed(file(), {"onnxruntime": installed(), "sizes": sizes, "widens": widened})


def file() -> Path:
    """Where it is kept."""
    return store.exports_root() / f"measured-{speed_key()}.json"


def _kept() -> Mapping[int, int]:
    """Sizes by bits, as they were measured; nothing where that is missing, broken, or of another onnxruntime."""
    try:
        return {int(bits): int(size) for bits, size in _found()["sizes"].items()}
    except (LookupError, TypeError, ValueError, AttributeError):
        return {}


def _found() -> Mapping[str, Any]:
    """All that was measured with this onnxruntime, whole; nothing otherwise."""
    try:
        found = seals.read_sealed(file())
        return found if found["onnxruntime"] == installed() and {"sizes", "widens"} <= found.keys() else {}
    except (OSError, seals.BrokenSeal, LookupError, TypeError, AttributeError):
        return {}


def _complaint() -> str:
    """What is wrong with what is kept; "" where nothing is kept, or by another onnxruntime."""
    try:
        if seals.read_sealed(file())["onnxruntime"] != installed():
            return ""
        why = "it is no such file"
    except FileNotFoundError:
        return ""
    except (OSError, seals.BrokenSeal, LookupError, TypeError) as error:
        why = str(error)
    then = "it is measured again" if store.can_export() else f"blocks of {SIZE} are taken"
    found = f"{file()}, what was measured of this processor, is damaged ({why})"
    return f"{found}: {then}; where blocks are others than before, w8 and w4 answer otherwise"


def chosen(taken: Mapping[int, float]) -> int:
    """The size to take by the seconds of each, the smallest first: a larger one must be worth its loss."""
    best, *larger = sorted(taken)
    for size in larger:
        if taken[best] >= LEAST_GAIN * taken[size]:
            best = size
    return best


def seconds(bits: int, sizes: tuple[int, ...]) -> Mapping[int, float]:
    """How long one row takes through a few matrices, by the size of their blocks: in turn, the least of some rounds, one thread.

    Counted is what the thread computes, not what passes: another program beside it must not decide.
    """
    return _least({size: _session(bits, size) for size in sizes}, rows=1, rounds=ROUNDS)


def seconds_of_many() -> tuple[float, float]:
    """How long many rows take through a few matrices of 8 bits: by blocks, and by blocks that are brought to float32 first."""
    sessions = {widened: _session(8, SIZE, widened=widened, matrices=MANY_MATRICES) for widened in (False, True)}
    taken = _least(sessions, rows=2 * MANY, rounds=MANY_ROUNDS)
    return taken[False], taken[True]


def _least(sessions: Mapping[Any, Any], *, rows: int, rounds: int) -> dict[Any, float]:
    """The least seconds of each session for so many rows, by its name, in turn."""
    import numpy

    feed = {"x": numpy.random.default_rng(0).standard_normal((rows, ROWS), numpy.float32)}
    return least_seconds(sessions, feed, rounds=rounds)


def _session(bits: int, size: int, *, widened: bool = False, matrices: int = MATRICES) -> Any:
    """Products of some rows by several matrices of made-up numbers in blocks, added up (`Any`: onnxruntime has no types).

    widened  the blocks are brought to float32 first
    """
    import numpy
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, constants = numpy.random.default_rng(0), [], []
    packed = rng.integers(0, 256, (COLUMNS, ROWS // size, size * bits // 8), numpy.uint8)
    scales: Array = numpy.full((COLUMNS, ROWS // size), 0.01, numpy.float32)
    facts: dict[str, Any] = {"K": ROWS, "N": COLUMNS, "bits": bits, "block_size": size, "accuracy_level": ACCURACY}
    if widened:  # as `many_rows` writes it
        packed, scales = packed.reshape(-1, size), scales.reshape(-1)
        shared = {"middles": numpy.full(scales.shape, 128, numpy.uint8), "shape": numpy.array([COLUMNS, ROWS])}
        constants += [numpy_helper.from_array(value, name) for name, value in shared.items()]
    for number in range(matrices):
        names = [f"packed.{number}", f"scales.{number}"]
        constants += [numpy_helper.from_array(value, name) for value, name in zip((packed, scales), names, strict=True)]
        if widened:
            nodes.append(helper.make_node("DequantizeLinear", [*names, "middles"], [f"b.{number}"], axis=0))
            nodes.append(helper.make_node("Reshape", [f"b.{number}", "shape"], [f"w.{number}"]))
            nodes.append(helper.make_node("FusedMatMul", ["x", f"w.{number}"], [f"y.{number}"], domain="com.microsoft", transB=1))
        else:
            nodes.append(helper.make_node("MatMulNBits", ["x", *names], [f"y.{number}"], domain="com.microsoft", **facts))
    nodes.append(helper.make_node("Sum", [f"y.{number}" for number in range(matrices)], ["y"]))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width]) for name, width in (("x", ROWS), ("y", COLUMNS))]
    graph = helper.make_graph(nodes, "products", ports[:1], ports[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10)
    return open_on_host(model.SerializeToString(), options_of(count=1))
