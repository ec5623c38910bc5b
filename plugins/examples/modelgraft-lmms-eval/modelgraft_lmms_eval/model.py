"""The two classes that lmms-eval makes: for tasks of messages, and (`--force_simple`) for those that want likelihoods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.protocol import ChatMessages
from loguru import logger

import modelgraft as mg
from modelgraft_lmms_eval.answering import OPENING, Answering, Likely, Question
from modelgraft_lmms_eval.fitting import Message


@contextmanager
def plainly() -> Iterator[None]:
    """End the program with a sentence, not a traceback, for what a user can mend."""
    try:
        yield
    except mg.ModelgraftError as error:
        raise SystemExit(f"modelgraft: {error}") from error


class _Graph(lmms):  # type: ignore[misc]  # lmms-eval is not typed
    """What both classes share: the graph, and how requests become questions."""

    def __init__(
        self,
        graph: str = "",
        *,
        prompt: str | None = None,
        output: str | None = None,
        batch_size: int | str | None = 1,
        max_batch_size: int | None = None,
        errors: str = "stop",
        **others: Any,  # Any: options of `modelgraft.open`, and params of the graph
    ) -> None:
        """Check that the graph fits; nothing is loaded yet.

        graph    a file, or the name of a shipped one
        prompt   the input that takes the words of a question;  output  the output that is the answer: where it cannot be told
        errors   "stop": a question that fails ends all; "empty": its answer is empty, and that is told
        others   `backend`, `device`, `precision`, `threads`, `seed`, `max_memory`, ... as of `modelgraft.open`; all else is set of the
                 graph, as `modelgraft run --set` does
        """
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise SystemExit("modelgraft: several processes would each answer every question; start lmms-eval in one, and set batch_size")
        if max_batch_size is not None:
            logger.warning("modelgraft: max_batch_size is not obeyed, because no batch size is tried out: set batch_size")
        if not graph:
            raise SystemExit("modelgraft: no graph is named; wanted: --model_args graph=NAME_OR_FILE")
        if not str(batch_size or 1).isdecimal():
            raise SystemExit(f"modelgraft: batch_size is '{batch_size}'; wanted: a number")
        with plainly():
            self.answering = Answering(
                graph,
                params={name: value for name, value in others.items() if name not in OPENING},
                opening={name: value for name, value in others.items() if name in OPENING and value is not None},
                prompt=prompt,
                output=output,
                batch_size=int(batch_size or 1),
                errors=errors,
                tell=lambda text: logger.warning(f"modelgraft: {text}"),
            )

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:  # noqa: ARG002 none is answered
        """Not done: what a later round says depends on the task's own code and the answer before."""
        raise SystemExit("modelgraft: tasks of several rounds (generate_until_multi_round) are not answered; choose tasks of one round")

    def _generate(self, requests: list[Instance], read: Callable[[tuple[Any, ...]], tuple[Question, Mapping[str, Any], str]]) -> list[Any]:
        """Answer requests, those of one task that want the same settings together; `read` gives question, settings and task of one."""
        asked = [read(request.args) for request in requests]
        found: dict[int, GenerationResult] = {}
        groups = sorted(range(len(asked)), key=lambda number: (asked[number][2], repr(asked[number][1])))
        for (task, _), some in groupby(groups, key=lambda number: (asked[number][2], repr(asked[number][1]))):
            numbers = list(some)
            with plainly():
                said = self.answering.answer([asked[number][0] for number in numbers], asked[numbers[0]][1], task=task)
            for number, answer in zip(numbers, said, strict=True):
                found[number] = GenerationResult(text=answer.text, token_counts=TokenCounts(output_tokens=answer.tokens))
        return [found[number] for number in range(len(asked))]


class Judged(GenerationResult):  # type: ignore[misc]  # lmms-eval is not typed
    """The mean loss of a text over its tokens, and whether greedy writing gives it: a pair, as every model of lmms-eval gives it.

    Its interface asks for a log-probability, but its models give the loss, and its tasks take the least. Its version 0.7.3 makes a
    string of every result that is neither text nor a GenerationResult, and cannot unpack that again.
    """

    def __init__(self, likely: Likely) -> None:
        super().__init__(text=(-likely.total / likely.tokens, likely.is_greedy))

    def __iter__(self) -> Iterator[Any]:
        return iter(self.text)


class Modelgraft(_Graph):
    """A graph behind `--model modelgraft`: questions as messages."""

    is_simple = False

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer all requests: (context, doc_to_messages, generation_kwargs, doc_id, task, split) each."""

        def read(args: tuple[Any, ...]) -> tuple[Question, Mapping[str, Any], str]:
            _, doc_to_messages, asked, doc, task, split = args
            return Question(f"{task} {doc}", lambda: _messages(doc_to_messages(self.task_dict[task][split][doc]))), asked, task

        return self._generate(requests, read)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:  # noqa: ARG002 none comes
        """Never asked: lmms-eval gives tasks of likelihoods to models of the simple kind."""
        raise SystemExit("modelgraft: tasks of likelihoods are answered with --force_simple")


class SimpleModelgraft(_Graph):
    """The same for tasks of the simple kind (`--force_simple`), which are all that ask for likelihoods."""

    is_simple = True

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer all requests: (context, generation_kwargs, doc_to_visual, doc_id, task, split) each."""

        def read(args: tuple[Any, ...]) -> tuple[Question, Mapping[str, Any], str]:
            context, asked, doc_to_visual, doc, task, split = args
            return self._question(context, doc_to_visual, doc, task, split), asked, task

        return self._generate(requests, read)

    def loglikelihood(self, requests: list[Instance]) -> list[Judged]:
        """Judge all requests: (context, continuation, doc_to_visual, doc_id, task, split) each. Those of one question are read together."""
        asked: dict[tuple[Any, ...], list[tuple[int, str]]] = {}
        questions: dict[tuple[Any, ...], Question] = {}
        for number, request in enumerate(requests):
            if len(request.args) != 6:
                raise SystemExit("modelgraft: metrics that want likelihoods without a question (acc_mutual_info) are not given")
            context, target, doc_to_visual, doc, task, split = request.args
            text = target if isinstance(target, str) else str(target(self.task_dict[task][split][doc]))
            key = (task, split, doc, context)
            questions.setdefault(key, self._question(context, doc_to_visual, doc, task, split))
            asked.setdefault(key, []).append((number, text))
        found: dict[int, Judged] = {}
        for task, some in groupby(sorted(asked, key=lambda key: key[0]), key=lambda key: key[0]):
            keys = list(some)
            with plainly():
                judged = self.answering.judge(
                    [questions[key] for key in keys], [[text for _, text in asked[key]] for key in keys], task=task
                )
            for key, figures in zip(keys, judged, strict=True):
                found |= {number: Judged(figure) for (number, _), figure in zip(asked[key], figures, strict=True)}
        return [found[number] for number in range(len(requests))]

    def _question(self, context: str, doc_to_visual: Any, doc: int, task: str, split: str) -> Question:
        def messages() -> Sequence[Message]:
            shown = doc_to_visual(self.task_dict[task][split][doc]) if callable(doc_to_visual) else None
            return [Message("user", [*(_shown(one) for one in shown or ()), ("text", context)])]

        return Question(f"{task} {doc}", messages)


def _messages(raw: Any) -> list[Message]:
    """Messages as a task gives them, checked by lmms-eval's own protocol."""
    if isinstance(raw, list):
        raw = [
            {**one, "content": [{"type": "text", "text": one["content"]}]} if isinstance(one.get("content"), str) else one for one in raw
        ]
    return [Message(one.role, [_part(part) for part in one.content]) for one in ChatMessages(messages=raw).messages]


def _part(part: Any) -> tuple[str, Any]:
    if part.type == "text":
        return "text", part.text
    if getattr(part, "start_time", None) is not None or getattr(part, "end_time", None) is not None:
        raise mg.InputError("the question shows a stretch of a film (start_time, end_time), and films are read whole")
    return part.type, _medium(part.type, part.url)


def _shown(one: Any) -> tuple[str, Any]:
    """A medium of a task of the simple kind: a picture, a sound as the datasets library reads it, or a film by its path."""
    if isinstance(one, Mapping) and "array" in one:
        return "audio", _medium("audio", one)
    return ("video" if isinstance(one, str) else "image"), one


def _medium(kind: str, value: Any) -> Any:
    """A medium as modelgraft reads it: sounds in memory come with their rate."""
    if kind == "audio" and isinstance(value, Mapping) and "array" in value:
        import numpy

        return mg.Audio(numpy.atleast_2d(numpy.asarray(value["array"], dtype=numpy.float32)), int(value["sampling_rate"]))
    return value
