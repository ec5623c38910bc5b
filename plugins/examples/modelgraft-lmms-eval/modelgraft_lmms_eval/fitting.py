"""What of a graph takes what of a question: told before anything runs. Imports nothing of lmms-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import modelgraft as mg
from modelgraft.plugin import SolvedGraph, choices

MEDIA = ("image", "audio", "video")  # kinds of parts of a question beside text
SPOKEN = ("text", "conversation")  # types of inputs that take its words


@dataclass(frozen=True, slots=True)
class Taker:
    """An input of the graph. is_list: it takes any number of them."""

    name: str
    is_list: bool = False
    is_needed: bool = True


@dataclass(frozen=True, slots=True)
class Fit:
    """How questions and a graph are joined.

    prompt   the input that takes the words;  is_talk  whole conversations, with their roles
    media    the input that takes parts of a kind, such as "image"
    output   the output that is the answer
    writer   the node that writes it, whose settings say how; "": something else gives it, and only a param may say so
    """

    prompt: str
    is_talk: bool
    media: Mapping[str, Taker]
    output: str
    writer: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a question. parts: kind ("text", "image", "audio", "video") and value."""

    role: str
    parts: Sequence[tuple[str, Any]]  # Any: whatever stands for a medium


def fit(solved: SolvedGraph, *, prompt: str | None = None, output: str | None = None) -> Fit:
    """Join a graph with questions of text and media.

    prompt, output  the names of the input that takes the words and of the output that is the answer, where it cannot be told

    Raises InputError with every misfit.
    """
    problems: list[str] = []
    words = _words(solved, prompt, problems)
    media = _media(solved, problems)
    answer = _answer(solved, output, problems)
    taken = {words, *(taker.name for taker in media.values())}
    for name, given in solved.inputs.items():
        if name not in taken and not given.has_default and not given.port.optional and str(given.port) not in (*SPOKEN, *MEDIA):
            problems.append(f"it needs its input '{name}' ({given.port}), and a question has nothing for it: give it a default")
    if problems:
        raise mg.InputError(f"the graph {solved.name} does not fit: " + "; ".join(problems))
    return Fit(words, str(solved.inputs[words].port) == "conversation", media, answer, _writer(solved, answer))


def _words(solved: SolvedGraph, chosen: str | None, problems: list[str]) -> str:
    """The input that takes the words of a question."""
    able = {name: given for name, given in solved.inputs.items() if str(given.port) in SPOKEN}
    if chosen is not None and chosen in able:
        return chosen
    there = choices([f"{name} ({given.port})" for name, given in solved.inputs.items()])
    if chosen is not None:
        problems.append(f"prompt={chosen} names no input that takes text; its inputs are: {there}")
        return ""
    found = list(able) if len(able) == 1 else [name for name, given in able.items() if not given.has_default or name == "prompt"]
    if len(found) == 1:
        return found[0]
    if not able:
        problems.append(f"none of its inputs takes the words of a question (text or conversation); its inputs are: {there}")
    else:
        problems.append(f"several of its inputs take text: {choices(able)}; say which takes the question: prompt=NAME")
    return ""


def _media(solved: SolvedGraph, problems: list[str]) -> dict[str, Taker]:
    """The input for each kind of medium."""
    found: dict[str, Taker] = {}
    for kind in MEDIA:
        able = [name for name, given in solved.inputs.items() if str(given.port) in _forms(kind)]
        if len(able) > 1:
            problems.append(f"several of its inputs take {kind}: {choices(able)}, and which part of a question goes where cannot be told")
        elif able:
            given = solved.inputs[able[0]]
            is_needed = not (given.has_default or given.port.optional)
            found[kind] = Taker(able[0], f"list[{kind}]" in str(given.port), is_needed)
    return found


def _forms(kind: str) -> tuple[str, ...]:
    return kind, f"list[{kind}]", f"optional[{kind}]", f"optional[list[{kind}]]"


def _answer(solved: SolvedGraph, chosen: str | None, problems: list[str]) -> str:
    """The output that is the answer."""
    able = [name for name, ref in solved.outputs.items() if str(solved.port_of(ref)) in ("text", "label")]
    if chosen is not None and chosen not in able:
        problems.append(f"output={chosen} names no output that is a text; those are: {choices(able)}")
    if chosen is not None:
        return chosen
    if "text" in able or len(able) == 1:
        return "text" if "text" in able else able[0]
    problems.append(
        f"several of its outputs are texts: {choices(able)}; say which: output=NAME" if able else "none of its outputs is a text"
    )
    return ""


def _writer(solved: SolvedGraph, output: str) -> str:
    """The node that an answer comes from, where its settings say how it writes and can be set."""
    name = solved.outputs[output].node
    node = solved.nodes.get(name)
    return name if node is not None and "/" not in name and "max_new_tokens" in type(node.config).model_fields else ""


def record(messages: Sequence[Message], fit: Fit) -> dict[str, Any]:  # Any: whatever goes into ports
    """A question as a record of the graph. Raises InputError where it holds what the graph does not take."""
    found: dict[str, Any] = {}
    for kind in MEDIA:
        values = [value for message in messages for part, value in message.parts if part == kind]
        taker = fit.media.get(kind)
        if taker is None and values and not fit.is_talk:
            raise mg.InputError(f"the question holds {_count(values, kind)}, and no input of the graph takes {kind}")
        if taker is not None and (values or taker.is_list):
            if len(values) > 1 and not taker.is_list:
                raise mg.InputError(f"the question holds {_count(values, kind)}, and the input '{taker.name}' takes one")
            found[taker.name] = values if taker.is_list else values[0]
        elif taker is not None and taker.is_needed:
            raise mg.InputError(f"the question holds no {kind}, and the graph needs one for its input '{taker.name}'")
    if fit.is_talk:
        found[fit.prompt] = [
            {"role": message.role, "content": [{"type": kind, kind: value} for kind, value in message.parts]} for message in messages
        ]
        return found
    if [message.role for message in messages] != ["user"]:
        roles = ", ".join(message.role for message in messages)
        way = "take a graph whose input is a conversation"
        raise mg.InputError(f"the question is a conversation ({roles}), and the input '{fit.prompt}' takes one text of the user: {way}")
    found[fit.prompt] = "\n".join(value for kind, value in messages[0].parts if kind == "text")
    return found


def is_interleaved(messages: Sequence[Message]) -> bool:
    """Whether words stand before a medium, whose place a graph without conversations does not keep."""
    kinds = [kind for message in messages for kind, _ in message.parts]
    return any(kind == "text" and any(other != "text" for other in kinds[place:]) for place, kind in enumerate(kinds))


def _count(values: Sequence[Any], kind: str) -> str:
    return f"{len(values)} {kind}{'s' if len(values) > 1 else ''}"
