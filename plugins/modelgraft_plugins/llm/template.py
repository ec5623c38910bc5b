"""Prompt templates: `"USER: {image}\\n{prompt} ASSISTANT:"`, whose fields become input ports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FIELD = re.compile(r"\{\{|\}\}|\{([a-z_][a-z0-9_]*)(?::([0-9]+|\*))?\}|[{}]")
MANY = "*"  # behind the name of a field: any number of media


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name, and how many embeddings it takes, or None for any number or a text.

    many  it takes any number of media for each record, each of so many embeddings as it has: those of a branch that is asked several times
    """

    name: str
    tokens: int | None = None
    many: bool = False


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
                f"the prompt has a lone '{match[0]}' in '{around}'; a field is {{name}}, {{name:tokens}} or {{name:*}}, a brace is doubled"
            )
        pieces += [literal, Field(match[1], int(match[2]) if match[2] not in (None, MANY) else None, many=match[2] == MANY)]
    pieces.append(template[start:])
    return _joined(pieces)


def fields(pieces: Sequence[Piece]) -> tuple[Field, ...]:
    """The fields in the order in which they first appear, each once.

    Raises ValueError when a field is given two numbers of tokens, or media.
    """
    found: dict[str, Field] = {}
    for piece in pieces:
        if not isinstance(piece, Field):
            continue
        known = found.setdefault(piece.name, piece)
        if known.many != piece.many:
            raise ValueError(f"the prompt gives the field {{{piece.name}}} one medium and any number of them ({{{piece.name}:*}})")
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
