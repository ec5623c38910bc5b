"""What a short name in a sweep means in a graph: `eye` may be a param, or the node of that name.

backend, precision, device, threads, batch   how the graph is run
nodes.eye.use, runtime.dtype, params.n       a dotted key means itself
n                                            a param of the graph, where there is one of that name
eye                                          else the node: its `use` where the value is a component, else its `from`
projector, tongue                            else the one node of this kind or keyword, with what follows (`--set projector=...`)
eye.rank, eye.from, eye.runtime.device       else a key of the node, or of its `with`
max_new_tokens                               else a key that the config of exactly one node has
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.commands import GRAPH_PREFIX, NODE_KEYS, SECTIONS, node_named
from modelgraft.plugin import InputError, choices, nearest
from modelgraft_plugins.benching.sweeps import PLACING
from modelgraft_plugins.benching.words import Text, word_of

if TYPE_CHECKING:
    from modelgraft import Graph
    from modelgraft.plugin import Component


def key_of(name: str, value: Any, graph: Graph) -> str:  # Any: a word, or a value of a file
    """The key of `--set` that a name means in a graph, or one of PLACING. Raises InputError with what there is."""
    head, dot, rest = name.partition(".")
    if name in PLACING or (dot and head in SECTIONS) or name in graph.params:
        return name
    nodes = _nodes(graph)
    if name in nodes:
        return f"nodes.{name}.{'use' if _is_component(value, graph) else 'from'}"
    if not dot and node_named(name, graph.spec) is not None:
        return name
    if dot and head in nodes:
        return f"nodes.{head}.{rest}" if rest.partition(".")[0] in NODE_KEYS else f"nodes.{head}.with.{rest}"
    found = [node for node, form in nodes.items() if not dot and name in _config_keys(form, graph)]
    if len(found) == 1:
        return f"nodes.{found[0]}.with.{name}"
    if found:
        ways = choices((f"{node}.{name}" for node in found), sort=False)
        raise InputError(f"the sweep names '{name}', which {len(found)} nodes of the graph {graph.name} have; say which: {ways}")
    there = f"it has {f'the params {choices(graph.params)}' if graph.params else 'no params'}, and the nodes {choices(nodes)}"
    near = nearest(name, [*graph.params, *nodes, *PLACING])
    raise InputError(f"the sweep names '{name}', but the graph {graph.name} has no such param, node or setting; {there}. {near}".rstrip())


def settings_for(
    sets: Iterable[tuple[str, Any]], settings: Mapping[str, Any], graph: Graph
) -> dict[str, Any]:  # Any: words, or values of a file
    """The keys that a cell sets in a graph, with their values as `modelgraft.load` and PLACING take them.

    settings  what holds for all cells: params and dotted keys

    Raises InputError for a name that means nothing, and for a key that is set twice.
    """
    found = {key: as_word(key, value, graph) for key, value in settings.items()}
    named = dict.fromkeys(settings, "for all cells")
    for name, value in sets:
        key = key_of(name, value, graph)
        if key in named:
            raise InputError(f"the sweep sets {key} twice: {named[key]}, and by '{name}'; keep one of the two")
        found[key], named[key] = as_word(key, value, graph), f"by '{name}'"
    return found


def as_word(key: str, value: Any, graph: Graph) -> Any:  # Any: a word, or a value of a file
    """A value as `modelgraft.load` is given it: a text of a file in quotes where it would be read as something else."""
    if not isinstance(value, Text) or key in PLACING:
        return value
    return str(value) if key in graph.params and _is_text(key, graph) else word_of(value)


def _is_text(param: str, graph: Graph) -> bool:
    """Whether a param takes texts alone, so that whatever is typed is one."""
    document = graph.spec.document
    forms = document.root.plain().get("params") if document is not None else None
    form = forms.get(param) if isinstance(forms, dict) else None
    kind = form.get("type") if isinstance(form, dict) else None
    return kind == "text" if kind is not None else isinstance(graph.params[param].default, str)


def _nodes(graph: Graph) -> Mapping[str, Mapping[str, Any]]:  # Any: values of a document
    """The nodes as the document has them, graphs that stand as nodes among them."""
    document = graph.spec.document
    written = document.root.plain().get("nodes") if document is not None else None
    return written if isinstance(written, dict) else {}


def _component(use: Any, graph: Graph) -> Component | None:  # Any: what a document says
    return graph.registry.find(use.partition("|")[0].strip()) if isinstance(use, str) else None


def _is_component(value: Any, graph: Graph) -> bool:  # Any: a word, or a value of a file
    return isinstance(value, str) and (value.startswith(GRAPH_PREFIX) or _component(value, graph) is not None)


def _config_keys(form: Any, graph: Graph) -> set[str]:  # Any: a node as the document has it
    """The keys that `with` of a node takes, and those that stand there."""
    if not isinstance(form, dict):
        return set()
    written = form.get("with")
    component = _component(form.get("use"), graph)
    known = set(component.config.model_fields) if component is not None else set[str]()
    return known | set(written if isinstance(written, dict) else ())
