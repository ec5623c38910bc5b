"""The tokenizer of XLM-RoBERTa from the file of SentencePiece alone, as BEiT-3 was published with it (`beit3.spm`).

transformers opens such a file where others beside it name its class, and needs the package sentencepiece for it. Here the pieces are
read out of the file, which is a protocol buffer: field 1 of ModelProto, each with its text and score, and the table of characters of
its normaliser. A piece has the id of its place in the file and one more: `<s>` 0, `<pad>` 1, `</s>` 2, `<unk>` 3, pieces, `<mask>` last.

Any plugin may import this module, inside its implementation modules only: `open_pieces` imports transformers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("sentencepiece.bpe.model", "beit3.spm")
OTHERS = ("tokenizer.json", "tokenizer_config.json")  # files that say themselves how a tokenizer is built
FIRST = 3  # pieces that SentencePiece has for `<unk>`, `<s>` and `</s>`
UNIGRAM = 1  # of its kinds of models

# numbers of fields in sentencepiece_model.proto
PIECE, TRAINER, NORMALIZER = 1, 2, 3
TEXT, SCORE = 1, 2  # of a piece
KIND = 3  # of the trainer
CHARACTERS = 2  # of the normaliser
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # kinds of fields


def pieces_file(folder: Path) -> Path | None:
    """The file of SentencePiece that is all there is of a folder's tokenizer; None where others say more, or it has none."""
    if any((folder / name).is_file() for name in OTHERS):
        return None
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def open_pieces(path: Path) -> Any:
    """The tokenizer of transformers over such a file. `Any`: its class has no annotations.

    Raises ValueError for a file that is none, or holds a model that is not of XLM-RoBERTa's kind.
    """
    from tokenizers import normalizers
    from transformers import XLMRobertaTokenizer

    pieces, characters = read(path)
    specials = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    tokenizer: Any = XLMRobertaTokenizer(vocab=[*specials, *pieces[FIRST:], ("<mask>", 0.0)])
    if characters:
        tokenizer.backend_tokenizer.normalizer = normalizers.Precompiled(characters)
    return tokenizer


def read(path: Path) -> tuple[list[tuple[str, float]], bytes]:
    """The pieces of a file with their scores, and the table of characters of its normaliser. Raises ValueError as `open_pieces` does."""
    pieces, characters, kind = list[tuple[str, float]](), b"", UNIGRAM
    try:
        for field, value in _fields(path.read_bytes()):
            if field == PIECE:
                inside = dict(_fields(value))
                pieces.append((inside[TEXT].decode("utf-8"), inside.get(SCORE, 0.0)))
            elif field == TRAINER:
                kind = dict(_fields(value)).get(KIND, UNIGRAM)
            elif field == NORMALIZER:
                characters = dict(_fields(value)).get(CHARACTERS, b"")
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, struct.error) as error:
        raise ValueError(f"{path} is no file of SentencePiece, or was cut: {error}") from error
    if kind != UNIGRAM or len(pieces) <= FIRST:
        found = f"{len(pieces)} pieces" if kind == UNIGRAM else f"a model of the kind {kind}"
        raise ValueError(f"{path} holds {found}, wanted a unigram model with more than its {FIRST} special pieces, as XLM-RoBERTa has")
    return pieces, characters


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a message. `Any`: a number, or bytes that are a text or a message in turn."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == VARINT:
            value, place = _varint(data, place)
            yield tag >> 3, value
            continue
        size, place = _varint(data, place) if kind == BYTES else ({EIGHT: 8, FOUR: 4}[kind], place)
        if place + size > len(data):
            raise ValueError(f"a field ends at byte {place + size} of {len(data)}")
        part, place = data[place : place + size], place + size
        yield tag >> 3, part if kind == BYTES else struct.unpack("<f" if kind == FOUR else "<d", part)[0]


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place behind it."""
    value, shift = 0, 0
    while True:
        byte = data[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place
