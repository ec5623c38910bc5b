"""A stage against its solved graph: what trains, by which losses, fed by which columns; what is wrong is found before anything loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelgraft.data.datasets import TABLE_ENDINGS
from modelgraft.data.peeking import columns_in
from modelgraft.kernel.words.errors import Collector, Place, Problem, choices, nearest
from modelgraft.kernel.words.graph import Node, Ref, SolvedGraph, Value
from modelgraft.kernel.words.order import reach, topological
from modelgraft.kernel.words.ports import DTYPE_FAMILIES, Axis, Port, Tensor
from modelgraft.tools.trained_parts import TrainsParts
from modelgraft.tools.training.stage_features import unkept_features
from modelgraft.tools.training.stage_files import data_file
from modelgraft.tools.training.stage_metrics import Measured, metric_of
from modelgraft.tools.training.stage_words import BACKBONE_RATE, NEW_RATE
from modelgraft.tools.training.stages import Stage, Training, read_training

BACKBONES = ("encoder", "llm", "generator")  # kinds that are pre-trained as a rule
LOSS = "loss"  # the kind of a loss, and its port


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a node is tuned: frozen is not among them.

    kind   partial | full | lora;  parts  of partial: patterns of names; none: what its config says is trained of a frozen node
    rate   its learning rate;  decay  its weight decay
    place  where the graph says so
    """

    node: str
    kind: str
    parts: tuple[str, ...]
    rate: float
    decay: float
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Resolved:
    """A stage that can be trained.

    trained   the nodes that are trained, by name; of nodes that share weights the one that has them
    learners  the nodes whose results depend on what is trained: these are called with gradients
    needed    every node that the losses need
    losses    what is added up: the port and its weight, by name;  watched  the ports that an evaluation tells, by name
    columns   the column of each input of the graph that is read
    metrics   of an evaluation, by the name in its table;  best  the name that tells the best evaluation, and which way
    """

    stage: Stage
    trained: Mapping[str, Tuning]
    learners: frozenset[str]
    needed: frozenset[str]
    losses: Mapping[str, tuple[Ref, float]]
    watched: Mapping[str, Ref]
    columns: Mapping[str, str]
    metrics: Mapping[str, Measured] = field(default_factory=dict)
    best: tuple[str, str] = ("loss", "lower")

    @property
    def judged(self) -> list[Ref]:
        """The ports that an evaluation looks at beside the losses."""
        measured = [ref for one in self.metrics.values() for ref in (one.prediction, one.references) if isinstance(ref, Ref)]
        return list(dict.fromkeys([*self.watched.values(), *(ref for ref in measured if not ref.is_input)]))

    @property
    def table(self) -> list[str]:
        """What the table of a stage names beside its loss."""
        return [*self.losses, *self.watched, *self.metrics]


def training_problems(solved: SolvedGraph) -> list[Problem]:
    """What is wrong with the section `training` of a graph that is all right otherwise."""
    collector = Collector()
    training = read_training(solved.graph, collector)
    if training is not None and not collector.problems:
        for stage in training.stages:
            resolve_stage(solved, stage, collector, usual=training)
    return collector.problems


def training_warnings(solved: SolvedGraph) -> list[Problem]:
    """What of a training works, and not as one may expect; the graph has no problems."""
    training = read_training(solved.graph, Collector())
    found = [(stage, resolve_stage(solved, stage, Collector())) for stage in training.stages] if training is not None else []
    return [
        problem
        for stage, one in found
        if one is not None
        for problem in unkept_features(stage, {name: solved.nodes[name] for name in one.needed}, one.learners)
    ]


def resolve_stage(solved: SolvedGraph, stage: Stage, collector: Collector, *, usual: Training | None = None) -> Resolved | None:
    """Give what a stage is made of; None where something is wrong, which goes to the collector. Opens no weights."""
    before = len(collector.problems)
    found = _Stage(solved, stage, collector).resolve(place=usual.place if usual is not None else stage.place)
    return found if len(collector.problems) == before else None


def owner(solved: SolvedGraph, name: str) -> str:
    """The node that has the weights which a node uses."""
    share = solved.nodes[name].share
    return name if share is None else owner(solved, share)


def carries(port: Port | None) -> bool:
    """Whether a gradient comes back through a port: floating tensors alone have one."""
    kind = port.tensor if port is not None else None
    return kind is not None and DTYPE_FAMILIES.get(kind.dtype, frozenset()) <= DTYPE_FAMILIES["float"]


def has_weights(node: Node) -> bool:
    """Whether a node has parameters of its own, as far as its declaration tells."""
    return node.component.module is not None and node.config.parameters() != 0


class _Stage:
    def __init__(self, solved: SolvedGraph, stage: Stage, collector: Collector) -> None:
        self.solved, self.stage, self.collector = solved, stage, collector

    def add(self, code: str, found: str, *, place: Place | None = None, hint: str = "", node: str = "") -> None:
        self.collector.add(code, f"stage {self.stage.name}: {found}", place=place or self.stage.place, hint=hint, node=node)

    def resolve(self, *, place: Place) -> Resolved | None:
        losses = self._losses(place)
        watched = {name: ref for name in self.stage["watch"] or () if (ref := self._number(name, self.stage.origin("watch").place))}
        metrics = self._metrics()
        if not losses:
            return None
        needed = frozenset(reach((ref.node for ref, _ in losses.values()), lambda name: self.solved.nodes[name].feeders))
        trained = self._trained(needed, [ref.node for ref, _ in losses.values()])
        if trained is None:
            return None
        learners = self._learners(frozenset(trained), self._order())
        self._refuse_untrained(losses, learners, trained)
        self._refuse_vain(trained, learners, losses)
        best, columns = self._best(losses, watched, metrics), self._columns(needed, watched, metrics)
        return Resolved(self.stage, trained, learners, needed, losses, watched, columns, metrics, best)

    def _order(self) -> list[str]:
        return topological({name: node.feeders for name, node in self.solved.nodes.items()})

    # -- losses ----------------------------------------------------------------------------------------------------------

    def _losses(self, place: Place) -> dict[str, tuple[Ref, float]]:
        entries = self.stage.entries("losses")
        if entries is None:
            entries = {name: Value(1.0, self.stage.origin("losses")) for name in self._usual_losses()}
        if not entries:
            hint = "write losses: {NAME: {use: loss/..., in: {...}}} beside nodes, and what it compares (modelgraft components --kind loss)"
            self.add("no-losses", "the graph has no loss", place=place, hint=hint)
        found = {name: (ref, weight) for name, weight in entries.items() if (ref := self._number(name, weight.origin.place))}
        return {name: (ref, float(weight.value)) for name, (ref, weight) in found.items()}

    def _usual_losses(self) -> list[str]:
        """The losses of the section, else those among the nodes that give a number."""
        section = [name for name in self.solved.graph.losses if self.solved.nodes[name].component.kind == LOSS]
        among = [name for name, node in self.solved.nodes.items() if node.component.kind == LOSS and LOSS in node.out_ports]
        return sorted(section or among)

    def _number(self, name: str, place: Place | None) -> Ref | None:
        """The port of this name that gives one number for each record, or one of the batch."""
        node, _, port = name.partition(".")
        there = self.solved.nodes.get(node)
        if there is None:
            known = [one for one, other in self.solved.nodes.items() if other.component.kind == LOSS]
            self.add(
                "unknown-node",
                f"there is no loss '{name}'; there are: {choices(known)}",
                place=place,
                hint=nearest(node, self.solved.nodes),
            )
            return None
        names = there.out_ports
        port = port or (LOSS if LOSS in names else next(iter(names)) if len(names) == 1 else "")
        if port not in names:
            self.add(
                "unknown-port",
                f"{node} has no output '{port}'; it has: {choices(names)}",
                place=place,
                hint=f"write {node}.PORT",
                node=node,
            )
            return None
        kind = names[port].type
        is_number = isinstance(kind, Tensor) and len(kind.axes) <= 1 and carries(names[port]) and not _is_other(kind.axes)
        if not is_number:
            found = f"{node}.{port} is {names[port]}; wanted one number for each record, float[batch], or one in all"
            self.add(
                "loss-not-scalar", found, place=place or there.place, hint="a loss compares what this gives with what is wanted", node=node
            )
            return None
        return Ref(node, port)

    # -- evaluations -----------------------------------------------------------------------------------------------------

    def _metrics(self) -> dict[str, Measured]:
        place = self.stage.origin("metrics").place
        found = [
            metric_of(word, self.solved, lambda code, text, hint="": self.add(code, text, place=place, hint=hint))
            for word in self.stage["metrics"] or ()
        ]
        return {one.name: one for one in found if one is not None}

    def _best(self, losses: Mapping[str, Any], watched: Mapping[str, Any], metrics: Mapping[str, Measured]) -> tuple[str, str]:
        """The name that tells the best evaluation, and whether higher or lower is better."""
        name = self.stage["best"] or LOSS
        there = [LOSS, *losses, *watched, *metrics]
        if name not in there:
            found = f"best names '{name}'; the table of an evaluation has: {choices(there, sort=False)}"
            self.add("wrong-value", found, place=self.stage.origin("best").place, hint=nearest(name, there))
        if self.stage["best"] is not None and self.stage["valid"] in (None, 0):
            self.add(
                "wrong-value", "best is of evaluations, and there are none", place=self.stage.origin("best").place, hint="name `valid`"
            )
        usual = metrics[name].better if name in metrics else "lower"
        return name, self.stage["better"] or usual

    # -- what trains -----------------------------------------------------------------------------------------------------

    def _trained(self, needed: frozenset[str], ends: Sequence[str]) -> dict[str, Tuning] | None:
        entries, before = self.stage.entries("train"), len(self.collector.problems)
        asked = self._usual_trained(needed, ends) if entries is None else self._asked(entries)
        found = {name: self._tuning(name, kind, parts, place) for name, (kind, parts, place) in asked.items()}
        if not found and len(self.collector.problems) == before:
            frozen = sorted(name for name in needed if has_weights(self.solved.nodes[name]) and self.solved.nodes[name].frozen)
            told = (
                f"the nodes with weights that its losses need are frozen: {choices(frozen)}"
                if frozen
                else "no loss needs a node with weights"
            )
            if entries is not None:
                told = f"all that `train` names stays as it is: {choices(entries)}" if entries else "`train` is empty"
            place = None if entries is None else self.stage.origin("train").place
            hint = "name nodes under `train`, or take `frozen: true` off one"
            self.add("nothing-trainable", f"nothing is trained; {told}", place=place, hint=hint)
        return found or None

    def _usual_trained(self, needed: frozenset[str], ends: Sequence[str]) -> dict[str, tuple[str, tuple[str, ...], Place | None]]:
        """What has weights and is not frozen; of what is frozen, what is grafted into it or what its config says is trained."""
        found: dict[str, tuple[str, tuple[str, ...], Place | None]] = {}
        for name in sorted({owner(self.solved, name) for name in needed}):
            node = self.solved.nodes[name]
            if not node.frozen and (has_weights(node) or node.adapters):
                found[name] = ("full", (), node.place)
            elif node.frozen and _grafts(node):
                found[name] = ("lora", (), node.place)
            elif node.frozen and isinstance(node.config, TrainsParts) and node.config.trained_parameters() != 0:
                found[name] = ("partial", (), node.place)
        led = self._leading(ends)
        return {name: how for name, how in found.items() if any(owner(self.solved, other) == name for other in led)}

    def _leading(self, ends: Iterable[str]) -> set[str]:
        """The nodes from which floating tensors lead to one of these."""
        nodes = self.solved.nodes
        return reach(ends, lambda name: {r.node for r in nodes[name].references if not r.is_input and carries(self.solved.port_of(r))})

    def _asked(self, entries: Mapping[str, Value]) -> dict[str, tuple[str, tuple[str, ...], Place | None]]:
        found: dict[str, tuple[str, tuple[str, ...], Place | None]] = {}
        for name, value in entries.items():
            kind, parts, place = value.value["tune"], value.value["parts"], value.origin.place
            if name not in self.solved.nodes:
                known = [one for one, node in self.solved.nodes.items() if has_weights(node)]
                self.add(
                    "unknown-node",
                    f"there is no node '{name}'; those with weights are: {choices(known)}",
                    place=place,
                    hint=nearest(name, known),
                )
            elif kind != "frozen" and self._can(name, kind, place):
                found[owner(self.solved, name)] = (kind, parts, place)
        return found

    def _can(self, name: str, kind: str, place: Place | None) -> bool:
        node = self.solved.nodes[owner(self.solved, name)]
        if kind == "lora" and not node.adapters:
            hint = f"write it at the node: nodes.{name}.adapters: [{{use: adapter/lora, with: {{rank: 8}}}}]"
            self.add(
                "nothing-trainable", f"{name} is to be tuned by what is grafted into it, and nothing is", place=place, hint=hint, node=name
            )
            return False
        if kind != "lora" and not has_weights(node):
            hint = "name a node with weights: `modelgraft plan` lists them"
            self.add(
                "nothing-trainable", f"{name} ({node.component.id}) has no weights that can be trained", place=place, hint=hint, node=name
            )
            return False
        return True

    def _tuning(self, name: str, kind: str, parts: tuple[str, ...], place: Place | None) -> Tuning:
        node, rate, decay = self.solved.nodes[name], self.stage.of_node("learning_rate", name), self.stage.of_node("weight_decay", name)
        usual = BACKBONE_RATE if node.component.kind in BACKBONES and kind != "lora" else NEW_RATE
        own = float(self.stage["weight_decay"]) if not isinstance(self.stage["weight_decay"], Mapping) else 0.01
        return Tuning(name, kind, parts, usual if rate is None else float(rate.value), own if decay is None else float(decay.value), place)

    # -- gradients -------------------------------------------------------------------------------------------------------

    def _learners(self, trained: frozenset[str], order: Iterable[str], *, by_any_wire: bool = False) -> frozenset[str]:
        found: set[str] = set()
        for name in order:
            node = self.solved.nodes[name]
            ends = [ref for ref in node.references if not ref.is_input and ref.node in found]
            reached = any(by_any_wire or (carries(self.solved.port_of(ref)) and node.component.arrays is not True) for ref in ends)
            if reached or owner(self.solved, name) in trained:
                found.add(name)
        return frozenset(found)

    def _refuse_untrained(self, losses: Mapping[str, tuple[Ref, float]], learners: frozenset[str], trained: Mapping[str, Tuning]) -> None:
        """A loss that nothing trained leads to by floating tensors."""
        joined = self._learners(frozenset(trained), self._order(), by_any_wire=True)
        for name, (ref, _) in losses.items():
            if ref.node in learners:
                continue
            node = self.solved.nodes[ref.node]
            if ref.node not in joined:
                found = f"no wire leads from what is trained ({choices(trained)}) to the loss {name}"
                hint = "train a node before it, or leave this loss out of the stage's `losses`"
                self.add("loss-untrained", found, place=node.place, hint=hint, node=ref.node)
                continue
            before = reach([ref.node], lambda one: self.solved.nodes[one].feeders)
            ends = [end for one in sorted(before) for end in self.solved.nodes[one].references if end.node in learners & before]
            blocked = [f"{end} is {self.solved.port_of(end)}" for end in ends if not carries(self.solved.port_of(end))]
            readers = [self.solved.nodes[one] for one in sorted(before) if self.solved.nodes[one].feeders & learners]
            blocked += [f"{node.name} computes with arrays of numpy" for node in readers if node.component.arrays is True]
            told = "; ".join(dict.fromkeys(blocked))
            found = f"no gradient comes back from the loss {name} to what is trained ({choices(trained)}): {told}"
            hint = "wire what is a floating tensor, such as logits or states, in place of what was chosen or written"
            self.add("no-gradient", found, place=node.place, hint=hint, node=ref.node)

    def _refuse_vain(self, trained: Mapping[str, Tuning], learners: frozenset[str], losses: Mapping[str, tuple[Ref, float]]) -> None:
        """What is to be trained, and no loss depends on."""
        ends = [ref.node for ref, _ in losses.values() if ref.node in learners]
        owners = {owner(self.solved, name) for name in self._leading(ends)}
        for name, tuning in trained.items():
            if name not in owners and ends:
                found = f"{name} is to be trained, and no loss of the stage depends on it by floating tensors"
                self.add(
                    "trained-in-vain",
                    found,
                    place=tuning.place,
                    hint="take it from `train`, or add a loss that reads what it gives",
                    node=name,
                )

    # -- data ------------------------------------------------------------------------------------------------------------

    def _columns(self, needed: frozenset[str], watched: Mapping[str, Ref], metrics: Mapping[str, Measured]) -> dict[str, str]:
        measured = [ref.node for one in metrics.values() for ref in (one.prediction, one.references) if isinstance(ref, Ref)]
        nodes = reach([*needed, *(ref.node for ref in watched.values()), *measured], lambda name: self.solved.nodes[name].feeders)
        read = sorted({ref.port for name in nodes for ref in self.solved.nodes[name].references if ref.is_input})
        given = self.stage.entries("columns") or {}
        for name, value in given.items():
            if name not in self.solved.inputs:
                found = f"columns names the input '{name}'; the graph has: {choices(self.solved.inputs)}"
                self.add("unknown-input", found, place=value.origin.place, hint=nearest(name, self.solved.inputs))
        columns = {name: str(given[name].value) if name in given else name for name in read}
        self._refuse_missing(columns, [one.references for one in metrics.values() if isinstance(one.references, str)])
        return columns

    def _refuse_missing(self, columns: Mapping[str, str], told: Sequence[str]) -> None:
        """Inputs that no column of the data gives, where the data is at hand and names its columns."""
        data = self.stage.values.get("data")
        path = data_file(data, self.solved.graph) if data is not None else None
        there = columns_in(path) if path is not None else None
        if path is None or there is None:
            return
        where = path.name if path.suffix.lower() in TABLE_ENDINGS else f"the first record of {path.name}"
        for name, column in columns.items():
            given = self.solved.inputs[name]
            if column not in there and not given.has_default and not given.port.optional:
                found = f"no column gives the input '{name}': {where} has no column '{column}'; it has: {choices(there)}"
                hint = f"write columns: {{{name}: COLUMN}}. {nearest(column, there)}".rstrip()
                self.add("missing-column", found, place=self.stage.origin("data").place, hint=hint)
        for column in told:
            if column not in there:
                found = f"no column gives the references '{column}' of a metric: {where} has: {choices(there)}"
                self.add("missing-column", found, place=self.stage.origin("metrics").place, hint=nearest(column, there))


def _is_other(axes: tuple[Axis | None, ...]) -> bool:
    return bool(axes) and (axes[0] is None or axes[0].symbol != "batch")


def _grafts(node: Node) -> bool:
    """Whether something is grafted into a node that learns: an adapter may say that it stays as it is."""
    return any(not isinstance(one.config, TrainsParts) or one.config.trained_parameters() != 0 for one in node.adapters)
