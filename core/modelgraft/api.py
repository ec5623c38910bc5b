"""The façade: what `import modelgraft` offers to read, check, plan and open a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.building import Graph, allowed
from modelgraft.kernel.checking import checks
from modelgraft.kernel.language import expand
from modelgraft.kernel.language.document import DEVICE, DEVICES
from modelgraft.kernel.planning import planner
from modelgraft.kernel.words.errors import InputError
from modelgraft.kernel.words.graph import GraphSpec, SolvedGraph
from modelgraft.kernel.words.plans import Plan
from modelgraft.sources.storage import remember_results

if TYPE_CHECKING:
    from modelgraft.engine.pipeline import Pipeline
    from modelgraft.engine.result import Result
    from modelgraft.kernel.shelf.registry import Registry
    from modelgraft.tools.drawings import Drawing

__all__ = ["check", "load", "open", "plan", "show"]

Subject = Graph | GraphSpec | SolvedGraph | str | Path  # what may be checked, planned, opened: a graph, or where one is read from


def load(
    graph: str | Path, *, params: Mapping[str, Any] | None = None, registry: Registry | None = None, allow: Collection[str] = ()
) -> Graph:
    """Read a graph: a file, or the name of a shipped one such as `blip2`. Nothing is loaded beside the text.

    params    what the user sets, as `--set` does: params of the graph, or dotted keys such as `nodes.llm.with.seed`
    registry  what is installed, when it is not what the entry points say
    allow     "unused": let stand what nothing uses

    Raises GraphError with every problem of the documents.
    """
    return Graph.of(expand.load_graph(graph, params=params, registry=registry, allow=allowed(allow)), params=params)


def check(graph: Subject, *, offline: bool = True) -> SolvedGraph:
    """Check a graph without loading anything: every port, dimension, value space and token count.

    offline  look at sources on this machine and at recorded configs alone

    Raises GraphError, whose `problems` are all those of the first phase that has any.
    """
    if isinstance(graph, SolvedGraph):
        return graph
    spec = graph if isinstance(graph, GraphSpec) else (graph if isinstance(graph, Graph) else load(graph)).spec
    return checks.solve(spec, offline=offline)


def plan(
    graph: Subject,
    *,
    wanted: Sequence[str] | None = None,
    exact: bool = False,
    backend: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    precision: str | None = None,
) -> Plan:
    """Plan a graph: order, placement, parameters and bytes per node, still without loading anything.

    wanted  outputs by name, or any port as "node.port"; None: all outputs of the graph
    exact   build the modules without memory and compare their parameters with the formulas

    Raises GraphError as `check` does, InputError for an output that is not there, PluginError for a backend that is not.
    """
    if device is not None and backend in (None, "auto", "torch", "onnx") and DEVICE.fullmatch(device) is None:
        raise InputError(f"device is {device!r}; wanted: {DEVICES}")
    found = planner.plan(check(graph), wanted=wanted, exact=exact, backend=backend, device=device, dtype=dtype, precision=precision)
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


def open(  # noqa: PLR0913 read as modelgraft.open; every option of a pipeline
    graph: Subject,
    *,
    params: Mapping[str, Any] | None = None,
    backend: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    precision: str | None = None,
    seed: int = 0,
    init: str | None = None,
    offline: bool = False,
    fallback: str | None = None,
    cache_bytes: int | None = None,
    cache_dir: str | Path | None = None,
    timings: bool = True,
    timeout_s: float | None = None,
    trace: bool = False,
    debug: bool = False,
) -> Pipeline:
    """Open a graph for running. Nodes are loaded when a run first needs them.

    params       as in `load`; a graph that was checked already has its own
    backend, device, dtype, precision   win over what the graph says; device "auto" is the first GPU, else the CPU;
                 precision (onnx): float32, float16, int8, w8 or w4
    init         "random": a source without weights, such as a preset, gives random numbers drawn from the seed;
                 None: that is an error. A part without a source is new, and starts from them in any case, with a warning
    offline      take weights from this machine alone
    fallback     "torch": what the onnx backend cannot run stays on torch, with a warning; None: that is an error
    cache_bytes  the most that results take in memory; 0 keeps none, None the usual 512 MB
    cache_dir    a folder that keeps results between processes; None keeps none
    timings      keep how long each node took
    timeout_s    the most seconds that any node may take in one run
    trace        measure what the outputs of each node take, for `trace.chrome_trace`
    debug        look at every call of a node for inputs that it writes to, not at the first one alone; this takes time

    Raises GraphError as `check` does, InputError for a device that is not there and for options that mean nothing. Close
    the pipeline, or use it as a context manager.
    """
    _refuse_options(seed=seed, init=init, fallback=fallback, timeout_s=timeout_s)
    from modelgraft.engine.cache import MEMORY_BYTES, Cache  # what runs is imported when something is to run
    from modelgraft.engine.fusing import fuse
    from modelgraft.engine.pipeline import Pipeline

    solved = check(_with_params(graph, params), offline=offline)
    where = _placement(solved, device, backend)
    flag = where.pop("flag", None)

    def replan(wanted: tuple[str, ...] | None = None) -> Plan:
        return fuse(planner.plan(solved, wanted=wanted, backend=backend, device=flag, dtype=dtype, precision=precision, otherwise=where))

    folder = _folder_for_results(cache_dir) if cache_dir else None
    cache = Cache(memory_bytes=MEMORY_BYTES if cache_bytes is None else cache_bytes, folder=folder)
    first = replan()
    _refuse_backends(first)
    return Pipeline(
        first,
        replan=replan,
        seed=seed,
        init=init,
        offline=offline,
        fallback=fallback,
        cache=cache,
        timings=timings,
        timeout_s=timeout_s,
        trace=trace,
        debug=debug,
    )


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
        if step.node.component.module is not None and step.backend != planner.AUTO["backend"]:
            found.graph.graph.registry.backend(step.backend)


def _refuse_options(*, seed: object, init: object, fallback: object, timeout_s: object) -> None:
    """Raise InputError for an option whose value means nothing, before anything is opened with it."""
    from modelgraft.engine.intake import refuse_seed

    refuse_seed(seed)
    if init not in (None, "random"):
        raise InputError(f"init is {init!r}; wanted: 'random', or None")
    if fallback not in (None, "torch"):
        raise InputError(f"fallback is {fallback!r}; wanted: 'torch', or None")
    if timeout_s is not None and not (isinstance(timeout_s, int | float) and timeout_s > 0):
        raise InputError(f"timeout_s is {timeout_s!r}; wanted: seconds, more than 0, or None")


def _folder_for_results(folder: str | Path) -> Path:
    """Make the folder that a user names for results: a cache that cannot be written keeps nothing, and says nothing later."""
    path = Path(folder).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"results cannot be kept in '{path}': {error.strerror or error}") from error
    remember_results(path)
    return path


def _placement(solved: SolvedGraph, device: str | None, backend: str | None) -> dict[str, str]:
    """The device of this machine that "auto" and silence mean, and the one that a flag asks for, checked.

    A GPU for torch need not be one for onnxruntime: then nodes on that backend stay on the CPU, and a warning says why.
    """
    if device is None and all(node.component.function is not None for node in solved.nodes.values()):
        return {}  # nothing that a device matters to: torch is not even imported
    from modelgraft.backends.torch import resolve_device

    found = {"device": resolve_device(None)}
    if device not in (None, "auto"):
        found["flag"] = resolve_device(device)
    elif found["device"] != "cpu":
        placement = planner.Placement(solved, {"backend": backend}, planner.AUTO)
        if any(placement.of(node, "backend") == "onnx" for node in solved.nodes.values()):
            from modelgraft_plugins.onnx.cuda import auto_device

            found["device of onnx"] = auto_device(found["device"])
    return found
