"""Texts for whole generators: the tokenizer that lies beside the text encoder, and what becomes of texts that are too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from transformers import AutoTokenizer

from modelgraft.plugin import LoadContext, Problem, SourceError

Tokenizer = Any  # the tokenizers of transformers are not annotated


def tokenizer_beside(context: LoadContext) -> Tokenizer:
    """The tokenizer of a folder. Raises SourceError `no-tokenizer`."""
    source = context.node.source
    home = context.weights.folder if context.weights is not None else source.path() if source is not None else None
    hint = "name a whole folder in the layout of diffusers, which has tokenizer/"
    if home is None:
        called = "no source" if source is None else source.text
        found = f"{context.node.name}: {called} has no tokenizer on this machine"
        raise SourceError(Problem("no-tokenizer", found, context.node.place, hint))
    try:
        return AutoTokenizer.from_pretrained(home / "tokenizer", local_files_only=True)
    except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
        found = f"{home / 'tokenizer'} has no tokenizer that transformers can open: {str(error).partition(chr(10))[0]}"
        raise SourceError(Problem("no-tokenizer", found, context.node.place, hint, node=context.node.name)) from error


def cut(tokenizer: Tokenizer, texts: Sequence[str], *, most: int, padding: str, say: Callable[[str], None]) -> tuple[Tensor, Tensor]:
    """Ids and mask int64[batch tokens]; texts that are longer than `most` tokens are cut, which is said.

    padding  "longest" of the batch, or always "max_length"
    """
    found = tokenizer(list(texts), padding=padding, max_length=most, truncation=True, return_tensors="pt")
    for text in texts:
        count = len(tokenizer(text, verbose=False).input_ids)
        if count > most:
            say(f"a prompt has {count} tokens, of which {most} are read: {text[:60]!r}...; shorten it")
    return found.input_ids, found.attention_mask
