"""The work of text/tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from modelgraft.plugin import InputError, LoadContext, Problem, SourceError
from modelgraft_plugins import long_texts, sentence_pieces
from modelgraft_plugins.text.cleaning import mended

if TYPE_CHECKING:
    from modelgraft_plugins.text import Tokenizer as Config

Tokenizer = Any  # the tokenizers of transformers are not annotated


def load(config: Config, context: LoadContext) -> Callable[[Any], dict[str, Tensor]]:
    """Open the tokenizer and make the function from texts, or lists of texts with `many`, to ids and mask."""
    tokenizer = _open(config, context)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token

    def one_each(texts: list[str]) -> dict[str, Tensor]:
        if config.clean == "web":
            texts = [mended(text, name=context.node.name) for text in texts]
        return _encode(tokenizer, texts, config)

    def many_each(records: list[list[str]]) -> dict[str, Tensor]:
        most = max(len(texts) for texts in records)
        if not most:
            raise InputError(f"{context.node.name}: no record has a text: give at least one")
        padded = [text for texts in records for text in (*texts, *[""] * (most - len(texts)))]
        found = one_each(padded)
        there = torch.tensor([[place < len(texts) for place in range(most)] for texts in records])
        return {**{name: tensor.view(len(records), most, -1) for name, tensor in found.items()}, "there": there}

    return many_each if config.many else one_each


def _open(config: Config, context: LoadContext) -> Tokenizer:
    source = context.node.source
    home = context.weights.home if context.weights is not None else source.path() if source is not None else None
    if home is None:
        called = "no source" if source is None else source.text
        found = f"{context.node.name}: {called} has no files of a tokenizer on this machine"
        raise SourceError(
            Problem("no-tokenizer", found, context.node.place, "name a folder that has tokenizer.json or the files of a vocabulary")
        )
    folder = home / config.folder
    try:
        alone = sentence_pieces.pieces_file(folder)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True) if alone is None else sentence_pieces.open_pieces(alone)
    except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
        found = f"{folder} has no tokenizer that transformers can open: {str(error).partition(chr(10))[0]}"
        hint = "name another source that has one, such as a folder with tokenizer.json; for CLIP, that vocabulary of its authors"
        raise SourceError(Problem("no-tokenizer", found, context.node.place, hint, node=context.node.name)) from error


def _bounded(tokenizer: Tokenizer, text: str, config: Config) -> str:
    """A text, or as much of it as is read of it. Raises InputError for one that is far too long, before it is cut into tokens."""
    most = config.max_length or long_texts.MOST_TOKENS

    def count(piece: str) -> int:
        return len(tokenizer(piece, add_special_tokens=False, verbose=False).input_ids)

    if config.truncate and config.max_length and tokenizer.truncation_side == "right":
        return long_texts.beginning(text, most, count)
    if not config.truncate and long_texts.more_than(text, most, count):
        way_out = "shorten it, or set truncate: true" if config.max_length else "shorten it"
        raise InputError(f"a text of {len(text):,} letters has more than {most:,} tokens, which is the most: {text[:60]!r}...; {way_out}")
    return text


def _encode(tokenizer: Tokenizer, texts: list[str], config: Config) -> dict[str, Tensor]:
    """Encode a flat list of texts: int64[texts tokens] and bool[texts tokens]."""
    if config.without:
        texts = [text.replace(config.without, "") for text in texts]
    texts = [_bounded(tokenizer, text, config) for text in texts]
    limit = {"max_length": config.max_length} if config.max_length else {}
    padding = {"padding": config.padding, **limit} if config.padding == "max_length" else {"padding": True}
    cut = {"truncation": True, **limit} if config.truncate and config.max_length else {}
    found = tokenizer(texts, return_tensors="pt", return_attention_mask=True, **{**padding, **cut})
    ids: Tensor = found["input_ids"].to(torch.int64)  # of texts without a token it is made of floats
    if config.vocab_size and ids.numel() and (strange := int(ids.max())) >= config.vocab_size:
        known = f"the embeddings that read it have {config.vocab_size:,} rows (0 to {config.vocab_size - 1:,})"
        way_out = "leave it out of the text, or take the tokenizer and the weights of one checkpoint"
        raise InputError(f"the tokenizer writes {tokenizer.decode([strange])!r} as the id {strange:,}, and {known}: {way_out}")
    if config.max_length and ids.shape[1] > config.max_length:
        lengths = found["attention_mask"].sum(dim=1).tolist()
        worst = max(range(len(texts)), key=lambda index: lengths[index])
        found_long = f"a text has {lengths[worst]} tokens and {config.max_length} is the most: {texts[worst][:60]!r}..."
        raise InputError(f"{found_long}; shorten it, or set truncate: true")
    mask = found["attention_mask"].to(torch.bool)
    return {"ids": ids if config.pad_id is None else ids.masked_fill(~mask, config.pad_id), "mask": mask}
