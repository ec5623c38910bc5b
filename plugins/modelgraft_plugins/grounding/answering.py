"""The work of grounding/parse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext, NodeRuntime
from modelgraft_plugins.grounding.boxes import pixels_of
from modelgraft_plugins.grounding.writing import Broken, Grounded, Piece, Words

if TYPE_CHECKING:
    from modelgraft_plugins.grounding import Parse

SHOWN = 80  # letters of a broken box that a message shows


def parse(config: Parse, context: LoadContext) -> Parser:
    """Make the function from answers and pictures to what was found."""
    return Parser(config, context.node.name)


class Parser:
    """Reads the answers of a batch, and tells of what is broken in them."""

    def __init__(self, config: Parse, name: str) -> None:
        self.config, self.name = config, name
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: it hears the warnings."""
        self.runtime = runtime

    def __call__(self, text: list[str], image: list[Any], prompt: list[str] | None = None) -> dict[str, list[Any]]:
        """text, boxes and entities of each record. Raises InputError for a broken box where those are refused."""
        found = []
        answers = text if prompt is None else list(map(joined, prompt, text))
        for row, (written, picture) in enumerate(zip(answers, image, strict=True)):
            pieces = list(self.config.written.read(written, self.config.places))
            self._tell_broken(pieces, f"record {row + 1} of {len(text)}")
            found.append(self._told(pieces, *picture.size))
        return {
            "text": [clean for clean, _ in found],
            "boxes": [[box | {"text": one["text"]} for one in entities for box in one["boxes"]] for _, entities in found],
            "entities": [entities for _, entities in found],
        }

    def _told(self, pieces: Sequence[Piece], width: int, height: int) -> tuple[str, list[dict[str, Any]]]:
        """The text of an answer, and its phrases with boxes in pixels."""
        text, entities = "", list[dict[str, Any]]()
        for piece in pieces:
            if isinstance(piece, Words):
                text += piece.text
            elif isinstance(piece, Grounded):
                phrase = piece.phrase.strip()
                start = len(text) + piece.phrase.find(phrase)
                boxes = [pixels_of(box, width=width, height=height, frame=self.config.seen) for box in piece.boxes]
                entities.append({"text": phrase, "start": start, "end": start + len(phrase), "boxes": boxes})
                text += piece.phrase
        clean, before = text.strip(), len(text) - len(text.lstrip())
        for one in entities:
            one.update({end: min(max(one[end] - before, 0), len(clean)) for end in ("start", "end")})
        return clean, entities

    def _tell_broken(self, pieces: Sequence[Piece], label: str) -> None:
        broken = [piece for piece in pieces if isinstance(piece, Broken)]
        if not broken:
            return
        first = broken[0]
        shown = first.written if len(first.written) <= SHOWN else f"{first.written[:SHOWN]}..."
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        found = f"{label} holds a box that is none, {shown}: {first.why}{more}"
        if self.config.broken == "error":
            raise InputError(f"{self.name}: {found}; ask again, let max_new_tokens be larger, or set broken: drop")
        if self.runtime is not None:
            self.runtime.emit("warning", text=f"{self.name}: {found}; left out")


def joined(prompt: str, answer: str) -> str:
    """A prompt and how it goes on, as one text. An answer has lost the space that it began with, where a tokenizer counts it to a word."""
    meets = re.search(r"[^\s>]$", prompt) is not None and re.match(r"[\w(\"']", answer) is not None
    return f"{prompt} {answer}" if meets else f"{prompt}{answer}"
