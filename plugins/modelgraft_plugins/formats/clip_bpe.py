"""The vocabulary of CLIP as its authors keep it, `bpe_simple_vocab_16e6.txt.gz`: a line for each merge, as a folder with a tokenizer.

Source: `clip/simple_tokenizer.py` of OpenAI. Letters, letters at the end of a word, merges and two marks have their ids in this order.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft_plugins.formats import tensor_file
from modelgraft_plugins.formats.wild import tells_damage

VERSION = 2  # of the folders that are written
MOST_BYTES = 64 << 20  # of the text: that of CLIP has 3 MB
MOST_MERGES = 49152 - 256 - 2  # of the lines behind the first, as many are read: the others are of no use to its published models
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT, PUBLISHED = 77, 49408  # places of a text, and tokens of every published model
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"  # how texts are cut before letters are merged
SETTINGS = "modelgraft_tokenizer"  # a key of config.json that text/tokenizer reads


@tells_damage
def read(path: Path, folder: Path) -> None:
    """Write tokenizer.json, the configs beside it, and a file of no weights."""
    merges = _merges(path)
    tokens = _tokens(merges)
    tensor_file.write(folder / "model.safetensors", [], dtype="F32")
    config = {**peek(path), "vocab_size": len(tokens), "bos_token_id": len(tokens) - 2, "pad_token_id": 0}
    named = {"bos_token": BEGIN, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT, **named}
    for name, content in (("config", config), ("tokenizer", _tokenizer(tokens, merges)), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def peek(_path: Path) -> Mapping[str, Any]:
    """The config of the reader of texts that this vocabulary is for."""
    settings = {"clean": "web", "pad_id": 0}
    return {"model_type": "clip_text_model", "max_position_embeddings": CONTEXT, "vocab_size": PUBLISHED, SETTINGS: settings}


def _merges(path: Path) -> list[tuple[str, str]]:
    """The pairs in the order in which they are merged. Raises ValueError for another file."""
    try:
        with gzip.open(path) as file:
            content = file.read(MOST_BYTES + 1)
        lines = content.decode("utf-8").split("\n")[1 : MOST_MERGES + 1]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"it is no vocabulary of CLIP: {error}") from error
    pairs = [tuple(line.split()) for line in lines if line.strip()]
    if len(content) > MOST_BYTES or not pairs or any(len(pair) != 2 for pair in pairs):
        raise ValueError("it is no vocabulary of CLIP, which has a line of two pieces for each merge")
    return [(first, second) for first, second in pairs]


def _letters() -> list[str]:
    """What stands for each of the 256 bytes: those that can be seen first, the others as letters above them."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) for byte in seen] + [chr(256 + at) for at in range(len(others))]


def _tokens(merges: list[tuple[str, str]]) -> list[str]:
    letters = _letters()
    return [*letters, *(f"{letter}</w>" for letter in letters), *(first + second for first, second in merges), BEGIN, END]


def _tokenizer(tokens: list[str], merges: list[tuple[str, str]]) -> dict[str, Any]:
    """The content of tokenizer.json."""
    begin, end = len(tokens) - 2, len(tokens) - 1
    marks = [{"id": id, "content": tokens[id], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for id in (begin, end)]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": marks,
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Removed", "invert": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": {
            "type": "RobertaProcessing", "sep": [END, end], "cls": [BEGIN, begin], "trim_offsets": False, "add_prefix_space": False,
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": END, "continuing_subword_prefix": "", "end_of_word_suffix": "</w>",
            "fuse_unk": False, "byte_fallback": False, "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": [" ".join(pair) for pair in merges],  # read sooner than pairs; no letter is a space
        },
    }  # fmt: skip
