"""Prompt templates: `"USER: {image}\\n{prompt} ASSISTANT:"`, whose fields become input ports."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_FIELD = re.compile(r"\{\{|\}\}|\{([a-z_][a-z0-9_]*)(?::([0-9]+|\*|ragged))?\}|[{}]")
MANY = "*"  # behind the name of a field: any number of media
RAGGED = "ragged"  # the same: the media of a record stand one behind the other, each of a length of its own
LENGTHS, WORDS, GRIDS, PACES = "lengths", "words", "grids", "paces"  # what comes beside such a field
BESIDE = (LENGTHS, WORDS, GRIDS, PACES)
DEEP = "deep"  # the same, of a decoder whose first layers hear inner layers of an eye


@dataclass(frozen=True, slots=True)
class Field:
    """A field: its name, and how many embeddings it takes, or None for any number or a text.

    many    it takes any number of media for each record, each of a length of its own: those of a branch that is asked several times
    ragged  the media of a record stand one behind the other, and further inputs say how many embeddings each has: see `beside`
    """

    name: str
    tokens: int | None = None
    many: bool = False
    ragged: bool = False

    @property
    def beside(self) -> tuple[str, ...]:
        """The names of the inputs that tell of its media."""
        return tuple(f"{self.name}_{kind}" for kind in BESIDE) if self.ragged else ()


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
                f"the prompt has a lone '{match[0]}' in '{around}'; a field is {{name}}, {{name:tokens}}, {{name:*}} or "
                "{{name:ragged}}, a brace is doubled"
            )
        tokens = int(match[2]) if match[2] not in (None, MANY, RAGGED) else None
        pieces += [literal, Field(match[1], tokens, many=match[2] == MANY, ragged=match[2] == RAGGED)]
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
        if (known.many, known.ragged) != (piece.many, piece.ragged):
            raise ValueError(f"the prompt writes the field {{{piece.name}}} in two ways: say each time how many media it takes")
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
