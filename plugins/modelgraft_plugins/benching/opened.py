"""A graph that a host has opened, whole or behind what it shares with others, and the inputs of its runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import modelgraft as mg
from modelgraft.commands import at_command_line, size_bytes, with_given

MOST_GIVEN, MOST_GIVEN_BYTES = 4, 256 << 20  # batches of shared values that are kept: always so many, more while they are small

Columns = Mapping[str, Any]  # of a record


def open_graph(facts: Mapping[str, Any], *, given: Sequence[str] = (), wanted: Sequence[str] | None = None) -> mg.Pipeline:
    """Open a graph, or what is left of it for the wanted outputs where the results of some nodes are given.

    facts  `graph`, `params` and `allow` as `modelgraft.load` takes them, and `opening` as `modelgraft.open` does
    """
    loaded = mg.load(facts["graph"], params=facts["params"], allow=facts["allow"])
    options = _heeded(loaded, facts["opening"])
    is_whole = wanted is None and not given
    with at_command_line():
        return mg.open(loaded if is_whole else with_given(mg.check(loaded), given, wanted=wanted), **options)


def _heeded(graph: mg.Graph, opening: Mapping[str, Any]) -> dict[str, Any]:
    """The options of opening, without threads where no backend gives nodes their own: those of the process are what it has."""
    options = {name: value for name, value in opening.items() if value is not None}
    if "threads" in options:
        placing = {name: options[name] for name in ("backend", "device", "precision") if name in options}
        cards = graph.spec.registry.backends
        used = {step.backend for step in mg.plan(graph, **placing).steps}
        if not any(name in cards and "threads" in cards[name].heeds for name in used):
            del options["threads"]
    return options


@dataclass(slots=True)
class Giver:
    """Computes what cells share, once for each batch that they run, and never by the clock.

    ports  what it gives, as "node.port";  kept  by the numbers of the records, the last ones that were asked for
    """

    pipeline: mg.Pipeline
    ports: Sequence[str]
    kept: OrderedDict[tuple[int, ...], dict[str, Any]] = field(default_factory=OrderedDict)

    def given(self, places: Sequence[int], records: Sequence[Columns]) -> dict[str, Any]:
        """The values of the ports for some records. Raises as a run does."""
        key = tuple(places)
        if key not in self.kept:
            result = self.pipeline.run(**_taken(self.pipeline, records))
            self.kept[key] = {port: result[port] for port in self.ports}
            while len(self.kept) > MOST_GIVEN and sum(size_bytes(one) or 0 for one in self.kept.values()) > MOST_GIVEN_BYTES:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


@dataclass(slots=True)
class Opened:
    """A pipeline.

    wanted    the outputs that are asked for;  counting  those that tell how many tokens were written, by the node that writes
    giver     what computes the nodes that it shares with others; None where it is whole
    """

    pipeline: mg.Pipeline
    wanted: list[str]
    counting: dict[str, str] = field(default_factory=dict)
    giver: Giver | None = None

    def inputs(self, places: Sequence[int], records: Sequence[Columns]) -> dict[str, Any]:
        """The inputs of a run of some records as one batch, with what is given to it."""
        given = {} if self.giver is None else self.giver.given(places, records)
        known = self.pipeline.plan.graph.inputs
        return _taken(self.pipeline, records) | {name: value for name, value in given.items() if name in known}

    def alone(self, place: int, record: Columns) -> dict[str, Any] | mg.ModelgraftError:
        """The inputs of a record; an error where what is given to it cannot be computed."""
        try:
            return self.inputs([place], [record])
        except (mg.NodeError, mg.InputError) as error:
            return error


def _taken(pipeline: mg.Pipeline, records: Sequence[Columns]) -> dict[str, Any]:
    """Of the columns of records those that are inputs: of one record its values, of more lists of them."""
    names = [name for name in pipeline.plan.graph.inputs if any(name in record for record in records)]
    if len(records) == 1:
        return {name: records[0][name] for name in names}
    return {name: [record.get(name) for record in records] for name in names}
