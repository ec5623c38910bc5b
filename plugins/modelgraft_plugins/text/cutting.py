"""The work of text/split: between which words a text is cut."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelgraft.plugin import NodeRuntime
    from modelgraft_plugins.text import Split as Config


def load(config: Config, _context: LoadContext) -> Splitter:
    """Make the function from texts to beginnings and what follows them."""
    return Splitter(config)


class Splitter:
    """Cuts each text at a place that the seed of the run and the text decide."""

    runtime: NodeRuntime

    def __init__(self, config: Config) -> None:
        self.config = config

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells the seed."""
        self.runtime = runtime

    def __call__(self, text: Sequence[str]) -> dict[str, list[str]]:
        """Raises InputError for a text without a word."""
        cut = [self._cut(one, record) for record, one in enumerate(text)]
        return {"beginning": [beginning for beginning, _ in cut], "rest": [rest for _, rest in cut]}

    def _cut(self, text: str, record: int) -> tuple[str, str]:
        config, starts = self.config, [found.start() for found in re.finditer(r"\S+", text)]
        if not starts:
            raise InputError(f"{self.runtime.node}.text: record {record} is {text!r}; wanted a text of one word or more, to be cut")
        words = config.at
        if words is None:
            draw = random.Random(f"{self.runtime.node_seed()} {text} {config.draw}")  # noqa: S311 nothing is kept secret by it
            words = draw.randrange(config.least, len(starts)) if len(starts) > config.least else 0
        start = starts[words] if words < len(starts) else starts[0]
        return text[:start].rstrip(), text[start:].rstrip()
