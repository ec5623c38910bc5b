"""Where the values of a node come from, and which nodes there are: what `modelgraft explain GRAPH [NODE[.KEY]]` prints."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic.fields import FieldInfo

from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.kernel.words.graph import Adapter, AdapterSpec, GraphSpec, Node, NodeSpec, Origin, Ref, SolvedGraph, Value
from modelgraft.kernel.words.guard import contained, said, shown
from modelgraft.kernel.words.notation import in_yaml
from modelgraft.kernel.words.order import topological
from modelgraft.kernel.words.wording import for_python

TRAINING = "training"  # explained as a node is, where no node has that name


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a node.

    key       `use`, `from`, `with.max_new_tokens`, `adapters.0.with.rank`, `in.image`, `out.text`, `runtime.backend`, ...
    value     the value that holds; of a port: its solved type
    origin    where it comes from: a file and line, `default`, `from the source (...)`, `solved (...)`, `--set name`
    replaced  what it went over, nearest first: "default 20", "llava.yaml:9 30"
    """

    key: str
    value: Any
    origin: str
    replaced: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {"key": self.key, "value": _plain(self.value), "origin": self.origin, "replaced": list(self.replaced)}


def _plain(value: Any) -> Any:
    """The same in the types of JSON; what has none there is written as Python shows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else shown(value)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node of a graph at a glance.

    use     the component that it is, also where several were named;  source  what `from` says, or the node whose weights it shares
    file, line  where it is written
    """

    node: str
    kind: str
    use: str
    source: str
    file: str
    line: int | None

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "node": self.node, "kind": self.kind, "use": self.use, "source": self.source or None, "file": self.file, "line": self.line,
        }  # fmt: skip


def nodes_of(solved: SolvedGraph) -> list[NodeRow]:
    """List the nodes in the order in which values flow."""
    return [_node_row(solved.nodes[name]) for name in topological({name: node.feeders for name, node in solved.nodes.items()})]


def _node_row(node: Node) -> NodeRow:
    source = f"shares {node.share}" if node.share is not None else node.source.text if node.source is not None else ""
    grafted = [adapter.component.id for adapter in node.adapters]
    use = " + ".join([node.component.id, *grafted])
    return NodeRow(node.name, node.component.kind, use, source, node.place.file, node.place.line)


def split_target(solved: SolvedGraph, target: str) -> tuple[str, str | None]:
    """Take `node` or `node.key` apart. Raises InputError when there is no such node."""
    name, _, key = target.partition(".")
    if name not in solved.nodes:
        inside = [node for node in solved.nodes if node.startswith(f"{name}/")]
        if inside:
            raise InputError(f"{name} is a whole graph; explain one of its nodes: {choices(inside)}")
        hint = nearest(name, solved.nodes)
        raise InputError(f"the graph {solved.name} has no node '{name}'; it has: {choices(solved.nodes, most=40)}. {hint}".rstrip())
    return name, key or None


def explain(solved: SolvedGraph, node: str, key: str | None = None, *, worded: Callable[[str], str] = for_python) -> list[Row]:
    """List the values of a node, or those of one key: `with`, `with.seed`, or `seed` for short; or of `training`, `training.STAGE`.

    worded  how options of the caller are written in origins, see `modelgraft.kernel.words.wording`

    Raises InputError for a node or key that there is not, with what there is.
    """
    target = node if key is None else f"{node}.{key}"
    is_training = target.partition(".")[0] == TRAINING and TRAINING not in solved.nodes and solved.graph.training is not None
    name, rest = (TRAINING, target.partition(".")[2] or None) if is_training else split_target(solved, target)
    told = _training_rows(solved) if is_training else _rows(solved.graph, solved.nodes[name])
    rows = [Row(row.key, row.value, worded(row.origin), tuple(map(worded, row.replaced))) for row in told]
    if rest is None:
        return rows
    found = [row for row in rows if row.key == rest or row.key.startswith(f"{rest}.")]
    found = found or [row for row in rows if row.key.partition(".")[2] == rest]
    if not found:
        names = [row.key for row in rows]
        short = [name.rpartition(".")[2] for name in names]
        raise InputError(f"{name} has no key '{rest}'; it has: {choices(names)}. {nearest(rest, [*names, *short])}".rstrip())
    return found


def _training_rows(solved: SolvedGraph) -> list[Row]:
    from modelgraft.tools.training.stage_rows import told_of_training  # few graphs are trained

    return [Row(key, value, _without_replaced(origin), _replaced(origin)) for key, value, origin in told_of_training(solved)]


def _rows(graph: GraphSpec, node: Node) -> list[Row]:
    spec = graph.nodes[node.name]
    return [
        Row("use", f"{node.component.id}@{node.component.version}", spec.use.origin.unworded),
        *([_row("from", spec.source)] if spec.source is not None else []),
        *_config_rows("with", node),
        *_switch_rows(node, spec),
        *(_row(f"runtime.{key}", value) for key, value in sorted({**graph.runtime, **spec.runtime}.items())),
        *_port_rows(node, spec),
    ]


def _row(key: str, value: Value) -> Row:
    return Row(key, value.value, _without_replaced(value.origin), _replaced(value.origin))


def _config_rows(key: str, part: Node | Adapter) -> Iterable[Row]:
    for name, declared in type(part.config).model_fields.items():
        origin = part.origins.get(name, Origin("default"))
        replaced = list(_replaced(origin))
        if origin.layer not in ("default", "solved") and not declared.is_required():
            replaced.append(f"default {default_of(declared)}")
        yield Row(f"{key}.{name}", getattr(part.config, name), _without_replaced(origin), tuple(replaced))


def default_of(field: FieldInfo) -> str:
    """The default of a config field as it looks; a factory is code of a plugin, which may raise anything."""
    try:
        with contained():
            return in_yaml(field.get_default(call_default_factory=True, validated_data={}), plain=shown)
    except Exception as error:  # noqa: BLE001 see above
        return f"(not known: {said(error)})"


def _switch_rows(node: Node, spec: NodeSpec) -> Iterable[Row]:
    place = spec.place.short
    yield Row("frozen", node.frozen, *_switched(spec, "frozen"))
    if node.when is not None:
        yield Row("when", str(node.when), node.when.place.short if node.when.place else place)
    if node.lazy:
        yield Row("lazy", node.lazy, *_switched(spec, "lazy"))
    if node.share is not None:
        yield Row("share", node.share, spec.share.origin.unworded if spec.share else place)
    for index, (adapter, written) in enumerate(zip(node.adapters, spec.adapters, strict=True)):
        yield from _adapter_rows(f"adapters.{index}", adapter, written)


def _switched(spec: NodeSpec, key: str) -> tuple[str, tuple[str, ...]]:
    """Where `frozen` or `lazy` comes from, and what it goes over."""
    origin = spec.switches.get(key, Origin("default"))
    return _without_replaced(origin), _replaced(origin)


def _adapter_rows(key: str, adapter: Adapter, written: AdapterSpec) -> Iterable[Row]:
    yield Row(f"{key}.use", f"{adapter.component.id}@{adapter.component.version}", written.use.origin.unworded)
    if written.source is not None:
        yield _row(f"{key}.from", written.source)
    yield from _config_rows(f"{key}.with", adapter)


def _port_rows(node: Node, spec: NodeSpec) -> Iterable[Row]:
    for name, port in node.in_ports.items():
        wire = spec.wires.get(name)
        where = f"{wire.place.short}, " if wire else ""
        yield Row(f"in.{name}", str(port), f"{where}{_feed(node.wired.get(name, ()))}")
    for name, port in node.out_ports.items():
        yield Row(f"out.{name}", str(port), "solved")


def _feed(refs: tuple[Ref, ...]) -> str:
    return f"fed by {', '.join(map(str, refs))}" if refs else "not wired"


def _replaced(origin: Origin) -> tuple[str, ...]:
    """What a value went over, each with where that stands."""
    return tuple(map(_told, origin.replaced))


def _told(value: Value) -> str:
    place = value.origin.place
    if value.origin.layer == "source" or place is None:
        return f"from the source {shown(value.value)}"
    return f"{place.short} {in_yaml(value.value)}"


def _without_replaced(origin: Origin) -> str:
    return replace(origin, replaced=()).unworded
