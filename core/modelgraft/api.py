"""The façade: what `import modelgraft` offers to read, check, plan and open a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.building import Graph, allowed
from modelgraft.engine.devices import has_no_gpu
from modelgraft.engine.opening import Opening, Placing, in_environment, option, taking
from modelgraft.engine.warning import warn_once
from modelgraft.installed.making_many import making_many
from modelgraft.kernel.checking import placement
from modelgraft.kernel.language import expand
from modelgraft.kernel.planning import planner
from modelgraft.kernel.words.errors import InputError, PluginError
from modelgraft.kernel.words.graph import GraphSpec, Node, SolvedGraph
from modelgraft.kernel.words.plan import Plan
from modelgraft.records.homes import home_read
from modelgraft.sources.installed_plugins import installed_plugins
from modelgraft.sources.storage import remember_results
from modelgraft.tools.checked import checked
from modelgraft.tools.plan_tables import ShownPlan
from modelgraft.tools.swapping import read_swapped
from modelgraft.tools.trained_parts import with_trained_parts

if TYPE_CHECKING:
    from modelgraft.engine.pipeline import Pipeline
    from modelgraft.engine.result import Result
    from modelgraft.kernel.shelf.registry import Registry
    from modelgraft.tools.drawings import Drawing

__all__ = ["check", "load", "open", "plan", "show", "train"]

Subject = Graph | GraphSpec | SolvedGraph | str | Path  # what may be checked, planned, opened: a graph, or where one is read from


def load(
    graph: str | Path, *, params: Mapping[str, Any] | None = None, registry: Registry | None = None, allow: Collection[str] = ()
) -> Graph:
    """Read a graph: a file, or the name of a shipped one such as `blip2`. Nothing is loaded beside the text.

    params    what the user sets, as `--set` does: params of the graph, or dotted keys such as `nodes.llm.with.seed`. A node, or what it
              is (`eye`, `llm`), by its name: what stands there instead (a source, a component, `graph:NAME`); what depends on it follows
    registry  what is installed, when it is not what the entry points say
    allow     "unused": let stand what nothing uses

    Raises GraphError with every problem of the documents.
    """
    found = registry if registry is not None else installed_plugins()

    def read(given: Mapping[str, Any]) -> GraphSpec:
        return expand.load_graph(graph, params=given, registry=found, allow=allowed(allow))

    with making_many():
        spec, own, notes = read_swapped(read, params or {})
    warn_once(notes, warned=set())
    return Graph.of(spec, params=own)


def check(graph: Subject, *, offline: bool = True) -> SolvedGraph:
    """Check a graph without loading anything: every port, dimension, value space and token count.

    offline  look at sources on this machine and at recorded configs alone

    Raises GraphError, whose `problems` are all those of the first phase that has any.
    """
    if isinstance(graph, SolvedGraph):
        return graph
    spec = graph if isinstance(graph, GraphSpec) else (graph if isinstance(graph, Graph) else load(graph)).spec
    with making_many():
        return checked(spec, offline=offline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning(Placing):
    """What a graph is planned with."""

    wanted: Sequence[str] | None = option(None, 'Outputs by name, or any port as "node.port".', also="None: all outputs of the graph.")
    exact: bool = option(default=False, sentence="Build the modules without memory and compare their parameters with the formulas.")


@taking(Planning)
def plan(graph: Subject, planning: Planning) -> Plan:
    """Plan a graph: order, placement, parameters and bytes per node, still without loading anything.

    Raises GraphError as `check` does, InputError for an output that is not there, PluginError for a backend that is not.
    """
    solved = check(graph)
    placement.refuse_device(solved.graph.registry, planning.backend, planning.device)
    built = _count_built if planning.exact else None
    otherwise = {**_chosen(solved, planning, planner.UNSAID["device"]), **in_environment()}
    with making_many():
        planned = planner.plan(
            solved, made=ShownPlan, wanted=planning.wanted, count_built=built, asked=planning.placement(), otherwise=otherwise
        )
        found = with_trained_parts(planned)
    _refuse_backends(found)
    return found


def show(
    graph: Subject | Plan, *, run: Result | str | Path | None = None, wanted: Sequence[str] | None = None, fold: bool = False
) -> Drawing:
    """Draw a graph: what this gives displays itself in a notebook, and `save("graph.svg")` (or .html, .png, .mmd, .dot) writes it.

    run     a result, or a file of what `modelgraft run --json` printed: its times and cache hits are laid over
    wanted  as in `plan`: what these outputs do not need is pale
    fold    graphs that stand as nodes are one box each

    Raises GraphError as `check` does, InputError for a run of another graph.
    """
    from modelgraft.tools import draw
    from modelgraft.tools.drawings import Drawing

    planned = graph if isinstance(graph, Plan) else plan(graph, wanted=wanted)
    spent = draw.read_spent(Path(run)) if isinstance(run, str | Path) else draw.spent_of(run) if run is not None else None
    return Drawing(planned, run=spent, is_folded=fold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Opening):
    """What a graph is opened with, and what it is before it is checked."""

    params: Mapping[str, Any] | None = option(None, "As in `load`; a graph that was checked already has its own.")


@taking(Asked)
def open(graph: Subject, asked: Asked) -> Pipeline:
    """Open a graph for running. Nodes are loaded when a run first needs them.

    Raises GraphError as `check` does, InputError for a device that is not there and for options that mean nothing. Close
    the pipeline, or use it as a context manager.
    """
    from modelgraft.engine.cache import MEMORY_BYTES, Cache  # what runs is imported when something is to run
    from modelgraft.engine.fusing import fuse
    from modelgraft.engine.heeding import for_those_that_heed
    from modelgraft.engine.pipeline import Pipeline

    solved = check(_with_params(graph, asked.params), offline=asked.offline)
    where = _placement(solved, asked)
    placed = {**asked.placement(), "device": where.pop("flag", None)}
    where |= in_environment()

    def replan(wanted: tuple[str, ...] | None = None) -> Plan:
        with making_many():
            planned = planner.plan(solved, made=ShownPlan, wanted=wanted, asked=placed, otherwise=where)
            return fuse(for_those_that_heed(planned))

    folder = _folder_for_results(asked.cache_dir) if asked.cache_dir else None
    cache = Cache(memory_bytes=MEMORY_BYTES if asked.cache_bytes is None else asked.cache_bytes, folder=folder)
    first = replan()
    _refuse_backends(first)
    return Pipeline(first, replan=replan, opening=asked, cache=cache)


def train(graph: Subject, *, out: str | Path, **options: Any) -> Any:  # Any: as the plugin `training` has them
    """Train the stages of a graph, and give the folder of each: `.folder` by name, `.last`.

    out      the folder that is written to: trained files, cards, tables and drawings of losses
    options  stage, sweep, data, valid, steps, epochs, batch, learning_rate, seed, precision, resume, force, skip_bad, tensorboard,
             device, init, params, note: see docs/training.md

    Raises GraphError for what cannot be trained, InputError for data that do not fit and for losses that are no numbers, PluginError
    where the plugin `training` is not there.
    """
    registry = graph.registry if isinstance(graph, GraphSpec) else graph.spec.registry if isinstance(graph, Graph) else None
    registry = graph.graph.registry if isinstance(graph, SolvedGraph) else registry or installed_plugins()
    found = registry.plugins.get("training")
    if found is None or found.error:
        raise PluginError(f"the plugin 'training' is not here: {found.trouble if found is not None else 'nothing offers it'}")
    return import_module(found.module).train(graph, out=out, **options)


def _count_built(node: Node) -> int | None:
    """The parameters of a module that is built without memory."""
    from modelgraft.engine.modules.building import count_parameters  # torch for `exact` alone

    return count_parameters(node)


def _with_params(graph: Subject, params: Mapping[str, Any] | None) -> Subject:
    """The graph with what the user sets for this pipeline."""
    if isinstance(graph, str | Path):
        return load(graph, params=params)
    if not params:
        return graph
    if isinstance(graph, Graph):
        return graph.with_params(params)
    raise InputError("params are set before a graph is checked: give them to load, or open the graph that was checked")


def _refuse_backends(found: Plan) -> None:
    """Raise PluginError for a backend that was asked for and that no plugin offers; the usual one is looked for when it is needed."""
    for step in found.steps:
        if step.node.component.module is not None and step.backend != planner.UNSAID["backend"]:
            found.graph.graph.registry.backend(step.backend)


def _folder_for_results(folder: str | Path) -> Path:
    """Make the folder that a user names for results: a cache that cannot be written keeps nothing, and says nothing later."""
    path = home_read(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"results cannot be kept in '{path}': {error.strerror or error}") from error
    remember_results(path)
    return path


def _chosen(solved: SolvedGraph, placing: Placing, device: str) -> dict[str, str]:
    """The backend that "auto" and silence mean on a device; why it is the usual one, where another was wanted, is a warning."""
    from modelgraft.engine.choosing import chosen_backend, unheeded_export
    from modelgraft.records.readers import for_reader

    name, why = chosen_backend(solved, placing, device=device)
    told = [f"backend auto is {name}: {why}" if why else unheeded_export(solved, placing, name)]
    warn_once(map(for_reader(), filter(None, told)), warned=set())
    return {"backend": name}


def _placement(solved: SolvedGraph, asked: Opening) -> dict[str, str]:
    """The backend that "auto" means, the device of this machine that "auto" and silence mean, and the one that a flag asks for, checked.

    A GPU for torch need not be one for another backend: then its nodes stay elsewhere, and a warning says why.
    """
    is_plain = all(node.component.function is not None for node in solved.nodes.values())
    is_code = all(node.component.module is None for node in solved.nodes.values())
    if asked.device is None and (is_plain or (is_code and has_no_gpu())):
        return {}  # nothing that a device matters to: torch is not even imported
    if asked.device == "cpu" or (asked.device in (None, "auto") and has_no_gpu()):
        flag = {"flag": "cpu"} if asked.device == "cpu" else {}
        return {"device": "cpu", **_chosen(solved, asked, "cpu"), **flag}  # torch, which takes seconds, comes with the first load
    from modelgraft.engine.backend import open_backend
    from modelgraft.engine.modules.calling import resolve_device

    device = resolve_device(None)
    found = {"device": device, **_chosen(solved, asked, device)}
    if asked.device not in (None, "auto"):
        found["flag"] = resolve_device(asked.device)
    elif device != "cpu":
        places = planner.Placement(solved, {"backend": asked.backend}, {**planner.UNSAID, "backend": found["backend"]})
        registry = solved.graph.registry
        for name in sorted({places.of(node, "backend") for node in solved.nodes.values()} & registry.backends.keys()):
            if (own := open_backend(registry, name).auto_device(device)) != device:
                found[f"device of {name}"] = own
    return found
