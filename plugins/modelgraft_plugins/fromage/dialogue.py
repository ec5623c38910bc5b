"""The work of fromage/dialogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.fromage import Dialogue

Message = Mapping[str, Any]  # {"role": ..., "content": [parts]}
USER, ANSWERER = "user", "assistant"


def load(config: Dialogue, context: LoadContext) -> Callable[[list[Sequence[Message]]], dict[str, list[Any]]]:
    """Make the function from conversations to prompts, and the pictures that they speak of in their order."""
    writer = _Writer(config, context.node.name)

    def write(conversation: list[Sequence[Message]]) -> dict[str, list[Any]]:
        texts, images = zip(*map(writer.write, conversation), strict=True)
        return {"text": list(texts), "image": list(images)}

    return write


class _Writer:
    def __init__(self, config: Dialogue, node: str) -> None:
        self.config, self.node = config, node

    def write(self, conversation: Sequence[Message]) -> tuple[str, list[Any]]:
        """The prompt of one conversation, and its pictures."""
        text, images = "", list[Any]()
        for message in conversation:
            role, parts = message["role"], message["content"]
            self._refuse_others(parts)
            shows = role != ANSWERER or self.config.retrieved == "shown"
            if shows:
                images += [part["image"] for part in parts if part["type"] == "image"]
            text += self._turn(role, parts, shows=shows)
        last = conversation[-1]["role"]
        if last == ANSWERER:
            text = text.removesuffix(self.config.after_answer)  # it is gone on with
        self._refuse_many(images)
        return text + self.config.ends_with, images

    def _turn(self, role: str, parts: Sequence[Message], *, shows: bool) -> str:
        """What one message becomes. Pictures that a message of the user begins with stand before all of its words."""
        config = self.config
        mark = config.placeholder if shows else config.signal
        written = [part["text"] if part["type"] == "text" else mark for part in parts]
        if role == ANSWERER:
            return " " + " ".join(piece.strip() for piece in written) + config.after_answer
        if role != USER or config.style == "plain":
            return "".join(written) + ("" if config.style == "plain" else "\n")
        leading = next((at for at, part in enumerate(parts) if part["type"] == "text"), len(parts))
        words = "".join(written[leading:])
        question = f"{config.before_question}{words}{config.before_answer}" if words else ""
        return "".join(written[:leading]) + question

    def _refuse_others(self, parts: Sequence[Message]) -> None:
        other = next((part["type"] for part in parts if part["type"] not in ("text", "image")), None)
        if other is not None:
            raise InputError(f"{self.node}: the conversation holds {other}, and FROMAGe knows text and image: leave it out")
        for text in (part["text"] for part in parts if part["type"] == "text"):
            if self.config.placeholder in text:
                found = f"{self.node}: a text of the conversation holds {self.config.placeholder!r}, which stands for a picture"
                raise InputError(f"{found}: give the picture as a part of its own")

    def _refuse_many(self, images: Sequence[Any]) -> None:
        most = self.config.most_pictures
        if most is not None and len(images) > most:
            found = f"{self.node}: the conversation has {len(images)} pictures, and {most} find room in the context of the language model"
            raise InputError(f"{found} ({self.config.tokens} tokens each): leave older ones out")
