"""The work of grounding/write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext
from modelgraft_plugins.grounding.boxes import Box, fractions_of

if TYPE_CHECKING:
    from modelgraft_plugins.grounding import Write


def write(config: Write, context: LoadContext) -> Callable[..., list[str]]:
    """Make the function from texts, pictures, boxes and phrases, each a batch, the last two or None, to prompts.

    Raises InputError for marks in a text, a phrase that is not in it, and boxes that are no rectangles of their pictures.
    """
    name = context.node.name

    def run(
        text: list[str], image: list[Any], boxes: list[Sequence[Mapping[str, Any]]] | None = None, phrases: list[list[str]] | None = None
    ) -> list[str]:
        given = zip(text, image, boxes or [[]] * len(text), phrases or [[]] * len(text), strict=True)
        return [_written(config, f"{name}: record {row + 1} of {len(text)}", *record) for row, record in enumerate(given)]

    return run


def _written(config: Write, label: str, text: str, picture: Any, boxes: Sequence[Mapping[str, Any]], phrases: Sequence[str]) -> str:
    """One prompt."""
    _refuse_marks(config, label, [text, *phrases, *(str(box.get("text") or "") for box in boxes)])
    named: dict[str, list[Box]] = {phrase.strip(): [] for phrase in phrases}
    for number, box in enumerate(boxes):
        try:
            placed = fractions_of(box, width=picture.size[0], height=picture.size[1], frame=config.seen)
        except ValueError as error:
            raise InputError(f"{label}, box {number}: {error}") from error
        named.setdefault(str(box.get("text") or config.unnamed or "").strip(), []).append(placed)
    alone, form = named.pop("", []), config.written
    prompt = _marked(text, {phrase: form.write(phrase, placed, config.places) for phrase, placed in named.items()}, label)
    behind = form.write("", alone, config.places) if alone else ""
    return f"{form.lead if config.ask else ''}{prompt}{behind}"


def _refuse_marks(config: Write, label: str, texts: Sequence[str]) -> None:
    for text in texts:
        if (mark := re.search(config.written.marks, text)) is not None:
            found = f"{label}: the text holds {mark[0]}, which the model reads as a mark and not as words"
            raise InputError(f"{found}: leave it out, and give places of the picture as boxes")


def _marked(text: str, marked: Mapping[str, str], label: str) -> str:
    """The text with each phrase as it is written with its boxes. Longer phrases first, so that a dog is not looked for in a dog house."""
    taken: dict[tuple[int, int], str] = {}
    for phrase in sorted(marked, key=len, reverse=True):
        places = (found.span() for found in re.finditer(rf"(?<!\w){re.escape(phrase)}(?!\w)", text))
        place = next((span for span in places if all(span[1] <= start or span[0] >= end for start, end in taken)), None)
        if place is None:
            where = "in the text" if phrase not in text else "as words of their own in the text, or only within a longer phrase"
            raise InputError(f"{label}: there is no {phrase!r} {where} {text!r}: let each box be named after words that stand there")
        taken[place] = marked[phrase]
    for start, end in sorted(taken, reverse=True):
        text = text[:start] + taken[start, end] + text[end:]
    return text
