"""Which tokenizer a source has, known without loading it. Light: any plugin may import it."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from modelgraft import Space
from modelgraft.plugin import families

if TYPE_CHECKING:
    from modelgraft.plugin import Source

VOCABULARIES = (
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "beit3.spm",
    "qwen.tiktoken",
)  # of tokenizers without a tokenizer.json
# what files call what stands for a medium: a picture, that of InternVL, a sound
IMAGE_TOKENS = ("image_token", "context_image_token", "audio_token")
KIND = "Tokenizer"  # how the classes of tokenizers end


def tokenizer_identity(source: Source, folder: str = "") -> str | None:
    """Name the vocabulary of a source's tokenizer; equal names mean that every id stands for the same token.

    folder  of the source that holds the tokenizer's files, or "" for the source itself
    returns the kind alone, such as `CLIPTokenizer`, when the vocabulary is not on this machine; None when that is unknown too
    """
    inside = f"{folder}/" if folder else ""
    path = source.path(f"{inside}tokenizer.json")
    if path is not None:
        return _of_tokenizer(path, path.stat().st_mtime_ns)
    for name in VOCABULARIES:
        if (found := source.path(inside + name)) is not None:
            return _name(found.read_bytes(), None)
    kind = str((source.json(f"{inside}tokenizer_config.json") or {}).get("tokenizer_class", "")).removesuffix("Fast")
    return kind if kind.endswith(KIND) and kind != "PreTrainedTokenizer" else None


def image_token(source: Source) -> str | None:
    """The text that stands for a picture, or a sound, in the prompts of a source; None when neither its files nor its card name one."""
    for file in ("processor_config.json", "tokenizer_config.json"):
        told = source.json(file) or {}
        named = told.get("extra_special_tokens")
        for table in (told, named if isinstance(named, dict) else {}):
            for name in IMAGE_TOKENS:
                text = table.get(name)
                text = text.get("content") if isinstance(text, dict) else text
                if isinstance(text, str) and text:
                    return text
    stated: str | None = families().whole(source.root.get("model_type")).components.get("llm/causal", {}).get("placeholder")
    return stated


def added_tokens(source: Source) -> frozenset[str] | None:
    """The tokens that a source has beside its vocabulary, such as those that mark pictures; None where no tokenizer.json says so."""
    path = source.path("tokenizer.json")
    return _added(path, path.stat().st_mtime_ns) if path is not None else None


def begin_token(source: Source) -> str | None:
    """The token that begins a text, as the tokenizer's files name it; None when they name none."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        found = (source.json(file) or {}).get("bos_token")
        text = found.get("content") if isinstance(found, dict) else found
        if isinstance(text, str) and text:
            return text
    return None


def token_space(identity: str | None) -> Space | None:
    """The value space of token ids of a tokenizer; None when it is not known. A kind is compared with a kind alone."""
    if identity is None:
        return None
    return Space.of("tokens", kind=identity) if identity.endswith(KIND) else Space.of("tokens", tokenizer=identity)


@lru_cache(maxsize=32)
def _added(path: Path, _changed: int) -> frozenset[str] | None:
    try:
        return frozenset(str(entry["content"]) for entry in json.loads(path.read_text(encoding="utf-8"))["added_tokens"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # not a tokenizer: whoever loads it says so


@lru_cache(maxsize=32)
def _of_tokenizer(path: Path, _changed: int) -> str | None:
    """Hash the ids and their tokens alone: the rest of the file differs between versions that write it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = found["model"]["vocab"]
        added = {entry["content"]: entry["id"] for entry in found.get("added_tokens", ())}
        listed = vocabulary.items() if isinstance(vocabulary, dict) else ((entry[0], index) for index, entry in enumerate(vocabulary))
        ids = {index: token for token, index in listed} | {index: token for token, index in added.items()}
        return _name("\0".join(f"{index} {ids[index]}" for index in sorted(ids)).encode(), len(ids))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # not a tokenizer: whoever loads it says so


def _name(content: bytes, count: int | None) -> str:
    digest = hashlib.sha256(content).hexdigest()[:12]
    return f"{digest} ({count} tokens)" if count is not None else digest
