"""Which model made a vector: what its nodes are, how they are configured, and what weights they have, whatever their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from modelgraft.plugin import Node, Plan, SolvedGraph, Source, sha256_of

NAMES = ("space",)  # config that says what the source is called, and changes no number
SHORT = 12  # hex digits of a digest in a message


@dataclass(frozen=True, slots=True)
class Model:
    """What made the vectors of an index, as plain values.

    name     what to call it: the space of the vectors, or where the weights came from;  output  what of which graph
    space    the name of their space; "" when nobody says it, or when it is a place on one machine
    width    of the vectors;  dtype  that they were computed in
    sources  the contents of each source of weights, by its name: two names may have the same
    nodes    what each node is: component, config, weights; by its name, in the order of their work
    digest   of all of these but names
    """

    name: str
    output: str
    space: str
    width: int
    dtype: str
    sources: Mapping[str, str]
    nodes: Mapping[str, Mapping[str, Any]]
    digest: str

    def plain(self) -> dict[str, Any]:
        """As it stands in a file."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found


def model_of(plan: Plan, output: str, *, seed: int) -> Model:
    """What makes an output of a plan. Reads the files of weights once; their digests are remembered by place and stamp.

    seed  of weights that are drawn
    """
    ref = plan.wanted[output]
    steps = {step.node.name: step for step in plan.steps}
    nodes = {
        step.node.name: {**_facts(step.node, seed), "dtype": step.dtype, "precision": step.precision}
        for step in plan.steps
    }  # fmt: skip
    port = steps[ref.node].node.out_ports[ref.port]
    assert port.tensor is not None, "only outputs that are vectors are indexed"
    axis = port.tensor.axes[-1]
    space = str(dict(port.space.facts).get("model", "")) if port.space is not None else ""
    sources = contents_of((step.node for step in plan.steps), seed=seed)
    name = space or ", ".join(sources) or plan.graph.name
    if any(source.kind in ("folder", "file") for step in plan.steps for source in _sources(step.node)):
        space = ""
    dtype = str(steps[ref.node].dtype)
    digest = _digest([_tree(ref.node, steps, nodes), ref.port, dtype])
    return Model(name, f"{plan.graph.name}: {output}", space, (axis.size if axis is not None else None) or 0, dtype, sources, nodes, digest)


def contents_of(nodes: Iterable[Node], *, seed: int) -> dict[str, str]:
    """The contents of each source whose weights these nodes have, by its name."""
    found: dict[str, str] = {}
    for node in nodes:
        for source in _sources(node):
            found[source.whole] = _content(source, seed)
        if node.source is None and node.component.module is not None and node.share is None and node.config.parameters() != 0:
            found[""] = _drawn(seed)
    return found


def feeding(graph: SolvedGraph, node: Node, port: str) -> list[Node]:
    """All nodes that what feeds a port was made by, and those whose weights they use; of one that stands for several its parts."""
    found: dict[str, Node] = {}
    waiting = [ref.node for ref in node.wired.get(port, ()) if not ref.is_input]
    while waiting:
        name = waiting.pop()
        if name in found or name not in graph.nodes:
            continue
        one = found[name] = graph.nodes[name]
        waiting += [*(ref.node for ref in one.references if not ref.is_input), *([one.share] if one.share else [])]
    return [part for node in found.values() for part in node.parts or (node,)]


def differences(before: Mapping[str, Any], now: Model) -> Iterator[str]:
    """Say what differs between the model of an index and another one, the plainest first; nothing when they are one."""
    if before["digest"] == now.digest:
        return
    found = [
        f"{name} is {before.get(name)}, not {getattr(now, name)}" for name in ("width", "dtype") if before.get(name) != getattr(now, name)
    ]
    if set(before["sources"].values()) != set(now.sources.values()):
        found.append(f"weights are {_named(before['sources'])}, not {_named(now.sources)}")
    found += _changed(before.get("nodes") or {}, now.nodes)
    yield from found or ["its nodes are wired in another way"]


def stranger(before: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """Why vectors made with these sources are of another model than those of an index; "" when they share what leads into its space.

    These are the last that its vectors go through: an eye may lead into many spaces.
    """
    held = before["sources"]
    for name in held.keys() & sources.keys():
        if held[name] != sources[name]:
            called = f"{name}: " if name else ""
            return f"{called}its weights were {short(held[name])} when it was made, and are {short(sources[name])} now"
    if set(_last_weights(before) or held.values()) & set(sources.values()):
        return ""
    return f"it is of {_named(held)}, and what is asked with is made by {_named(sources)}"


def _last_weights(before: Mapping[str, Any]) -> list[str]:
    """The contents of the last node of an index that has weights; none where nothing says so."""
    return next((list(node["weights"]) for node in reversed(list((before.get("nodes") or {}).values())) if node.get("weights")), [])


def short(content: str) -> str:
    """A digest in a message."""
    kind, _, digits = content.partition(":")
    return f"{kind} {digits[:SHORT]}..." if kind == "sha256" else content


# -- inside -------------------------------------------------------------------------------------------------------------


def _sources(node: Node) -> Iterator[Source]:
    """The sources of weights of a node and its adapters; loaded code may read any of them."""
    for _, source, _ in node.opened_sources():
        yield source
    if node.source is not None and node.component.load is not None and node.component.kind not in ("preprocess", "tokenizer", "retriever"):
        yield node.source


def _content(source: Source, seed: int) -> str:
    """What tells the weights of a source from others: a digest of their bytes, of one file that of the file."""
    digests = [sha256_of(path) for path in source.weight_files]
    if digests:
        return f"sha256:{digests[0] if len(digests) == 1 else _digest(digests)}"
    path = source.path()
    if path is not None and path.is_file():
        return f"sha256:{sha256_of(path)}"
    return _drawn(seed)


def _drawn(seed: int) -> str:
    return f"random weights of seed {seed}"


def _facts(node: Node, seed: int) -> dict[str, Any]:
    """What a node computes, without names and places."""
    config = {name: value for name, value in node.config.model_dump(mode="json").items() if name not in NAMES}
    found: dict[str, Any] = {"component": node.component.id, "version": node.component.version, "config": config}
    weights = [_content(source, seed) for source in _sources(node)]
    if weights:
        found["weights"] = weights
    if node.adapters:
        found["adapters"] = [[one.component.id, one.config.model_dump(mode="json")] for one in node.adapters]
    return found


def _tree(name: str, steps: Mapping[str, Any], nodes: Mapping[str, Any]) -> Any:
    """A node with all that feeds it, whatever their names."""
    node = steps[name].node
    fed = {
        port: ["" if ref.is_input or ref.node not in steps else [_tree(ref.node, steps, nodes), ref.port] for ref in refs]
        for port, refs in sorted(node.wired.items())
    }
    return [nodes[name], fed]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _named(sources: Mapping[str, str]) -> str:
    listed = [f"{name} ({short(content)})" if name else short(content) for name, content in sources.items()]
    return ", ".join(listed) or "no weights"


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Say which configs differ, node by node where both have one of a name."""
    if set(before) != set(now):
        yield f"its nodes are {', '.join(before)}, not {', '.join(now)}"
    for name in now:
        if name not in before or before[name] == json.loads(json.dumps(now[name])):
            continue
        old, new = before[name], now[name]
        keys = [key for key in new["config"] if old.get("config", {}).get(key) != json.loads(json.dumps(new["config"][key]))]
        if old.get("component") != new["component"]:
            yield f"{name} is {old.get('component')}, not {new['component']}"
        elif keys:
            yield ", ".join(f"{name}.{key} is {old.get('config', {}).get(key)}, not {new['config'][key]}" for key in keys[:4])
