"""The work of flamingo/dialogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from modelgraft.plugin import InputError, LoadContext, Video

if TYPE_CHECKING:
    from modelgraft_plugins.flamingo import Dialogue

Message = Mapping[str, Any]  # {"role": ..., "content": [parts]}
ANSWERER, USER = "assistant", "user"
SHOWN = ("image", "video")


def load(config: Dialogue, context: LoadContext) -> Callable[[list[Sequence[Message]]], dict[str, Any]]:
    """Make the function from conversations to prompts, the frames that they show, and how many each of their media has."""
    writer = _Writer(config, context.node.name)

    def write(conversation: list[Sequence[Message]]) -> dict[str, Any]:
        shown = [[writer.frames(part) for part in _parts(talk) if part["type"] in SHOWN] for talk in conversation]
        lengths = torch.zeros(len(shown), max(1, *map(len, shown)), dtype=torch.int64)
        for row, media in enumerate(shown):
            lengths[row, : len(media)] = torch.tensor(list(map(len, media)), dtype=torch.int64)
        frames = [[frame for medium in media for frame in medium] for media in shown]
        return {"text": [writer.write(talk) for talk in conversation], "image": frames, "lengths": lengths}

    return write


def _parts(talk: Sequence[Message]) -> list[Message]:
    return [part for message in talk for part in message["content"]]


class _Writer:
    def __init__(self, config: Dialogue, node: str) -> None:
        self.config, self.node = config, node

    def frames(self, part: Message) -> list[Any]:
        """The pictures of a medium, at least one. Raises InputError for a clip where none is wanted."""
        if part["type"] == "image":
            return [part["image"]]
        if not self.config.frames:
            raise InputError(f"{self.node}: the conversation holds a video, and this model was made for pictures (frames: 0): leave it out")
        film: Video = part["video"]
        there = len(film.frames)
        count = max(1, min(self.config.frames, there, round(film.seconds * self.config.rate_hz)))
        chosen = np.linspace(0, there - 1, count).round().astype(int)
        return [Image.fromarray(film.frames[place]) for place in chosen]

    def write(self, talk: Sequence[Message]) -> str:
        """The prompt of one conversation. Raises InputError for what cannot be written."""
        self._refuse(talk)
        text, config = self.config.opening, self.config
        for message in talk:
            words = "".join(part["text"] if part["type"] == "text" else config.placeholder for part in message["content"])
            before, after = self._around(message["role"])
            text += f"{before}{words}{after}"
        last = talk[-1]["role"]
        if last == ANSWERER:
            return text.removesuffix(config.after_answer)  # it is gone on with
        return text if last == USER else f"{text}{config.before_answer}"

    def _around(self, role: str) -> tuple[str, str]:
        """What stands before and behind a message: behind a question the answer begins."""
        if role == ANSWERER:
            return "", self.config.after_answer
        return (self.config.before_question, self.config.before_answer) if role == USER else ("", "\n")

    def _refuse(self, talk: Sequence[Message]) -> None:
        """Nothing of what a conversation says may be taken for a picture or for an end."""
        if not any(message["role"] == USER for message in talk):
            raise InputError(f"{self.node}: the conversation has no message of the user, so that there is nothing to answer")
        media = 0
        for part in _parts(talk):
            if part["type"] not in ("text", *SHOWN):
                raise InputError(f"{self.node}: the conversation holds {part['type']}, and a Flamingo knows text, image and video")
            media += part["type"] in SHOWN
            held = [token for token in (self.config.placeholder, *self.config.reserved) if part["type"] == "text" and token in part["text"]]
            if held:
                found = f"{self.node}: a text of the conversation holds {held[0]!r}, which is a token of the model"
                raise InputError(f"{found}: give pictures as parts of their own, and leave it out of texts")
        most = self.config.most_media
        if most is not None and media > most:
            raise InputError(
                f"{self.node}: the conversation has {media} pictures and clips, and {most} are wanted at most: leave older ones out"
            )
