"""What a user says to NExT-GPT, as its language model reads it: turns, places of objects, and which object stands at which place.

Source: `prepare_generation_embedding` of the published code. A text is cut where objects stand, with one space on either side of them, and
a begin token stands before every piece; objects of one medium that stand together are added up to one embedding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError
from modelgraft_plugins.nextgpt import MEDIA

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.nextgpt import Prompt as PromptConfig

MARK = re.compile(f"<({'|'.join(MEDIA)})>")  # where an object stands in a text
Shown = Mapping[str, Sequence[Any]]  # medium -> its objects beside the text
Piece = str | tuple[str, Any]  # a text, or a medium with its record
Place = list[list[Any]]  # the objects at one place: [medium, number among those of its medium] each, as JSON has it


def load(config: PromptConfig, context: LoadContext) -> Callable[..., Mapping[str, Any]]:
    """Make the function from what is said and shown to prompts, objects, and where they stand."""
    node = context.node.name

    def run(prompt: list[Any], *given: list[list[Any]] | None) -> Mapping[str, Any]:
        shown = dict(zip(MEDIA, given, strict=True))
        rows = [{name: lists[row] if lists is not None else [] for name, lists in shown.items()} for row in range(len(prompt))]
        written = [_laid_out(config, _said(config, said, beside, node)) for said, beside in zip(prompt, rows, strict=True)]
        objects = {name: [found[name] for _, found, _ in written] for name in MEDIA}
        return {"text": [text for text, _, _ in written], "places": [places for *_, places in written], **objects}

    return run


def _said(config: PromptConfig, said: Any, shown: Shown, node: str) -> Iterator[Piece]:
    """Everything in reading order, from the first turn to where the answer begins."""
    turns = [{"role": "user", "content": [{"type": "text", "text": said}]}] if isinstance(said, str) else said
    last = max((number for number, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None or last != len(turns) - 1:
        raise InputError(f"{node}: the conversation does not end with a message of the user, which could be answered")
    for number, turn in enumerate(turns):
        if turn["role"] not in ("user", "assistant"):
            raise InputError(f"{node}: message {number} is one of {turn['role']}, and the model has learned of user and assistant alone")
        yield f"{config.assistant} " if turn["role"] == "assistant" else f"{config.end if number else ''}{config.human}"
        if isinstance(said, str):
            yield from _marked(said, shown, node)
            continue
        if number == last:
            yield from ((name, one) for name in MEDIA for one in shown[name])
        yield from (_part(part, node) for part in turn["content"])
    yield config.assistant


def _part(part: Mapping[str, Any], node: str) -> Piece:
    kind = part["type"]
    if kind not in ("text", *MEDIA):
        raise InputError(f"{node}: the conversation shows {kind}, and the model takes {', '.join(MEDIA)}")
    return str(part["text"]) if kind == "text" else (kind, part[kind])


def _marked(text: str, shown: Shown, node: str) -> Iterator[Piece]:
    """A text with its objects where it marks them; those of a medium that it marks nowhere come before it.

    Raises InputError for another number of marks than of objects.
    """
    marks = MARK.findall(text)
    counts = {name: (marks.count(name), len(shown[name])) for name in MEDIA}
    for name, (marked, there) in counts.items():
        if marked not in (0, there):
            raise InputError(f"{node}: the text marks {marked} places with <{name}>, and there are {there}: mark each, or none")
    yield from ((name, one) for name in MEDIA for one in shown[name] if counts[name][0] == 0)
    waiting = {name: iter(shown[name]) for name in MEDIA}
    for number, piece in enumerate(MARK.split(text)):
        yield (piece, next(waiting[piece])) if number % 2 else piece


def _laid_out(config: PromptConfig, pieces: Iterator[Piece]) -> tuple[str, dict[str, list[Any]], list[Place]]:
    """The text with a placeholder for each place, the objects of each medium, and what stands at the places."""
    objects: dict[str, list[Any]] = {name: [] for name in MEDIA}
    whole, places, open_text = "", list[Place](), ""
    is_behind = False  # an object stands before what comes

    def closed(text: str, *, is_before: bool) -> str:
        text = text.removeprefix(" ") if is_behind else text
        text = text.removesuffix(" ") if is_before else text
        return f"{config.begin if is_behind else ''}{text}" if text.strip() else ""

    for piece in pieces:
        if isinstance(piece, str):
            open_text += piece
            continue
        medium, record = piece
        text = closed(open_text, is_before=True)
        whole, open_text = whole + text, ""
        entry = [medium, len(objects[medium])]
        objects[medium].append(record)
        if is_behind and not text and places[-1][0][0] == medium:
            places[-1].append(entry)
        else:
            places.append([entry])
            whole += f"{config.open}{config.placeholder}{config.close}"
        is_behind = True
    return whole + closed(open_text, is_before=False), objects, places
