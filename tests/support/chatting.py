"""Toys to chat with: what answers, what counts what was said before, what reads a conversation."""

from __future__ import annotations

import time
from typing import Any

from PIL import Image

import modelgraft as mg
from modelgraft.kernel.shelf.registry import Registry
from modelgraft_plugins.routers import Match, Merge
from support.running import function, registry_of

COUNTED = {"text": "text", "history": "optional[conversation]"}


@mg.component("toy/answer", kind="llm", load="support.chatting:load", inputs=COUNTED, outputs={"out": "text"})
class AnswerConfig(mg.Config):
    """Say back what came, and how many messages came before; `bad` fails, and `slow` takes its time."""


class Answer:
    """The code of a node."""

    def bind(self, runtime: Any) -> None:
        """Take what a run offers."""
        self.runtime = runtime

    def __call__(self, text: list[str], history: list[Any] | None = None) -> list[str]:
        """Answer each record."""
        found = []
        for row, record in enumerate(text):
            if record == "bad":
                raise ValueError("bad was given")
            if record == "slow":
                self.runtime.emit("token", text="slowly ", record=row)
                self._rest()
            whole = f"{record} after {len(history[row]) if history else 0}"
            for word in whole.split(" "):
                self.runtime.emit("token", text=word if word == record else f" {word}", record=row)
            found.append(whole)
        return found

    def _rest(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            self.runtime.check()
            time.sleep(0.01)


def load(config: Any, context: Any) -> Answer:
    """Make the code of a node."""
    del config, context
    return Answer()


@mg.component("toy/word", kind="preprocess", inputs={}, outputs={"out": "text"})
def word(*, word: str) -> list[str]:
    """Say a word."""
    return [word]


@mg.component("toy/model", kind="llm", inputs={"prompt": "text | conversation"}, outputs={"out": "text"})
def model(prompt: list[Any]) -> list[str]:
    """Say how many messages there are, and what is in them."""
    return [f"{len(record)}: {'|'.join(_words(message) for message in record)}" for record in prompt]


def _words(message: Any) -> str:
    return "".join(part["text"] for part in message["content"])


def size(image: list[Any]) -> list[str]:
    """Say how large pictures are."""
    return [f"{picture.width} x {picture.height}" for picture in image]


def join(one: list[str], other: list[str]) -> list[str]:
    """Join two texts."""
    return [f"{left} {right}" for left, right in zip(one, other, strict=True)]


def back(talk: list[Any]) -> list[Any]:
    """Answer with the number of messages, and a picture."""
    return [
        (
            {
                "role": "assistant",
                "content": [{"type": "text", "text": str(len(told))}, {"type": "image", "image": Image.new("RGB", (8, 6))}],
            },
        )
        for told in talk
    ]


def registry(**_: Any) -> Registry:
    """What is installed."""
    backend = mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))
    return registry_of(
        AnswerConfig, word, model, Merge, Match,
        function("toy/size", {"image": "image"}, {"out": "text"}, size),
        function("toy/keep", {"x": "object"}, {"out": "text"}, lambda x: [str(record) for record in x]),
        function("toy/join", {"one": "text", "other": "text"}, {"out": "text"}, join),
        function("toy/back", {"talk": "conversation"}, {"talk": "conversation"}, back),
        register_backends=backend,
    )  # fmt: skip
