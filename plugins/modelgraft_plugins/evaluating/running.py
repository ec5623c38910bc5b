"""Records through a graph into a file of predictions, as `modelgraft map` does it, and the predictions read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import modelgraft as mg
from modelgraft.commands import (
    DataRow,
    Dataset,
    Opening,
    Placing,
    given_in,
    job_of,
    map_rows,
    opened,
    refuse_for_graph,
    work_files,
    writing,
)
from modelgraft.plugin import InputError, SolvedGraph
from modelgraft_plugins.evaluating.fitting import Fit, fit
from modelgraft_plugins.evaluating.suites import Answer, Data, Field, Item

if TYPE_CHECKING:
    from modelgraft.commands import CliSession

T = TypeVar("T")
ID, FACTS = "id", "facts"  # the columns of a row of predictions beside the outputs of the graph


@dataclass(frozen=True, slots=True)
class Again:
    """The graph that is evaluated, to be asked once more: None where only a report is made;  how  it is joined then."""

    solved: SolvedGraph | None
    how: Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What runs graphs for a suite: the graph that is evaluated, and others that the suite asks, such as a judge.

    folder          where the files of predictions lie
    is_resumed      go on after what a stopped run has left there
    is_report_only  run nothing: what was answered before is read
    same            the graph that is evaluated, for `again`
    """

    session: CliSession
    folder: Path
    opening: Opening
    batch_size: int = 8
    is_resumed: bool = False
    is_report_only: bool = False
    same: Again | None = None

    def again(self, name: str, items: Sequence[Item]) -> list[Answer]:
        """Ask the graph that is evaluated once more, as `Suite.more_ports` says; its answers are kept in NAME.jsonl."""
        assert self.same is not None, "settle is called with it"
        if self.same.solved is None:
            return read_answers(self.folder / f"{name}.jsonl", self.same.how.outputs)
        return self.over(name, self.same.solved, self.same.how, _data_of(items), meaning=[name])

    def ask(
        self,
        name: str,
        graph: str,
        items: Sequence[Item],
        *,
        gives: Mapping[str, Field],
        takes: Mapping[str, Field],
        seed: int | None = None,
    ) -> list[Answer]:
        """Ask another graph, by its name or file; its answers are kept in NAME.jsonl.

        Raises GraphError when it has problems or does not fit.
        """
        solved, how = self.prove(graph, gives=gives, takes=takes)
        if self.is_report_only:
            return read_answers(self.folder / f"{name}.jsonl", how.outputs)
        asking = self if seed is None else replace(self, opening=replace(self.opening, seed=seed))
        return asking.over(name, solved, how, _data_of(items), meaning=[name])

    def prove(self, graph: str, *, gives: Mapping[str, Field], takes: Mapping[str, Field]) -> tuple[SolvedGraph, Fit]:
        """Another graph, and how it is joined. Raises GraphError when it has problems or does not fit."""
        solved = mg.check(self.session.load(graph), offline=self.session.offline)
        return solved, fit(solved, gives, takes)

    def over(self, name: str, solved: SolvedGraph, how: Fit, data: Data, *, meaning: object, limit: int | None = None) -> list[Answer]:
        """Run a graph over the items, and give the answers.

        meaning  what else decides the predictions: those of another meaning are not resumed
        """
        out = self.folder / f"{name}.jsonl"
        for file in work_files(out):
            refuse_for_graph(file, solved, dict.fromkeys(data.files, "the data"))
        plan = mg.plan(solved, wanted=how.wanted, **given_in(self.opening, Placing))
        asked = digest_of([meaning, sorted(how.inputs.items()), limit])
        job = job_of(plan, data=data.digest, seed=self.opening.seed, init=self.opening.init, asked=asked)
        dataset = Dataset(data.files, lambda: _rows(limited(data.items(), limit), how), data.digest, lambda: count_of(data, limit))
        with writing(out, job, is_resumed=self.is_resumed) as shard:
            if shard.told:
                self.session.screen.note(shard.told)
            if shard.is_finished or shard.done:
                self.session.screen.note(f"{name}: {shard.done} records were done before")
            if not shard.is_finished:
                with opened(self.session, solved, opening=self.opening) as pipeline:
                    map_rows(pipeline, dataset, shard, outputs=how.wanted, batch_size=self.batch_size, session=self.session)
        return read_answers(out, how.outputs)


def _data_of(items: Sequence[Item]) -> Data:
    """Data of items that are at hand."""
    digest = digest_of([(item.id, sorted(item.inputs.items())) for item in items])
    return Data(files=(), digest=digest, items=lambda: iter(items), groups=[item.stands_with for item in items])


def limited(items: Iterable[Item], limit: int | None) -> Iterator[Item]:
    """The items of the first groups; all of them without a limit. The members of a group may lie far from each other."""
    return _of_first(items, limit, lambda item: item.stands_with)


def count_of(data: Data, limit: int | None) -> int | None:
    """How many items `limited` gives; None where that is not known without reading them."""
    return None if data.groups is None else sum(1 for _ in _of_first(data.groups, limit, str))


def _of_first(items: Iterable[T], limit: int | None, group_of: Callable[[T], str]) -> Iterator[T]:
    groups = set[str]()
    for item in items:
        group = group_of(item)
        if group in groups or limit is None or len(groups) < limit:
            groups.add(group)
            yield item


def _rows(items: Iterable[Item], how: Fit) -> Iterator[DataRow]:
    for item in items:
        kept = {ID: item.id, FACTS: dict(item.facts)}
        yield DataRow(item.place, None, how.record(item.inputs), kept, item.error)


def read_answers(out: Path, outputs: Mapping[str, str]) -> list[Answer]:
    """The predictions in a file. Raises InputError for one that is not there or holds something else."""
    try:
        lines = out.read_text(encoding="utf-8").splitlines()
        return [_answer(json.loads(line), outputs) for line in lines]
    except OSError as error:
        raise InputError(f"the predictions '{out}' cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the predictions '{out}' hold a row that is none: {error}; make them anew") from error


def _answer(row: Mapping[str, Any], outputs: Mapping[str, str]) -> Answer:
    taken = set(outputs.values())
    mine = {column: row[_free(column, taken)] for column in (ID, FACTS)}
    if "error" in row:
        return Answer(id=str(mine[ID]), facts=mine[FACTS], error=str(row["error"]))
    absent = [name for name in outputs.values() if name in row.get("absent", ())]
    error = f"{mine[ID]}: the graph left out {', '.join(absent)}: the record went another way" if absent else ""
    found = {} if error else {name: row[output] for name, output in outputs.items()}
    return Answer(id=str(mine[ID]), facts=mine[FACTS], outputs=found, error=error)


def _free(column: str, taken: set[str]) -> str:
    """What a column is called beside an output of the same name: see `map`."""
    while column in taken:
        column = f"data.{column}"
    return column


def digest_of(value: object) -> str:
    """A digest of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()
