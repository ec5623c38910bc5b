"""A flat module as an ONNX graph that is near enough to it: written, brought to its precision, and proven."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modelgraft.plugin import CHECKED, ExportError, Parity, Signature, give_back_files, make_inputs, parity_of
from modelgraft_plugins.onnx import store
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import Given, Halved, ahead, answering, export, in_order, open_fresh
from modelgraft_plugins.onnx.keys import OPSET, WEIGHT_BITS
from modelgraft_plugins.onnx.precision import TOLERANCES, Reduced, bring
from modelgraft_plugins.onnx.put_together import writing_of
from modelgraft_plugins.onnx.tuned import Fresh


def write(
    module: torch.nn.Module, signature: Signature, precision: str, folder: Path, *, opened: Fresh | None = None
) -> tuple[dict[str, Any], Reduced]:
    """Write the graph of a flat module into a folder, and prove it.

    It is put together where its modules can say what they compute. Otherwise it is traced, layers that are alike once; when the graph is
    not near enough to the module it may be for that, and each is traced.

    opened  where the session is left that it was proven with

    Gives what its manifest says of it, and what was done to its weights. Raises ExportError.
    """
    made, reduced = _first_right(module, signature, precision, folder, opened or Fresh())
    facts = {
        "inputs": _named(dict(signature.inputs)),
        "outputs": _named(dict(signature.outputs)),
        "opset": OPSET,
        "precision": precision,
        **asdict(made),
        "weights": reduced.weights,
        "parity": asdict(reduced.parity),
    }
    return facts, reduced


def derive(kept: store.Entry, signature: Signature, precision: str, folder: Path) -> dict[str, Any] | None:
    """Write the graph of a kept float32 export into a folder in 8 or 4 bits, without the module: gives its manifest.

    It is compared with the kept one, whose own distance from torch is added to what is found. None where the kept one turns out to be
    of no use, as it was written: then the module must be asked. Raises ExportError.
    """
    from modelgraft_plugins.light_ir import ir  # not at the top: a second start needs none

    graph = folder / store.GRAPH
    try:
        cases, model = _cases(signature), ir.load(kept.folder / store.GRAPH)
        expected = ahead(Exported(open_fresh(kept.folder / store.GRAPH), device="cpu"), cases)
        give_back_files()
        before = {name: float(kept.manifest["parity"][name]) for name in ("absolute", "relative", "overall")}
        node, warnings = kept.manifest["node"], list(kept.manifest["warnings"])
    except Exception:  # noqa: BLE001 what reads graphs may raise anything; the manifest may lack something
        return None

    def compared() -> Parity:
        found = parity_of(in_order(expected), Exported(open_fresh(graph), device="cpu"), cases, tolerance=TOLERANCES[precision][0])
        return replace(found, **{name: getattr(found, name) + distance for name, distance in before.items()})

    reduced = bring([graph], precision, compared, unwritten={graph: model})
    found = {"precision": precision, "weights": reduced.weights, "parity": asdict(reduced.parity)}
    warnings += [f"{node}: {text}" for text in reduced.warnings]
    return {**kept.manifest, **found, "warnings": warnings, "derived": kept.folder.name}


Cases = Sequence[tuple[torch.Tensor, ...]]


def _cases(signature: Signature, *, is_traced: bool = True) -> Cases:
    """Inputs of sizes other than those traced; of a graph that was not traced, and takes any batch alone, two unlike records."""
    choices: Sequence[Mapping[str, object]] = CHECKED
    names = {name for port in signature.input_ports if port.tensor is not None for name in port.tensor.names}
    if not is_traced and names <= {"batch"}:
        choices = ({"batch": 2, "sizes": ()},)
    return [
        make_inputs(signature.input_ports, choice, seed=seed, most=signature.most, times=signature.times)
        for seed, choice in enumerate(choices, start=1)
    ]


@dataclass(frozen=True, slots=True)
class _Made:
    """How a graph was made: put together from what its modules say, or traced, with so many copies of layers in it."""

    written: bool = False
    repeated: int = 0


class _Refused(ExportError):
    """A graph that is too far from its module."""

    def __init__(self, text: str, made: _Made) -> None:
        super().__init__(text)
        self.made = made


def _first_right(module: torch.nn.Module, signature: Signature, precision: str, folder: Path, opened: Fresh) -> tuple[_Made, Reduced]:
    """Write and prove a graph in the quickest way that gives a right one. Raises ExportError with what was said of the slowest."""
    with contextlib.suppress(ExportError):  # then it is traced, and what is wrong with it is told of that
        if (found := _put_together(module, signature, precision, folder, opened)) is not None:
            return found
    try:
        return _traced(module, signature, precision, folder, opened, is_whole=False)
    except _Refused as refused:
        if not refused.made.repeated:
            raise ExportError(str(refused)) from refused
    return _traced(module, signature, precision, folder, opened, is_whole=True)


def _put_together(
    module: torch.nn.Module, signature: Signature, precision: str, folder: Path, opened: Fresh
) -> tuple[_Made, Reduced] | None:
    """Put together and prove a graph; None for a module that must be traced. Raises ExportError for one that is too far from its module."""
    write = writing_of(module, signature, half=precision == "float16")
    if write is None:
        return None
    store.tell(1, "putting it together")
    graph, cases = folder / store.GRAPH, _cases(signature, is_traced=False)
    with answering(module, partial(ahead, module, cases)) as told:
        if (model := write()) is None:
            return None
        proof = partial(_compared, told, graph, precision, opened, cases)
        return _Made(written=True), bring([graph], precision, proof, unwritten={graph: model})


def _traced(
    module: torch.nn.Module, signature: Signature, precision: str, folder: Path, opened: Fresh, *, is_whole: bool
) -> tuple[_Made, Reduced]:
    """Trace and prove a graph. Raises ExportError, and for what is refused _Refused."""
    store.tell(1, "tracing every layer" if is_whole else "tracing")
    graph = folder / store.GRAPH
    for file in (graph, graph.with_name(f"{graph.name}.data")):
        file.unlink(missing_ok=True)
    copies = export(Halved(module) if precision == "float16" else module, signature, graph, is_whole=is_whole)
    made = _Made(repeated=copies)
    try:
        if copies and precision in WEIGHT_BITS:
            _prove_copies(module, graph, signature)
        cases = _cases(signature)
        with answering(module, partial(ahead, module, cases)) as told:
            return made, bring([graph], precision, partial(_compared, told, graph, precision, opened, cases))
    except ExportError as error:
        raise _Refused(str(error), made) from error


def _prove_copies(module: torch.nn.Module, graph: Path, signature: Signature) -> None:
    """Raise ExportError for a float32 graph that differs from its module: what fewer bits may differ by would hide a wrong copy."""
    cases = _cases(signature)[:1]
    expected = ahead(module, cases)
    give_back_files()
    parity = parity_of(in_order(expected), Exported(open_fresh(graph), device="cpu"), cases, tolerance=TOLERANCES["float32"][0])
    if not parity.holds:
        raise ExportError(f"its layers are not alike: {parity}")


def _named(ports: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(port) for name, port in ports.items()}


def prove(module: torch.nn.Module, path: Path, signature: Signature, precision: str) -> Parity:
    """Compare an export with its module on inputs of sizes other than those traced."""
    cases = _cases(signature)
    with answering(module, partial(ahead, module, cases), is_alone=True) as told:
        return _compared(told, path, precision, Fresh(), cases)


def _compared(told: Callable[[], Sequence[Given]], path: Path, precision: str, opened: Fresh, cases: Cases) -> Parity:
    """Compare an export with what its module gives for some inputs; the session is left where it is opened.

    told  waits for what the module gives
    """
    opened.session = None  # let go of one that was not right before another is opened
    opened.session = open_fresh(path, count=opened.count)
    given = _given(Exported(opened.session, device="cpu"), cases)
    return parity_of(in_order(told()), given, cases, tolerance=TOLERANCES[precision][0])


def _given(exported: Exported, cases: Cases) -> Callable[..., Given]:
    """What gives what an export gives for some cases, or raises what it raises: it is asked now, while torch may still be at work."""
    try:
        return in_order(ahead(exported, cases))
    except Exception as error:  # noqa: BLE001 what runs exports may raise anything; what torch itself gives is looked at before
        raised = error

    def fail(*_: torch.Tensor) -> Given:
        raise raised

    return fail
