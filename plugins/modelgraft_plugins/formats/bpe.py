"""Build a `tokenizer.json` from the vocabulary and merges of a byte-level BPE, as GGUF files and Whisper carry them.

The ways to split text before merging are those of the models' own tokenizers; the names are GGUF's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
_GPT2 = {**_BYTES, "use_regex": True}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _in_turn(*steps: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps)}


_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLITS: Mapping[str, Mapping[str, Any]] = {
    "gpt-2": _GPT2,
    "default": _GPT2,
    "smollm": _in_turn({"type": "Digits", "individual_digits": True}, _GPT2),
    "llama-bpe": _in_turn(_split(_WORDS % r"\p{N}{1,3}"), _BYTES),
    "qwen2": _in_turn(_split(_WORDS % r"\p{N}"), _BYTES),
}


def tokenizer_json(
    tokens: Sequence[str],
    merges: Sequence[str],
    *,
    split: str,
    special: Sequence[int],
    added: Sequence[int],
    first: int | None,
    last: int | None = None,
) -> dict[str, Any]:
    """Give the content of `tokenizer.json`.

    special  ids that are markers and vanish when text is decoded;  added  ids that are matched whole but are text
    first    the id that starts every text, or None;  last  the id that ends it

    Raises ValueError for a way of splitting that is not in SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"its tokenizer splits text in the way '{split}'; the ways known are {', '.join(SPLITS)}")
    marked = set(special)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(id, tokens[id], special=id in marked) for id in sorted(marked | set(added))],
        "normalizer": {"type": "NFC"} if split == "qwen2" else None,
        "pre_tokenizer": SPLITS[split],
        "post_processor": around(tokens, first=first, last=last) or {**_BYTES, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": split == "llama-bpe",  # whole words of the vocabulary first, as that tokenizer does
            "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": _listed(merges),
        },
    }


def _listed(merges: Sequence[str]) -> list[str] | list[list[str]]:
    """Merges as the package `tokenizers` reads them soonest, which is a text for each; pairs where one could be taken for another thing."""
    if all(merge.count(" ") == 1 and not merge.startswith("#version") for merge in merges):
        return [*merges]
    return [merge.split(" ", 1) for merge in merges]


def _added(id: int, content: str, *, special: bool) -> dict[str, Any]:
    return {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special}


def around(tokens: Sequence[str], *, first: int | None, last: int | None) -> dict[str, Any] | None:
    """The post-processor that puts tokens around every text, or None when there are none."""
    known = {tokens[id]: {"id": tokens[id], "ids": [id], "tokens": [tokens[id]]} for id in (first, last) if id is not None}

    def one(letter: str, kind: int) -> list[dict[str, Any]]:
        text = {"Sequence": {"id": letter, "type_id": kind}}
        ends = [[] if id is None else [{"SpecialToken": {"id": tokens[id], "type_id": kind}}] for id in (first, last)]
        return [*ends[0], text, *ends[1]]

    if not known:
        return None
    return {"type": "TemplateProcessing", "single": one("A", 0), "pair": [*one("A", 0), *one("B", 1)], "special_tokens": known}
