"""Words that are added to a language model, many at a time: `<0>..<999>` is a row of them."""

from __future__ import annotations

import re

ROW = re.compile(r"(?P<head>.*?)(?P<first>[0-9]+)(?P<tail>[^0-9]*)\.\.(?P=head)(?P<last>[0-9]+)(?P=tail)", re.DOTALL)
MOST = 1_000_000  # of a row: no vocabulary has more


def each(given: str) -> list[str]:
    """The words of a row, or the word that is given. Raises ValueError for a row that runs backwards or has no end."""
    row = ROW.fullmatch(given)
    if row is None:
        return [given]
    first, last = int(row["first"]), int(row["last"])
    if not first <= last < first + MOST:
        raise ValueError(f"extra_words: {given!r} is no row of words: its numbers go up, at most {MOST:,} of them")
    return [f"{row['head']}{number}{row['tail']}" for number in range(first, last + 1)]
