"""A node that writes a text token by token, and waits between two of them for a file when there is to be one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import modelgraft as mg
from modelgraft.kernel.shelf.registry import Registry
from support.running import TEXT, function, registry_of, shout

GRAPH = """# Say it back, word by word.
modelgraft: 1
inputs: {x: text}
nodes:
  talk: {use: toy/talk, with: WITH, in: {x: inputs.x}}
  loud: {use: toy/shout, in: {x: talk}}
outputs: {text: talk, loud: loud}
"""


@mg.component("toy/talk", kind="llm", load="support.talking:load", inputs=TEXT, outputs={"out": "text"})
class TalkConfig(mg.Config):
    """Say back what came, word by word."""

    wait: str = ""  # the file without which the second word is not written
    fail: bool = False  # after the second word
    change: bool = False  # the text in the end is not what was written


class Talk:
    """The code of a node."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def bind(self, runtime: Any) -> None:
        """Take what a run offers."""
        self.runtime = runtime

    def __call__(self, x: list[str]) -> list[str]:
        """Write every record, word by word, in turn."""
        rows = [[f"{word} " for word in text.split()] for text in x]
        for place in range(max(map(len, rows))):
            self._wait(place)
            for record, words in enumerate(rows):
                if place < len(words):
                    self.runtime.emit("token", text=words[place], record=record)
        return [("".join(words)).upper() if self.config.change else "".join(words) for words in rows]

    def _wait(self, place: int) -> None:
        end = time.monotonic() + 60
        while place == 1 and self.config.wait and not Path(self.config.wait).exists():
            self.runtime.check()
            assert time.monotonic() < end, "nobody let it go on"
            time.sleep(0.01)
        if place == 2 and self.config.fail:
            raise ValueError("no more words")


def load(config: Any, context: Any) -> Talk:
    """Make the code of a node."""
    del context
    return Talk(config)


def registry(**_: Any) -> Registry:
    """What is installed."""
    backend = mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))
    return registry_of(TalkConfig, function("toy/shout", TEXT, {"out": "text"}, shout), register_backends=backend)
