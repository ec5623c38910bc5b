"""What a suite is: what it asks a graph, what it reads of it, and how answers become scores. Light to import.

A plugin offers suites by a hook of this plugin, which core knows nothing of; `optionalhook` lets it stand where this one is missing:

    @hookimpl(optionalhook=True)
    def register_suites(register):
        register("rhymes", "my_plugin.rhymes:Rhymes")     # a subclass of Suite, in a module that is light to import
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from modelgraft.plugin import Config, InputError

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedGraph
    from modelgraft_plugins.evaluating.running import Runs

Note = Callable[[str], None]
Plain = Any  # a value as JSON has it: a text, a number, a list or a mapping of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Something that a suite gives to a graph, or reads of it.

    type       a port type, such as "image", or the alternatives that will do, such as "text | label"
    names      what graphs call it, the likeliest first; its own name comes before them
    is_needed  a graph without it does not fit; else what is given is left out, and what is read is missing
    doc        what it is, in a few words
    """

    type: str
    names: tuple[str, ...] = ()
    is_needed: bool = True
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One record that a graph is asked.

    id      tells it from the others of the data
    place   where it stands, such as "dev.tsv:12"
    inputs  by the names of `Suite.gives`
    facts   all that the report needs beside the answer, such as the right one: kept in the file of predictions, so no pictures
    group   items that stand or fall together, such as the copies of a question: `--limit` counts groups; "": it stands alone
    error   why it is no record; "" when it is one
    """

    id: str
    place: str
    inputs: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever goes into the ports
    facts: Mapping[str, Plain] = field(default_factory=dict)
    group: str = ""
    error: str = ""

    @property
    def stands_with(self) -> str:
        """What its group is called: by its id where it stands alone."""
        return self.group or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The data of a suite.

    files   what it was read from, which no output may replace
    digest  tells its content apart from that of others
    items   gives the records from the first one on, as often as it is called
    groups  the group of each record in their order (its id, where it stands alone): how many there are is told from it while
            the graph runs; None where that is not known without reading them all
    """

    files: tuple[Path, ...]
    digest: str
    items: Callable[[], Iterator[Item]]
    groups: Sequence[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a graph answered to an item, as the file of predictions has it.

    outputs  by the names of `Suite.takes`, as plain values; empty when the record failed
    error    why there is no answer; "" when there is one
    """

    id: str
    facts: Mapping[str, Plain]
    outputs: Mapping[str, Plain] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A figure of a report.

    metric     what it is, such as "CircularEval accuracy";  group  of what, such as "category ocr"; "" for all
    low, high  the ends of its 95 % interval; None where there is none
    n          how many records or questions it is made of
    unit       "%" is shown as a percentage of a value in [0, 1]
    """

    metric: str
    value: float
    group: str = ""
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a suite.

    scores  the first is the headline
    counts  by name, such as {"questions": 40, "unreadable answers": 2}
    notes   what a reader must know of the scores
    rows    one for each record or question, for who wants to look: written to rows.jsonl
    """

    scores: Sequence[Score]
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    rows: Sequence[Mapping[str, Plain]] = ()


class Suite:
    """An evaluation suite. Subclass it; the first line of the docstring is what `modelgraft eval` prints of it.

    gives     what every record holds for the graph, by name;  takes  what is read of the graph, by name
    Settings  the options of the suite: each field is an option of `modelgraft eval SUITE`, and is recorded with the results
    version   goes up when the same answers get other scores, or records other prompts: predictions of before are then not resumed
    """

    gives: ClassVar[Mapping[str, Field]] = {}
    takes: ClassVar[Mapping[str, Field]] = {}
    Settings: ClassVar[type[Config]] = Config
    version: ClassVar[int] = 1

    def __init__(self, settings: Config) -> None:
        self.settings = settings

    @classmethod
    def suggest(cls, graph: SolvedGraph) -> Mapping[str, Plain]:  # noqa: ARG003 for who looks at it
        """Settings that suit a graph, such as a prompt of the family of its parts; what the user sets goes over them."""
        return {}

    def ports(self) -> tuple[Mapping[str, Field], Mapping[str, Field]]:
        """What is given and taken under these settings."""
        return self.gives, self.takes

    def more_ports(self) -> tuple[Mapping[str, Field], Mapping[str, Field]]:
        """What `settle` gives the same graph once more, and reads of it, by `runs.again`; `--input` and `--output` name these too."""
        return {}, {}

    def params(self, graph: SolvedGraph) -> Mapping[str, Plain]:  # noqa: ARG002 for who sets something
        """What must be set of a graph, as `--set` does, so that it answers this suite. Raises InputError for a graph that cannot."""
        return {}

    def asking(self) -> Mapping[str, Plain]:
        """The settings that decide what the graph is asked: predictions under others are not resumed. All, unless overridden."""
        return self.settings.model_dump(mode="json")

    def open(self, data: str, *, note: Note) -> Data:
        """Look at the data by their name, and say what a person must know of them. Raises InputError for what cannot be read."""
        raise NotImplementedError

    def prepare(self, runs: Runs) -> None:
        """Look at what `settle` will need, such as a judge by `runs.prove`, before anything runs. Raises what is wrong with it."""

    def settle(self, answers: Sequence[Answer], runs: Runs) -> Sequence[Answer]:  # noqa: ARG002 for who asks other graphs
        """Do what is to be done between the answers and the report, such as asking a judge by `runs.ask`."""
        return answers

    def report(self, answers: Sequence[Answer]) -> Report:
        """Make scores of the answers. Those with an error are counted by the caller, and must lower or leave no score in silence."""
        raise NotImplementedError

    def submit(self, answers: Sequence[Answer], folder: Path, *, note: Note) -> Sequence[Path]:  # noqa: ARG002 for who writes some
        """Write what a server that keeps the right answers takes; gives the files."""
        return ()


def refuse_empty(data: str, count: int) -> None:
    """Raise InputError for data without a record."""
    if not count:
        raise InputError(f"the data '{data}' hold no record")
