"""Tokenizers that are kept as ranks of byte strings, as tiktoken has them: read by the package `tokenizers`, tiktoken is not needed.

A file has a line for each token, its bytes in base64 and its rank. How texts are cut before, and which marks there are, says the code of
the model alone; here that of Qwen of 2023, with the marks of Qwen-VL where its config says that it sees. Marks that belong to what is
said, such as <ref> and <box>, are shown in texts; those that belong to its form, such as <img> and <|im_end|>, are not.
Source: `tokenization_qwen.py`; the conversion is that of transformers. Any plugin may import it.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from modelgraft.plugin import damaged

QWEN = "qwen.tiktoken"
FILES = (QWEN,)
MOST_BYTES = 64 << 20  # of a file: that of Qwen has 2.5 MB
WORDS = (  # how Qwen cuts texts: every digit by itself
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END = "<|endoftext|>"
FORM = (END, "<|im_start|>", "<|im_end|>", *(f"<|extra_{number}|>" for number in range(205)))
SAID = ("<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
SEEN = ("<img>", "</img>", "<imgpad>")


def open_tokenizer(folder: Path) -> Any | None:  # Any: a tokenizer of transformers, which is only partly annotated
    """The tokenizer of a folder that keeps one of these files and nothing else; None where it does not.

    Raises SourceError `source-damaged` for a file that is none.
    """
    if not (folder / QWEN).is_file() or (folder / "tokenizer.json").is_file():
        return None
    from tokenizers import AddedToken, normalizers
    from transformers import PreTrainedTokenizerFast

    made = _converted(folder / QWEN)
    made.normalizer = normalizers.NFC()
    sees = _sees(folder)
    marks = [(mark, True) for mark in FORM]
    if sees:
        marks += [*((mark, False) for mark in SAID), *((mark, True) for mark in SEEN)]
    for mark, is_special in marks:  # one by one: they take the next ids in this order
        token = AddedToken(mark, normalized=False, special=is_special)
        _ = made.add_special_tokens([token]) if is_special else made.add_tokens([token])
    build: Any = PreTrainedTokenizerFast  # it is not annotated
    return build(tokenizer_object=made, eos_token=END, pad_token=END)


def _converted(path: Path) -> Any:
    """The ranks as a tokenizer of the package `tokenizers`."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    ranks = _ranks(path)

    class Converter(TikTokenConverter):
        """The same, without the package tiktoken for reading the file."""

        @staticmethod
        def load_tiktoken_bpe(_name: str) -> dict[bytes, int]:
            """What was read."""
            return ranks

    build: Any = Converter  # it is not annotated
    return build(vocab_file=str(path), pattern=WORDS).converted()


def _ranks(path: Path) -> dict[bytes, int]:
    """Bytes of a token -> its id, from 0 on without a gap."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise damaged(path, f"has {size:,} bytes; at most {MOST_BYTES:,} are read")
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise damaged(path, f"has no token and its number in line {number}") from error
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise damaged(path, f"has {len(ranks):,} tokens, which are not numbered from 0 on, or not each byte among them")
    return ranks


def _sees(folder: Path) -> bool:
    """Whether the model beside it has the marks of pictures and boxes."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(config, dict) or "visual" in config or config.get("model_type") != "qwen"
