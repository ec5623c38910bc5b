"""Precisions of an exported graph: float32 as traced, float16, 8 bits dynamic, 8 and 4 bits in blocks.

Dynamic 8 bits are the fastest where many tokens are read at once, and have one scale for all that a matrix reads: a few
large numbers take the accuracy of the rest. The product of a gated layer has such outliers (arXiv 2405.14428), and what
other narrowing matrices read may have them too. Blocks have a scale for every few numbers, and bear them. So `int8` is
dynamic in as many matrices as the parity gate lets pass.

Where a processor adds pairs of 8-bit products in 16 bits, which overflow without a word (`processor.py`), dynamic weights
have 7 bits: products as fast as with 8, and right. Products of blocks do not overflow: both of their factors are signed there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import TOLERANCES as OF_DTYPES
from modelgraft.plugin import ExportError
from modelgraft_plugins.onnx import measured, store
from modelgraft_plugins.onnx.blocks import SIZE
from modelgraft_plugins.onnx.keys import WEIGHT_BITS, dynamic_bits

if TYPE_CHECKING:
    from modelgraft.plugin import Parity

# Largest accepted |export - torch| relative to the largest |torch| value of the output, by precision.
TOLERANCES: Mapping[str, tuple[float, str]] = {
    **OF_DTYPES,
    "int8": (0.25, "8-bit weights and activations; random weights are the worst case, trained ones stay near 0.02"),
    "w8": (0.2, "8-bit weights and activations in blocks of 32; outliers of trained language models reach 0.14 (SmolLM2)"),
    "w4": (0.6, "4-bit weights; random weights are the worst case"),
}

Model = Any  # of onnx_ir, which is not among what mypy sees
Blocked = Mapping[Path, frozenset[str]]  # for each graph the nodes whose matrices are held in blocks
Way = tuple[Blocked, int]  # and how many numbers of a block share a scale


@dataclass(frozen=True, slots=True)
class Reduced:
    """What came of bringing graphs to a precision.

    weights   how they are held, such as "8 bits dynamic, 90 of 211 matrices in blocks of 32"; "" as they were traced
    warnings  what a user must know: why not all of them are held as the precision says
    """

    parity: Parity
    weights: str = ""
    warnings: tuple[str, ...] = ()


def bring(
    graphs: Sequence[Path],
    precision: str,
    prove: Callable[[], Parity],
    *,
    unwritten: Mapping[Path, Model] = MappingProxyType({}),
    widens: bool = False,
) -> Reduced:
    """Bring float32 graphs to 8 or 4 bits in place, by the first way that is near enough to torch.

    graphs     those of other precisions stay as they are, and are proven all the same
    widens     those in 8 bits get graphs for many rows beside them where this processor gains by it: see `many_rows`
    prove      compares the graphs, as they lie there, with torch
    unwritten  those of the graphs that are not written yet, as models of onnx_ir

    Raises ExportError with what the gate said of the last way.
    """
    from modelgraft_plugins.onnx.many_rows import write as write_many
    from modelgraft_plugins.onnx.reducing import matrices_of, reduce, save  # not at the top: a second start needs no onnx_ir

    if precision not in WEIGHT_BITS:
        store.tell(2, "writing" if unwritten else f"bringing to {precision}")
        for graph, model in unwritten.items():
            save(model, graph)
        store.tell(3, "comparing with torch")
        return Reduced(_held(prove()))
    refused: list[str] = []
    with tempfile.TemporaryDirectory(dir=graphs[0].parent) as aside:
        plain = {graph: partial(unwritten[graph].clone) if graph in unwritten else _moved(graph, Path(aside)) for graph in graphs}
        matrices = {graph: matrices_of(open_plain()) for graph, open_plain in plain.items()}
        for blocked, size in _ways(matrices, precision, measured.size_of(WEIGHT_BITS[precision])):
            store.tell(2, f"bringing to {precision}")
            bits, kept = WEIGHT_BITS[precision], 0
            for graph, open_plain in plain.items():
                model, dynamic, keeps = open_plain(), matrices[graph].keys() - blocked[graph], measured.asked() is None
                kept += reduce(
                    model, dynamic=dynamic, blocked=blocked[graph], bits=bits, size=size, dynamic_bits=dynamic_bits(), keeps=keeps
                )
                save(model, graph)
                if widens and precision == "w8" and measured.widens():
                    write_many(graph, measured.beside(graph))
            store.tell(3, "comparing with torch")
            parity, weights = prove(), _told(blocked, matrices, precision, size, kept)
            if parity.holds:
                break
            refused.append(f"{weights} would be {parity.relative:.2g} from torch")
    _held(parity)
    warning = f"{precision} is {weights}: {', '.join(refused)} (tolerance {parity.tolerance:.2g})"
    return Reduced(parity, weights, (warning,) if refused else ())


def _moved(graph: Path, aside: Path) -> Callable[[], Model]:
    """Put a graph that is written aside with its weights, and give what opens it there: its weights are mapped."""
    from modelgraft_plugins.light_ir import ir

    for file in (graph, graph.with_name(f"{graph.name}.data")):
        if file.exists():
            file.replace(aside / file.name)
    return partial(ir.load, aside / graph.name)


def _held(parity: Parity) -> Parity:
    if not parity.holds:
        raise ExportError(f"the export differs from torch: {parity}")
    return parity


def _ways(matrices: Mapping[Path, Mapping[str, bool]], precision: str, size: int) -> list[Way]:
    """Which matrices are in blocks: all of them; for int8 first none, then those that narrow. No way comes twice.

    size  of the blocks that are fastest here; the last way has those of 32, which lose the least
    """
    everything = {graph: frozenset(found) for graph, found in matrices.items()}
    narrowing = {graph: frozenset(node for node, narrows in found.items() if narrows) for graph, found in matrices.items()}
    nothing = dict.fromkeys(matrices, frozenset[str]())
    tried: list[Blocked] = []
    for blocked in (nothing, narrowing, everything) if precision == "int8" else (everything,):
        if blocked not in tried:
            tried.append(blocked)
    ways = [(blocked, size) for blocked in tried]
    return ways if size == SIZE or not any(tried[-1].values()) else [*ways, (tried[-1], SIZE)]


def _told(blocked: Blocked, matrices: Mapping[Path, Mapping[str, bool]], precision: str, size: int, kept: int) -> str:
    told = _told_anew(blocked, matrices, precision, size)
    every = sum(map(len, matrices.values()))
    if not kept:
        return told
    as_published = "the blocks of the file, kept as they are"
    return as_published if kept == every else f"{told}; {kept} of {every} matrices in {as_published}"


def _told_anew(blocked: Blocked, matrices: Mapping[Path, Mapping[str, bool]], precision: str, size: int) -> str:
    some, every = sum(map(len, blocked.values())), sum(map(len, matrices.values()))
    if not every:
        return ""
    if precision != "int8" or 0 < some == every:
        return f"{WEIGHT_BITS[precision]} bits in blocks of {size}"
    way = f"{dynamic_bits()} bits dynamic"
    return f"{way}, {some} of {every} matrices in blocks of {size}" if some else way
