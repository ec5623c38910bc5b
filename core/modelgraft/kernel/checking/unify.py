"""Solves every dimension of a graph: the axes at both ends of each wire are equal, and configs decide some of them.

A solved dimension goes into the config that left it open; properties of that config, such as token counts, may then
become known and decide more. This goes on until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from modelgraft.kernel.checking.configs import Configs
from modelgraft.kernel.checking.drafts import Draft, Part, axes_in_graph
from modelgraft.kernel.checking.solver import Dims
from modelgraft.kernel.words.errors import Place
from modelgraft.kernel.words.graph import INPUTS, GraphSpec, Origin, Ref
from modelgraft.kernel.words.kinds import dimension_fields
from modelgraft.kernel.words.order import topological
from modelgraft.kernel.words.ports import BATCH, Axis, ListOf, Port, Tensor, tensor_in

Axes = tuple[Axis | None, ...]
MASK = Tensor("mask", (Axis(((BATCH, 1),)),))  # what `when` takes


@dataclass(frozen=True, slots=True)
class Link:
    """One wire between two tensors: `giver` and `taker` are their declared types, `ref` and `node.port` the ends."""

    ref: Ref
    node: str
    port: str
    giver: Tensor
    taker: Tensor
    place: Place | None


@dataclass(frozen=True, slots=True)
class Bond:
    """Two configs that must agree in a field: nodes that share weights, or an adapter and its host."""

    field: str
    one: str
    other: str
    place: Place


@dataclass(slots=True)
class Unified:
    """What was found of a graph: the dimensions, the axes behind `...` by part, and the links whose numbers of axes differ.

    parts  by scope: every component with its config, those of adapters too
    """

    graph: GraphSpec
    parts: Mapping[str, Part]
    dims: Dims = field(default_factory=Dims)
    rest: dict[str, Axes] = field(default_factory=dict)
    ranks: list[Link] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def owner_of_giver(self, link: Link) -> Part | None:
        """The part whose output a link takes; None for an input of the graph."""
        return None if link.ref.is_input else self.parts[link.ref.node]

    def owner_of_taker(self, link: Link) -> Part:
        """The part that a link feeds: the node's own, or the adapter that brought the port."""
        candidates = [part for part in self.parts.values() if part.node == link.node]
        return next((part for part in candidates if link.port in part.face.declared.inputs), self.parts[link.node])

    def known(self, axis: Axis) -> Axis:
        """An axis with every number in place that was solved."""
        return axis.bind({name: value for name in axis.names if (value := self.dims.value(name)) is not None})


class Unifier:
    """Solves the dimensions of wired drafts, and fills their configs.

    rewire  joins the wires to the ports anew: called when a config has changed its ports after it was filled
    """

    def __init__(self, graph: GraphSpec, drafts: Mapping[str, Draft], configs: Configs, rewire: Callable[[], object]) -> None:
        self.graph, self.drafts, self.configs, self.rewire = graph, drafts, configs, rewire
        self.order = topological({name: draft.feeders for name, draft in drafts.items()})
        self.open: dict[str, Part] = {}  # symbol of a config field that is None -> its part
        self.parts = {part.scope: part for draft in drafts.values() for part in draft.parts}
        self.found = Unified(graph, self.parts)

    def run(self) -> Unified:
        """Solve until nothing changes. Problems with configs are noted by `configs`; contradictions stay in the result."""
        while True:
            self.found = Unified(self.graph, self.parts)
            self._state_everything()
            if not self._fill_configs():
                return self.found
            self.rewire()

    # -- stating --------------------------------------------------------------------------------------------------------

    def _state_everything(self) -> None:
        self.open = {f"{part.scope}.{name}": part for part in self.parts.values() for name in open_fields(part)}
        for part in self.parts.values():
            self._state_known(part)
        for name in self.order:
            draft = self.drafts[name]
            self._bond(draft)
            for port, refs in draft.wired.items():
                for ref in refs:
                    self._link(draft, port, ref)
            if draft.when is not None:
                self._link_route(draft, draft.when)

    def _state_known(self, part: Part) -> None:
        for name, value in part.face.known.items():
            self.found.dims.know(f"{part.scope}.{name}", value)

    def _bond(self, draft: Draft) -> None:
        """Fields that must agree with another config: those of a node with shared weights, those of an adapter with its host."""
        if draft.share is not None:
            host = self.drafts[draft.share].host
            for name in dimension_fields(draft.host.component.config):
                self._agree(draft.host, host, name, draft.spec.place)
        for part in draft.adapters:
            fields = type(draft.host.config).model_fields
            for name in dimension_fields(part.component.config):
                if name in fields:
                    self._agree(part, draft.host, name, part.place)

    def _agree(self, part: Part, other: Part, name: str, place: Place) -> None:
        for side in (part, other):
            value = getattr(side.config, name)
            if isinstance(value, int):
                self.found.dims.know(f"{side.scope}.{name}", value)
        one, two = f"{part.scope}.{name}", f"{other.scope}.{name}"
        self.found.dims.equate(_bare(one), _bare(two), why=Bond(name, one, two, place))

    def _link(self, draft: Draft, port: str, ref: Ref) -> None:
        giving, accepting = self._giving(ref).type, draft.chosen[port]
        if isinstance(accepting, ListOf) and port in draft.lists:
            accepting = accepting.item
        giver, taker = tensor_in(giving), tensor_in(accepting)
        if giver is None or taker is None:
            return
        link = Link(ref, draft.name, port, giver, taker, ref.place or draft.wires[port].place)
        self.found.links.append(link)
        part = draft.owners[port]
        given, wanted = self._axes(ref, giver), self._spread(part, axes_in_graph(taker, part.symbols))
        pairs = align(given, wanted)
        if pairs is None:
            self.found.ranks.append(link)
            return
        covered = _covered(given, wanted)
        if covered is not None:
            self.found.rest.setdefault(part.scope, covered)
        for mine, theirs in pairs:
            self.found.dims.equate(mine, theirs, why=link)

    def _link_route(self, draft: Draft, when: Ref) -> None:
        """A route tells of every record of the batch."""
        given = tensor_in(self._giving(when).type)
        if given is not None:
            link = Link(when, draft.name, "when", given, MASK, when.place or draft.spec.place)
            [axis], [batch] = self._axes(when, given), MASK.axes
            if axis is not None and batch is not None:
                self.found.dims.equate(axis, batch, why=link)

    def _giving(self, ref: Ref) -> Port:
        return self.graph.inputs[ref.port].port if ref.is_input else self.drafts[ref.node].out_ports[ref.port]

    def _axes(self, ref: Ref, given: Tensor) -> Axes:
        if ref.is_input:
            return axes_in_graph(given, {name: input_symbol(name) for name in given.names})
        part = self.drafts[ref.node].host
        return self._spread(part, axes_in_graph(given, part.symbols))

    def _spread(self, part: Part, axes: Axes) -> Axes:
        """Put the axes that `...` stands for in its place, once they are known."""
        rest = self.found.rest.get(part.scope)
        if rest is None or None not in axes:
            return axes
        at = axes.index(None)
        return (*axes[:at], *rest, *axes[at + 1 :])

    # -- filling --------------------------------------------------------------------------------------------------------

    def _fill_configs(self) -> bool:
        """Put solved dimensions into configs until no more follow. True when ports changed so that all must be stated anew."""
        while True:
            solved: dict[str, dict[str, int]] = {}
            for symbol in self.found.dims.news():
                part = self.open.pop(symbol, None)
                value = self.found.dims.value(symbol)
                if part is not None and value is not None:
                    solved.setdefault(part.scope, {})[symbol.removeprefix(f"{part.scope}.")] = value
            if not solved:
                return False
            changed = [self._fill(self.parts[scope], values) for scope, values in sorted(solved.items())]
            if any(changed):
                return True

    def _fill(self, part: Part, values: Mapping[str, int]) -> bool:
        for name, value in values.items():
            part.origins[name] = Origin("solved", None, self._who_decides(f"{part.scope}.{name}", value, part.node))
        changed = self.configs.remake(part, values)
        draft = self.drafts[part.node]
        draft.open_ports()
        if not changed:
            self._state_known(part)
        return changed

    def _who_decides(self, symbol: str, value: int, node: str) -> str:
        """In a few words, for `explain`: the config field elsewhere, or the port at the other end."""
        fact = self.found.dims.fact(symbol)
        if fact is not None and fact.symbol != symbol:
            return f"{fact.symbol} is {value}"
        link = fact.follows.why if fact is not None and fact.follows is not None else None
        if not isinstance(link, Link):
            return f"its neighbours make it {value}"
        other = f"{link.node}.{link.port}" if link.ref.node == node else link.ref
        return f"{other} makes it {value}"


def open_fields(part: Part) -> list[str]:
    """The dimensions that a config leaves to its neighbours."""
    return [name for name in dimension_fields(part.component.config) if getattr(part.config, name) is None]


def input_symbol(name: str) -> str:
    """The symbol of an axis name in the types of the graph's inputs: the same name in two inputs is the same size."""
    return name if name == BATCH else f"{INPUTS}.{name}"


def _bare(symbol: str) -> Axis:
    return Axis(((symbol, 1),))


def align(given: Axes, wanted: Axes) -> list[tuple[Axis, Axis]] | None:
    """The pairs of axes that meet; None when the numbers of axes cannot be made equal. `...` takes what is left over."""
    if None not in given and None not in wanted:
        return list(zip(given, wanted, strict=True)) if len(given) == len(wanted) else None  # type: ignore[arg-type]
    if None not in given and len(given) < len(wanted) - 1:
        return None
    if None not in wanted and len(wanted) < len(given) - 1:
        return None
    head = min(_before(given), _before(wanted))
    tail = min(_before(given[::-1]), _before(wanted[::-1]))
    ends = [*zip(given[:head], wanted[:head], strict=True), *zip(given[len(given) - tail :], wanted[len(wanted) - tail :], strict=True)]
    return [(mine, theirs) for mine, theirs in ends if mine is not None and theirs is not None]


def _before(axes: Axes) -> int:
    return axes.index(None) if None in axes else len(axes)


def _covered(given: Axes, wanted: Axes) -> Axes | None:
    """What `...` of the taker stands for (itself with `...` when that is what the giver says); None when there is none."""
    if None not in wanted:
        return None
    at, after = wanted.index(None), len(wanted) - wanted.index(None) - 1
    if None in given and (_before(given) < at or _before(given[::-1]) < after):
        return None
    return given[at : len(given) - after]
