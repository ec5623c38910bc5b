"""Which features of a graph centres belong to, and the file that says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modelgraft as mg
from modelgraft.commands import file_aside
from modelgraft.plugin import InputError, Tensor, choices
from modelgraft_plugins.model_identity import FEATURES
from modelgraft_plugins.units import files

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedGraph

USUAL = "features"  # what a graph usually calls them


@dataclass(frozen=True, slots=True)
class Belonging:
    """The features that a graph gives.

    name   of the output, or the port as "node.port"
    width  numbers of a frame; None where the graph does not say
    model, layer  whose they are; None where the graph does not say
    """

    name: str
    width: int | None
    model: str | None
    layer: int | str | None

    def told(self) -> str:
        """What a user must know of them; "" when they say all."""
        unsaid = [word for word, value in (("model", self.model), ("layer", self.layer)) if value is None]
        if not unsaid:
            return ""
        return f"the graph does not say of which {' and '.join(unsaid)} '{self.name}' is: features of others will not be refused"


def belonging(solved: SolvedGraph, name: str | None) -> Belonging:
    """The features of a graph: those that were asked for, or its output `features`, or its only output of that form.

    Raises InputError when there are none.
    """
    found = name or next((one for one in (USUAL, *solved.outputs) if one in solved.outputs and _is_rows(solved, one)), None)
    if found is None:
        known = choices([*solved.outputs])
        raise InputError(f"the graph gives no features float[batch frames width] (it gives {known}); name a port: --output node.port")
    port = solved.port_of(mg.plan(solved, wanted=[found]).wanted[found])
    assert port is not None, "a plan names ports that are there"
    tensor = port.tensor
    if tensor is None or not tensor.dtype.startswith("float") or len(tensor.axes) != 3:
        raise InputError(f"--output {found} gives {port}, wanted features float[batch frames width]")
    facts: Mapping[str, Any] = dict(port.space.facts) if port.space is not None and port.space.family == FEATURES else {}
    last = tensor.axes[-1]
    return Belonging(found, None if last is None else last.size, facts.get("model"), facts.get("layer"))


def _is_rows(solved: SolvedGraph, name: str) -> bool:
    port = solved.port_of(solved.outputs[name])
    return port is not None and isinstance(port.tensor, Tensor) and port.tensor.dtype.startswith("float") and len(port.tensor.axes) == 3


def write_centres(centres: Any, out: Path, owner: Belonging, about: Mapping[str, str]) -> dict[str, Any]:
    """Write float32[clusters width], or [books clusters width], with what they belong to; gives what the file says.

    The file appears whole or not at all. Raises InputError when it cannot be written.
    """
    import numpy
    from safetensors.numpy import save_file

    said = {"model": owner.model, "layer": None if owner.layer is None else str(owner.layer), **about}
    metadata = {name: value for name, value in said.items() if value is not None}
    array = numpy.ascontiguousarray(centres, dtype=numpy.float32)
    try:
        with file_aside(Path(os.path.realpath(out)), suffix=out.suffix) as aside:
            aside.unlink()  # it is for its owner alone; what is made anew may be read by whom the process lets read its files
            save_file({files.KEY: array}, aside, metadata=metadata)
    except OSError as error:
        raise InputError(f"output '{out}' cannot be written: {error.strerror or error}") from error
    books, clusters, width = array.shape if array.ndim == 3 else (1, *array.shape)
    sizes = {"clusters": clusters, "width": books * width, "books": books}
    return {"out": str(out), **sizes, "model": owner.model, "layer": owner.layer}


def solve(session: Any, graph: str, params: Mapping[str, str], allow: tuple[str, ...], name: str | None) -> tuple[SolvedGraph, Belonging]:
    """Check a graph and find its features; what they do not say is told."""
    solved = mg.check(session.load(graph, params, allow), offline=session.offline)
    owner = belonging(solved, name)
    if told := owner.told():
        session.screen.note(told)
    return solved, owner


def refuse_other_ending(out: Path) -> None:
    """Raise InputError for a name under which nobody would look for centres."""
    if out.suffix != ".safetensors":
        raise InputError(f"output '{out}': centres go into a file that ends with .safetensors")
