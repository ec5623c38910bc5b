"""What each token of an answer adds to its text: the pieces that a reader of signals goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a tokenizer gives for the first bytes of a character


def pieces_of(ids: Sequence[int], decode: Callable[[list[int]], str], names: Mapping[int, str], *, text: str | None = None) -> list[str]:
    """A piece for each token; those without a name join to the text.

    decode  tokens -> text, special tokens left out: these have empty pieces, as have the first bytes of a character
    names   tokens that add nothing to the text and are told by their names
    text    the whole text, where it was cut before a stop string: what lies behind its end is left out
    """
    pieces, shown, known, read, room = list[str](), list[int](), 0, 0, len(text) if text is not None else None
    for token in ids:
        if token in names:
            pieces.append(names[token])
            continue
        shown.append(token)
        before, now = decode(shown[known:read]), decode(shown[known:])  # a token's text may depend on the one before it
        if len(now) <= len(before) or now.endswith(UNFINISHED):
            pieces.append("")
            continue
        known, read = read, len(shown)
        piece = now[len(before) :] if room is None else now[len(before) :][:room]
        room = None if room is None else room - len(piece)
        pieces.append(piece)
    return _with_rest(pieces, ids, names, text) if text is not None else pieces


def _with_rest(pieces: list[str], ids: Sequence[int], names: Mapping[int, str], text: str) -> list[str]:
    """The last piece with what no token finished: broken bytes at the end."""
    owners = [place for place, token in enumerate(ids) if token not in names]
    told = "".join(pieces[place] for place in owners)
    if owners and text != told and text.startswith(told):
        pieces[owners[-1]] += text[len(told) :]
    return pieces
