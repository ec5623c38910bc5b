"""Prompt templates: `"USER: {image}\\n{prompt} ASSISTANT:"`, whose fields become input ports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FIELD = re.compile(r"\{\{|\}\}|\{([a-z_][a-z0-9_]*)(?::([0-9]+))?\}|[{}]")


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name, and how many embeddings it takes, or None for any number or a text."""

    name: str
    tokens: int | None = None


Piece = str | Field


def parse(template: str) -> tuple[Piece, ...]:
    """Cut a template into literal text and fields; `{{` and `}}` stand for braces.

    Raises ValueError for a brace that begins no field, with what was expected.
    """
    pieces: list[Piece] = []
    start = 0
    for match in _FIELD.finditer(template):
        literal, start = template[start : match.start()], match.end()
        if match[0] in ("{{", "}}"):
            pieces.append(literal + match[0][0])
            continue
        if match[1] is None:
            around = template[max(0, match.start() - 10) : match.end() + 10]
            raise ValueError(
                f"the prompt has a lone '{match[0]}' in '{around}'; a field is {{name}} or {{name:tokens}}, a brace is doubled"
            )
        pieces += [literal, Field(match[1], None if match[2] is None else int(match[2]))]
    pieces.append(template[start:])
    return _joined(pieces)


def fields(pieces: Sequence[Piece]) -> tuple[Field, ...]:
    """The fields in the order in which they first appear, each once.

    Raises ValueError when a field is given two numbers of tokens.
    """
    found: dict[str, Field] = {}
    for piece in pieces:
        if not isinstance(piece, Field):
            continue
        known = found.setdefault(piece.name, piece)
        if known.tokens != piece.tokens:
            raise ValueError(f"the prompt gives the field {{{piece.name}}} two sizes: {known.tokens} and {piece.tokens} tokens")
    return tuple(found.values())


def _joined(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    whole: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, str) and whole and isinstance(whole[-1], str):
            whole[-1] += piece
        elif piece != "":
            whole.append(piece)
    return tuple(whole)
