"""A small vocabulary in the layout of tiktoken, and an encoder that is slow and obvious."""

from __future__ import annotations

import base64
import itertools
import unicodedata
from collections import Counter
from pathlib import Path

import regex

from modelgraft_plugins.tiktoken_files import FORM, QWEN, SAID, SEEN, WORDS
from support.tokenizers import SENTENCES

MARKS = (*FORM, *SAID, *SEEN)


def vocabulary(merges: int = 60) -> dict[bytes, int]:
    """All bytes, and what a plain byte pair encoding makes of a few sentences."""
    tokens = [bytes([byte]) for byte in reversed(range(256))]
    words = [[bytes([byte]) for byte in word.encode()] for text in SENTENCES for word in regex.findall(WORDS, text)]
    for _ in range(merges):
        pairs = Counter((one, other) for word in words for one, other in itertools.pairwise(word))
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        tokens.append(b"".join(best))
        words = [merged(word, best) for word in words]
    return {token: rank for rank, token in enumerate(dict.fromkeys(tokens))}


def merged(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """A word in which every such pair is one piece."""
    found: list[bytes] = []
    for piece in word:
        if found and (found[-1], piece) == pair:
            found[-1] += piece
        else:
            found.append(piece)
    return found


def write(folder: Path, ranks: dict[bytes, int]) -> Path:
    """The file, as Qwen has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items())
    path = folder / QWEN
    path.write_text("\n".join(lines) + "\n")
    return path


def encode(text: str, ranks: dict[bytes, int], marks: tuple[str, ...] = MARKS) -> list[int]:
    """Cut at marks, then into words, then join what has the lowest rank, the first of several, until nothing can be joined."""
    ids: list[int] = []
    for piece in regex.split(f"({'|'.join(map(regex.escape, marks))})", unicodedata.normalize("NFC", text)):
        if piece in marks:
            ids.append(len(ranks) + marks.index(piece))
            continue
        for word in regex.findall(WORDS, piece):
            ids += [ranks[part] for part in _joined([bytes([byte]) for byte in word.encode()], ranks)]
    return ids


def _joined(parts: list[bytes], ranks: dict[bytes, int]) -> list[bytes]:
    if b"".join(parts) in ranks:
        return [b"".join(parts)]
    while True:
        pairs = [(ranks[one + other], at) for at, (one, other) in enumerate(itertools.pairwise(parts)) if one + other in ranks]
        if not pairs:
            return parts
        _, at = min(pairs)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
