"""What can go wrong, and how it is said.

ModelgraftError                 anything this package raises on purpose
├── GraphError                  before the run: carries every problem of one phase
│   ├── DocumentError           a file that cannot be read as a graph document
│   └── SourceError             weights or configs that cannot be found, read or trusted
├── InputError                  a value given by the user: a picture, a sound, a flag, an output path; of a run, with its node
├── NodeError                   during the run: carries the node, the cause and the outputs that were ready
│   ├── NodeTimeout             a node took longer than its limit
│   └── Cancelled               the run was stopped by the caller
└── PluginError                 a plugin that cannot be loaded or breaks its contract

ModelgraftWarning               what works, but not as one may expect (a UserWarning of Python)

A traceback that reaches a user is a defect: the command line prints the message of these and nothing else. An option that a
message names (`modelgraft.kernel.words.wording`) is worded for Python in `str(error)` and in `problems`; `unworded` and `noted` hold
what was written, for who puts it into another message, and for the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelgraft.kernel.words.wording import for_python, is_marked


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a file and a line (1-based), or only a description such as `--set`."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def short(self) -> str:
        """The file's name without its folders, and the line."""
        if is_marked(self.file):
            return self.file
        name = Path(self.file).name or self.file
        return name if self.line is None else f"{name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what was found where, and a way out.

    code    a slug with a heading in docs/problem-codes.md, such as `dim-mismatch`
    found   one sentence: what was found, what was wanted, and where each comes from
    hint    what to do about it; empty when the sentence says it already
    node    the node it is about, port the port; empty when it is about the whole document
    """

    code: str
    found: str
    place: Place | None = None
    hint: str = ""
    node: str = ""
    port: str = ""

    def __str__(self) -> str:
        return for_python(self.unworded)

    @property
    def unworded(self) -> str:
        """The whole as text, with its options marked."""
        head = f"{self.place.short}  {self.code}  {self.found}" if self.place else f"{self.code}  {self.found}"
        lines = [head, *(f"    {line}" for line in self.hint.splitlines())]
        return "\n".join(lines)

    def for_python(self) -> Problem:
        """The same with its options as Python has them."""
        place = replace(self.place, file=for_python(self.place.file)) if self.place else None
        return replace(self, found=for_python(self.found), hint=for_python(self.hint), place=place)

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return {
            "code": self.code,
            "file": self.place.file if self.place else None,
            "line": self.place.line if self.place else None,
            "node": self.node or None,
            "port": self.port or None,
            "message": self.found,
            "hint": self.hint or None,
        }


class ModelgraftError(Exception):
    """Anything this package raises on purpose."""

    @property
    def unworded(self) -> str:
        """The message as it was written, with its options marked."""
        return super().__str__()

    def __str__(self) -> str:
        return for_python(self.unworded)


class ModelgraftWarning(UserWarning):
    """What works, but not as one may expect: told once for each pipeline, when its nodes are loaded."""


class GraphError(ModelgraftError):
    """The graph cannot run: every problem of the phase that failed, in the order of the file.

    problems  worded for Python;  noted  as they were written
    """

    def __init__(self, problems: Iterable[Problem] | Problem) -> None:
        self.noted: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(problem.unworded for problem in self.noted))

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Every problem, worded for Python."""
        return tuple(problem.for_python() for problem in self.noted)


class DocumentError(GraphError):
    """A file that cannot be read as a graph document."""


class SourceError(GraphError):
    """Weights or a config that cannot be found, read or trusted."""


class InputError(ModelgraftError):
    """A value given by the user does not fit: says which, what was found, what was wanted and a way out.

    node     the node that refused it while the graph ran, `component` what runs there and `place` where it stands in the graph;
             empty and None before
    outputs  what was ready then, by `node.port`
    """

    def __init__(
        self, message: str, *, node: str = "", component: str = "", place: Place | None = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        self.node, self.component, self.place = node, component, place
        self.outputs: Mapping[str, Any] = {} if outputs is None else outputs
        super().__init__(message)


class PluginError(ModelgraftError):
    """A plugin cannot be loaded, or breaks its own declaration."""


class NodeError(ModelgraftError):
    """A node failed while the graph ran.

    node      name of the node;  component  id of what runs there
    outputs   what was ready when it failed, by `node.port`
    """

    def __init__(self, message: str, *, node: str, component: str = "", outputs: Mapping[str, Any] | None = None) -> None:
        self.node, self.component = node, component
        self.outputs: Mapping[str, Any] = {} if outputs is None else outputs
        super().__init__(message)


class NodeTimeout(NodeError):
    """A node took longer than its limit."""


class Cancelled(NodeError):
    """The run was stopped by the caller, by Ctrl-C or because a sibling failed."""


def where_of(error: BaseException) -> dict[str, str]:
    """Where in a graph an error happened, as far as it says: node, component, place."""
    if not isinstance(error, NodeError | InputError):
        return {}
    place = str(error.place) if isinstance(error, InputError) and error.place is not None else ""
    found = {"node": error.node, "component": error.component, "place": place}
    return {name: value for name, value in found.items() if value}


def nearest(name: str, options: Iterable[str], *, before: str = "") -> str:
    """Return "Did you mean 'x'?" for the closest of the options, or ""; before: what it is written behind, as a folder."""
    import difflib

    close = difflib.get_close_matches(name, sorted(options), n=1, cutoff=0.6)
    return f"Did you mean '{before}{close[0]}'?" if close else ""


def choices(options: Iterable[str], *, most: int = 12, sort: bool = True) -> str:
    """List names for a message: `a, b, c`, shortened after `most`, or `none`."""
    names = sorted(options) if sort else list(options)
    shown = ", ".join(names[:most])
    return (shown + f", ... ({len(names)} in all)" if len(names) > most else shown) or "none"


def raise_if_any(problems: Sequence[Problem], kind: type[GraphError] = GraphError) -> None:
    """Raise one GraphError with all the problems of a phase, each once, in the order of the file; nothing when there are none."""
    if problems:
        raise kind(sorted(dict.fromkeys(problems), key=lambda problem: (reading_order(problem.place), problem.code, problem.found)))


def reading_order(place: Place | None) -> tuple[str, int, int]:
    """What sorts places as a person reads them: by file, line and column."""
    place = place or Place("")
    return place.file, place.line or 0, place.column or 0


@dataclass(slots=True)
class Collector:
    """Gathers the problems of one phase."""

    problems: list[Problem] = field(default_factory=list)

    def add(self, code: str, found: str, *, place: Place | None = None, hint: str = "", node: str = "", port: str = "") -> None:
        """Note one problem."""
        self.problems.append(Problem(code, found, place, hint, node, port))

    def finish(self) -> None:
        """Raise what was gathered, if anything was."""
        raise_if_any(self.problems)
