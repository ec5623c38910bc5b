"""Where the answers of a whole conversation stand among the tokens that a model reads: they are learnt, and nothing else of it.

A chat template is a program that tells nobody where an answer is. So the conversation is written once whole, once up to each answer,
ready for it, and once up to its end; where these texts part from the whole one, the answer begins and its turn ends.
Learnt of a turn are the words of the answer and what ends them: the first of the tokenizer's own tokens behind them, or a text that
ends answers, such as the ### of LLaVA's first version. What a template writes behind that, such as a line break, is not.
Source: `preprocess_v1` of LLaVA's published code, which looks for the marks of one template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from modelgraft.plugin import InputError
from modelgraft_plugins.llm.tokens import as_letters

USER, ASSISTANT = "user", "assistant"
Message = Mapping[str, Any]


class Writes(Protocol):
    """Write messages in a chat template."""

    def __call__(self, messages: Sequence[Message], /, *, asks: bool) -> str:
        """asks: what an answer begins with stands behind them."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer in a written conversation, in letters from its beginning.

    start  where the answer begins;  words  where its words end;  end  where what ends it does, None where no text does
    bound  where its turn ends
    """

    start: int
    words: int
    end: int | None
    bound: int


def turns(messages: Sequence[Message], write: Writes, *, stops: Sequence[str], node: str) -> tuple[str, list[Turn]]:
    """The whole conversation as it is written, and its answers in their order; what is said before anybody asks is none.

    stops  texts that end answers

    Raises InputError where there is no answer, where the last message is none, where one holds media, and where the template writes one
    otherwise in a whole conversation than behind what comes before it.
    """
    asked = next((number for number, message in enumerate(messages) if message["role"] == USER), len(messages))
    answers = [number for number, message in enumerate(messages) if message["role"] == ASSISTANT and number > asked]
    if not answers:
        found = f"{node}: the conversation has no message of the '{ASSISTANT}' behind one of the '{USER}'"
        raise InputError(f"{found}, so that nothing is to be learnt: add an answer")
    if answers[-1] != len(messages) - 1:
        found = f"{node}: the conversation, whose answers are to be learnt, ends with a message of '{messages[-1]['role']}'"
        raise InputError(f"{found}, which nothing answers: add the answer, or leave the message out")
    whole = write(messages, asks=False)
    return whole, [_turn(messages, number, whole, write, stops=stops, node=node) for number in answers]


def _turn(messages: Sequence[Message], number: int, whole: str, write: Writes, *, stops: Sequence[str], node: str) -> Turn:
    start = _common(write(messages[:number], asks=True), whole)
    bound = _common(write(messages[: number + 1], asks=False), whole)
    said = _said(messages[number], number, node).strip()
    words = start + len(whole[start:]) - len(whole[start:].lstrip())
    if not whole.startswith(said, words):
        there = " ".join(whole[start : start + 60].split())
        found = f"{node}: the chat template writes message {number + 1} as {there!r}, and its words are {said[:60]!r}"
        raise InputError(f"{found}: what is to be learnt cannot be found in it; set chat_template to another")
    words += len(said)
    ends = [place + len(stop) for stop in stops if (place := whole.find(stop, words, bound)) >= 0]
    return Turn(start, words, min(ends, default=None), max(bound, words))


def _said(message: Message, number: int, node: str) -> str:
    """The words of an answer."""
    shown = [part["type"] for part in message["content"] if part["type"] != "text"]
    if shown:
        found = f"{node}: message {number + 1}, an answer, shows {', '.join(shown)}, and a language model learns to say words alone"
        raise InputError(f"{found}: leave them out, or write the tokens that ask for them")
    return "".join(part["text"] for part in message["content"])


def learnt(ids: Sequence[int], whole: str, found: Sequence[Turn], read: Callable[[str], list[int]], *, marks: frozenset[int]) -> Learnt:
    """The places of tokens that are learnt.

    ids    of the whole conversation;  read  what makes ids of its beginnings
    marks  the tokens that the tokenizer knows by name, of which one may end an answer
    """
    places, is_ended = list[int](), False
    for turn in found:
        start, words, bound = (_common(read(whole[:letters]), ids) for letters in (turn.start, turn.words, turn.bound))
        mark = next((place + 1 for place in range(words, bound) if ids[place] in marks), None)
        end = _common(read(whole[: turn.end]), ids) if mark is None and turn.end is not None else mark
        places += range(start, words if end is None else end)
        is_ended = end is not None
    return Learnt(tuple(places), is_ended)


@dataclass(frozen=True, slots=True)
class Learnt:
    """The places of all tokens that are learnt, and whether one that ends the last answer is among them."""

    places: tuple[int, ...]
    is_ended: bool


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many letters or tokens two texts begin with: a token that melts with what stands behind it does not count."""
    return next((place for place, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), min(len(one), len(other)))


def spelt_out(message: Mapping[str, Any], guarded: Sequence[str], media: Sequence[str]) -> Mapping[str, Any]:
    """A message in whose role, and in the words of a user, the marks of roles and media are letters like others.

    In the words of others those of media are, which are parts of a message wherever they are meant; the rest stays as a model said it.
    """
    tokens = guarded if message["role"] == USER else media
    parts = [{**part, "text": as_letters(part["text"], tokens)} if part["type"] == "text" else part for part in message["content"]]
    return {**message, "role": as_letters(message["role"], guarded), "content": parts}


def with_media(conversation: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The conversation; when none of its messages shows the media, they stand before the first message of the user."""
    messages = list(conversation)
    if not count or any(part["type"] != "text" for message in messages for part in message["content"]):
        return messages
    first = next((index for index, message in enumerate(messages) if message["role"] == USER), 0)
    shown = [{"type": "image"}] * count
    messages[first] = {**messages[first], "content": [*shown, *messages[first]["content"]]}
    return messages
