"""A graph that answers and judges questions, all of a task at once. Imports nothing of lmms-eval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import modelgraft as mg
from modelgraft.commands import Opening, judging
from modelgraft_lmms_eval.fitting import Fit, Message, fit, is_interleaved, record
from modelgraft_lmms_eval.writing import settings

OPENING = {option.name for option in fields(Opening)} - {"timings", "trace", "debug"}  # options of `modelgraft.open`, such as device
ERRORS = ("stop", "empty")


@dataclass(frozen=True, slots=True)
class Question:
    """What a graph is asked.

    place     where it comes from, such as "mmbench 17", for messages
    messages  gives what it says; called when its turn comes, so that few pictures are in memory at once
    """

    place: str
    messages: Callable[[], Sequence[Message]]


@dataclass(frozen=True, slots=True)
class Said:
    """An answer. tokens: how many were written; None where nothing counts them."""

    text: str
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Likely:
    """How likely a text is behind a question.

    total      its log-probability;  tokens  how many it is made of
    is_greedy  whether greedy writing gives it
    """

    total: float
    tokens: int
    is_greedy: bool


class Answering:
    """A graph, checked, joined with questions, and opened with what each task wants of it."""

    def __init__(
        self,
        graph: str,
        *,
        params: Mapping[str, Any] | None = None,
        opening: Mapping[str, Any] | None = None,
        prompt: str | None = None,
        output: str | None = None,
        batch_size: int = 1,
        errors: str = "stop",
        tell: Callable[[str], None] = print,
    ) -> None:
        """Check that the graph fits.

        graph    a file, or the name of a shipped one;  params  what is set of it, as `modelgraft run --set` does
        opening  options of `modelgraft.open`;  prompt, output  see `fit`
        errors   of a question that fails: "stop" raises, "empty" takes "" for its answer, and tells it
        tell     takes what a user must know

        Raises GraphError and InputError: nothing has been loaded then.
        """
        if errors not in ERRORS:
            raise mg.InputError(f"errors={errors}; wanted: {' or '.join(ERRORS)}")
        if batch_size < 1:
            raise mg.InputError(f"batch_size is {batch_size}; wanted: at least 1")
        self.graph, self.params, self.opening = graph, dict(params or {}), dict(opening or {})
        self.batch_size, self.errors, self.tell = batch_size, errors, tell
        self.solved = mg.check(mg.load(graph, params=self.params))
        self.fit: Fit = fit(self.solved, prompt=prompt, output=output)

    def answer(self, questions: Sequence[Question], asked: Mapping[str, Any], *, task: str) -> list[Said]:
        """Answer the questions of a task.

        asked  its generation_kwargs

        Raises InputError for a question that does not fit, and for the first that fails, unless errors are empty answers.
        """
        chosen, left = settings(asked, self.solved, self.fit)
        for sentence in left:
            self.tell(f"{task}: {sentence}")
        self._look(questions, task)
        counted = f"{self.fit.writer}.ids" if self.fit.writer else ""
        outputs = [self.fit.output, *([counted] if counted else [])]
        said: list[Said] = []
        with self._open({**self.params, **chosen}) as pipeline:
            for result in self._results(pipeline, questions, outputs):
                ids = result[counted] if result is not None and counted else None
                text = "" if result is None else str(result[self.fit.output])
                said.append(Said(text, None if ids is None else int((ids >= 0).sum())))
        return said

    def judge(self, questions: Sequence[Question], texts: Sequence[Sequence[str]], *, task: str) -> list[list[Likely]]:
        """How likely each of some texts is behind each question.

        Raises as `answer` does, and InputError for a graph that has no language model to ask.
        """
        self._look(questions, task)
        asking = judging(self.solved)
        ids = f"{asking['outputs.likelihoods'].rpartition('.')[0]}.continuation_ids"
        found: list[list[Likely]] = []
        with self._open({**self.params, **asking}) as pipeline:
            for result, some in zip(self._results(pipeline, questions, ["likelihoods", "greedy", ids], texts), texts, strict=True):
                if result is None:
                    found.append([Likely(float("-inf"), 1, is_greedy=False)] * len(some))
                    continue
                figures = (result["likelihoods"].flatten(), (result[ids] >= 0).sum(-1).flatten(), result["greedy"].flatten())
                rows = list(zip(*(figure.tolist() for figure in figures), strict=True))  # a record of few texts is filled up
                found.append([Likely(*row) for row in rows[: len(some)]])
        return found

    @contextmanager
    def _open(self, params: Mapping[str, Any]) -> Iterator[mg.Pipeline]:
        with mg.open(mg.load(self.graph, params=params), **self.opening) as pipeline:
            yield pipeline

    def _results(
        self, pipeline: mg.Pipeline, questions: Sequence[Question], outputs: Sequence[str], texts: Sequence[Sequence[str]] | None = None
    ) -> Iterator[mg.Result | None]:
        """The results of all questions, in order; None for one that failed and counts as empty."""
        failed: list[str] = []
        for number, result in enumerate(pipeline.map(self._records(questions, texts), batch_size=self.batch_size, outputs=outputs)):
            error = result.error or _left_out(result, outputs)
            if error is None:
                yield result
                continue
            failed.append(f"{questions[number].place}: {error}")
            if self.errors == "stop":
                raise mg.InputError(f"{failed[0]}; errors=empty takes an empty answer for such questions, and goes on") from error
            yield None
        if failed:
            self.tell(f"{len(failed)} of {len(questions)} questions failed, and count as empty answers: " + "; ".join(failed[:5]))

    def _records(self, questions: Sequence[Question], texts: Sequence[Sequence[str]] | None) -> Iterator[Any]:
        """A record for each question, or the error of one that does not fit, which `map` hands through."""
        for number, question in enumerate(questions):
            try:
                made = record(question.messages(), self.fit)
            except mg.InputError as error:
                yield error
                continue
            yield made if texts is None else {**made, "continuations": list(texts[number])}

    def _look(self, questions: Sequence[Question], task: str) -> None:
        """Raise InputError before anything is loaded, if the first question of a task does not fit."""
        if not questions:
            return
        messages = questions[0].messages()
        try:
            record(messages, self.fit)
        except mg.InputError as error:
            raise mg.InputError(f"{questions[0].place}: {error}") from error
        if not self.fit.is_talk and is_interleaved(messages):
            self.tell(f"{task}: words stand before a picture, a sound or a film, whose place the prompt of {self.solved.name} decides")


def _left_out(result: mg.Result, outputs: Sequence[str]) -> mg.InputError | None:
    """The error of a question that took a route of the graph which gives no answer; None where there is one."""
    absent = [name for name in outputs if result[name] is mg.ABSENT]
    return mg.InputError(f"it took a route of the graph that leaves {', '.join(absent)} out") if absent else None
