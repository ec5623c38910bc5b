"""From numbers per frame to text: the likeliest letters, or the likeliest text. By numpy, on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext
from modelgraft_plugins.shares import log_softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.audio.ctc import Beam, Greedy, Writer

    Numbers = NDArray[Any]

Write = Callable[..., list[str]]


def greedy(config: Greedy, _context: LoadContext) -> Write:
    """Make the function from float[batch tokens classes] to a text per record."""

    def write(logits: Numbers, mask: Numbers | None = None) -> list[str]:
        best = logits.argmax(-1)
        return [_text(row.tolist(), config) for row in _cut(best, mask)]

    return write


def beam(config: Beam, _context: LoadContext) -> Write:
    """Make the function from float[batch tokens classes] to a text per record."""
    from modelgraft_plugins.audio.prefixes import Search

    search = Search(config)

    def write(logits: Numbers, mask: Numbers | None = None) -> list[str]:
        rows = _cut(log_softmax(logits), mask)
        return [written(search.best(row.tolist()), config) for row in rows]

    return write


def _text(ids: Sequence[int], config: Writer) -> str:
    """The letters of the likeliest classes, equal neighbours once."""
    return written([number for number, _ in groupby(ids) if number != config.blank], config)


def written(numbers: Sequence[int], config: Writer) -> str:
    """The text of letters by number."""
    tokens = [config.vocabulary[number] for number in numbers]
    text = "".join(config.space if token == config.delimiter else token for token in tokens).strip()
    return text.lower() if config.lower else text


def _cut(rows: Numbers, mask: Numbers | None) -> list[Numbers]:
    """Each row up to its own number of frames; frames that fill up stand at the end."""
    lengths = [rows.shape[1]] * rows.shape[0] if mask is None else mask.sum(-1).tolist()
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]
