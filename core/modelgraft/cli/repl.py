"""`modelgraft repl GRAPH`: one warm process for many records. What costs time, imports and weights, is paid once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft.cli.given import GivenInputs
from modelgraft.cli.lines import LineTaker, take_lines
from modelgraft.cli.overwriting import refuse_for_graph
from modelgraft.cli.running import run_document, run_watched
from modelgraft.cli.written import Targets, absences, read_targets, say_outputs, write_outputs
from modelgraft.data.naming import takes_files
from modelgraft.engine.outputs import as_they_lie
from modelgraft.kernel.words.errors import InputError, choices, nearest
from modelgraft.kernel.words.ports import Modality
from modelgraft.records.record_type import types_of

if TYPE_CHECKING:
    from modelgraft.cli.session import CliSession
    from modelgraft.engine.pipeline import Pipeline
    from modelgraft.engine.result import Result
    from modelgraft.kernel.words.graph import GraphInput, SolvedGraph
    from modelgraft.records.record_type import Types

# What a line may begin with, and what each is for.
COMMANDS: Mapping[str, str] = {
    "/help": "this text",
    "/inputs": "the inputs of the graph, and what is set",
    "/set NAME=VALUE": "keep a value for the records that follow; /unset NAME lets go of it",
    "/output NAME ...": "what is wanted from here on: outputs, or any port as node.port; alone: all outputs of the graph",
    "/seed N": "the seed from here on",
    "/save NAME=FILE": "write an output of the last record into a file",
    "/quit": "leave, as the end of the input does",
}
NAMES = ("/help", "/inputs", "/set", "/unset", "/output", "/seed", "/save", "/quit")


@dataclass
class Repl(LineTaker):
    """What holds from one line to the next.

    kept    the words of inputs that `/set` keeps
    last    the result of the last record that ran
    failed  how many lines could not be done
    """

    session: CliSession
    pipeline: Pipeline
    solved: SolvedGraph
    wanted: tuple[str, ...] | None
    is_json: bool
    seed: int | None = None
    kept: dict[str, str] = field(default_factory=dict)
    last: Result | None = None
    failed: int = 0
    is_over: bool = False

    @property
    def types(self) -> Types:
        """The record types that there are."""
        return types_of(self.solved.graph.registry)

    def do(self, line: str) -> None:
        """Do a command, or run the graph on a record."""
        if line.startswith("/") and not self._is_path(line):
            self._command(line)
        elif line:
            self._record(line)

    # -- records --------------------------------------------------------------------------------------------------------

    def _record(self, line: str) -> None:
        words = self._words(line)
        reading = GivenInputs(self.solved.inputs, note=self.session.screen.note, stdin=False, types=self.types)
        names = {name for name, _ in words}
        given = reading.read([*((name, word) for name, word in self.kept.items() if name not in names), *words])
        start = time.perf_counter()
        self.last = run_watched(self.session, self.pipeline, self.wanted, given, seed=self.seed)
        if self.is_json:
            self.document(run_document(self.solved, self.last, {}, seconds=time.perf_counter() - start))
        else:
            outputs = as_they_lie(self.last.outputs)
            for text in absences(outputs, Targets(self.wanted, {})):
                self.session.screen.note(text)
            say_outputs(outputs, {}, self.session.screen)
            self.session.screen.flush()

    def _words(self, line: str) -> list[tuple[str, str]]:
        """Cut a line into values of inputs. Each reaches to the next `NAME=`; a line without one is the value that is missing."""
        names = "|".join(map(re.escape, self.solved.inputs))
        marks = list(re.finditer(rf"(?:^|(?<=\s))({names})=", line)) if names else []
        if marks and marks[0].start() == 0:
            ends = [*(mark.start() for mark in marks[1:]), len(line)]
            return [(mark[1], _unquoted(line[mark.end() : end].strip())) for mark, end in zip(marks, ends, strict=True)]
        first = re.match(r"(\w+)=", line)
        meant = nearest(first[1], self.solved.inputs) if first else ""
        name = self._bare()
        if name is None or meant:
            found = f"the graph has no input '{first[1]}'" if first else "the line does not say which input it is"
            example = " ".join(f"{item}=..." for item in self.solved.inputs)
            raise InputError(f"{found}; write {example}. {meant}".rstrip())
        return [(name, _unquoted(line))]

    def _bare(self) -> str | None:
        """The input that a line without a name is for: the only one that is missing, else the only text."""
        inputs = {name: item for name, item in self.solved.inputs.items() if name not in self.kept}
        missing = [name for name, item in inputs.items() if not item.has_default and not item.port.optional]
        texts = [name for name, item in inputs.items() if _is_spoken(item, self.types)]
        found = missing or texts
        return found[0] if len(found) == 1 else None

    def _is_path(self, line: str) -> bool:
        """Whether a line that begins with `/` is a file, where a file is missing."""
        name = self._bare()
        is_missing = name is not None and takes_files(self.solved.inputs[name].port, self.types)
        return is_missing and ("/" in line.split(maxsplit=1)[0][1:] or Path(line).is_file())

    # -- commands -------------------------------------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        doing: Mapping[str, Callable[[str], None]] = {
            "/help": self._help,
            "/inputs": self._inputs,
            "/set": self._set,
            "/unset": self._unset,
            "/output": self._output,
            "/seed": self._seed,
            "/save": self._save,
            "/quit": self._quit,
        }
        if name not in doing:
            raise InputError(f"there is no '{name}'; there is: {', '.join(NAMES)}. {nearest(name, NAMES)}".rstrip())
        doing[name](rest.strip())

    def _help(self, _rest: str) -> None:
        note = self.session.screen.note
        note(f"A line is a record: {self._example()}")
        note("A value is what --input takes: a file, a text, @FILE, a pattern; it reaches to the next NAME=, and may be quoted.")
        for command, about in COMMANDS.items():
            note(f"  {command:<18}{about}")

    def _example(self) -> str:
        named = " ".join(f"{item.name}=<{item.port}>" for item in self.solved.inputs.values())
        bare = self._bare()
        return f"{named}{f', or the {bare} alone' if bare is not None else ''}"

    def _inputs(self, _rest: str) -> None:
        for name, item in self.solved.inputs.items():
            default = f", {item.default!r} when it is left out" if item.has_default else ""
            self.session.screen.note(f"  {name}: {item.port}{default}{f'; set to {self.kept[name]}' if name in self.kept else ''}")

    def _set(self, rest: str) -> None:
        words = self._words(rest) if "=" in rest else []
        if not words:
            raise InputError("/set takes NAME=VALUE")
        GivenInputs(self.solved.inputs, note=self.session.screen.note, stdin=False, types=self.types).read(words)
        self.kept.update(words)

    def _unset(self, rest: str) -> None:
        if rest not in self.kept:
            raise InputError(f"'{rest}' is not set; set is: {choices(self.kept)}")
        del self.kept[rest]

    def _output(self, rest: str) -> None:
        self.wanted = read_targets(rest.split(), self.solved).wanted

    def _seed(self, rest: str) -> None:
        if not re.fullmatch(r"-?\d{1,18}", rest):
            raise InputError(f"/seed takes a whole number, found '{rest}'")
        self.seed = int(rest)

    def _save(self, rest: str) -> None:
        name, _, file = rest.partition("=")
        if self.last is None or name not in self.last.outputs or not file:
            there = choices(self.last.outputs) if self.last is not None else "none yet"
            raise InputError(f"/save takes NAME=FILE with an output of the last record; there is: {there}")
        targets = read_targets([f"{name}={_unquoted(file)}"], self.solved)
        for path in targets.files.values():
            refuse_for_graph(path, self.solved, numbered=True)
        files = write_outputs(as_they_lie(self.last.outputs), targets, say=self.session.screen.note)
        for text in absences({name: self.last.outputs[name]}, targets):
            self.session.screen.note(text)
        if name in files:
            self.session.screen.note(f"wrote {name} to {', '.join(files[name])}")

    def _quit(self, _rest: str) -> None:
        self.is_over = True


def talk(repl: Repl) -> int:
    """Take lines until they end: see `take_lines`."""
    return take_lines(
        repl,
        greeting=f"{repl.solved.name}: a line is a record, {repl._example()}. /help says more.",
        stopped="stopped; /quit leaves",
        commands=NAMES,
        inputs=repl.solved.inputs,
    )


def _is_spoken(item: GraphInput, types: Types) -> bool:
    return any(isinstance(kind, Modality) and types[kind.name].is_spoken for kind in item.port.types)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
