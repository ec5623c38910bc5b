"""Whether a text is too long, known before all of it is cut into tokens. Light: any plugin may import it.

Ten megabytes of text take a tokenizer half a minute and gigabytes, and no model reads a tenth of them. A long text is counted
piece by piece until the limit is passed, which takes no longer than to cut a text of the most tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

PIECE = 1 << 16  # letters that are counted at once: below a tenth of a second
LOST = 4  # tokens by which a cut between two pieces may change the count
MOST_TOKENS = 1 << 20  # of a model that states no limit: above the longest context there is

_BREAK = re.compile(r"\s(?=\S)")


def more_than(text: str, most: int, count: Callable[[str], int]) -> bool:
    """Whether a text has surely more than so many tokens; `count` gives those of a piece, without special ones.

    A text that is short for its limit is not counted: that it fits, or by how much it does not, is for the caller to tell.
    """
    if len(text) <= max(PIECE, most):
        return False
    found = 0
    for piece in pieces(text):
        found += count(piece) - LOST
        if found > most:
            return True
    return False


def pieces(text: str) -> Iterator[str]:
    """A text in pieces that end between two words, where there are words."""
    start = 0
    while start < len(text):
        end = start + PIECE
        cut = _BREAK.search(text, end, end + PIECE) if end < len(text) else None
        end = cut.start() if cut is not None else end
        yield text[start:end]
        start = end


def beginning(text: str, most: int, count: Callable[[str], int]) -> str:
    """As much of a text as is needed for its first `most` tokens: all of it, or pieces of more than twice as many tokens."""
    if len(text) <= max(PIECE, most):
        return text
    found, letters = 0, 0
    for piece in pieces(text):
        found, letters = found + count(piece), letters + len(piece)
        if found > 2 * most + LOST:
            break
    return text[:letters]
