"""The work of fromage/words. Source: `CsvDataset.__getitem__` of its code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelgraft.plugin import LoadContext, Problem, SourceError
from modelgraft_plugins import kept_tokenizers, long_texts

if TYPE_CHECKING:
    from modelgraft_plugins.fromage import Words


def load(config: Words, context: LoadContext) -> Callable[[list[str]], dict[str, Tensor]]:
    """Open the tokenizer and make the function from captions to ids and mask. Raises SourceError `no-tokenizer`."""
    inner = _open(config, context)
    ret = inner.convert_tokens_to_ids(config.extra_tokens[-1])

    def count(piece: str) -> int:
        return len(inner(piece, add_special_tokens=False).input_ids)

    def cut(texts: list[str]) -> dict[str, Tensor]:
        near = [long_texts.beginning(text, config.max_length, count) for text in texts]
        rows = [inner(text + config.extra_tokens[-1]).input_ids[: config.max_length] for text in near]
        rows = [row if row[-1] == ret else [*row[:-1], ret] for row in rows]
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[config.pad_id] * (longest - len(row))] for row in rows], dtype=torch.int64)
        return {"ids": ids, "mask": torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]}

    return cut


def _open(config: Words, context: LoadContext) -> kept_tokenizers.Inner:
    node, source = context.node, context.node.source
    home = context.weights.home if context.weights is not None else source.path() if source is not None else None
    hint = "name a source that holds the tokenizer of an OPT"
    if home is None:
        found = f"{node.name}: {'no source' if source is None else source.text} has no files of a tokenizer on this machine"
        raise SourceError(Problem("no-tokenizer", found, node.place, hint, node=node.name))
    folder = home if home.is_dir() else home.parent
    try:
        inner = kept_tokenizers.open_tokenizer(folder)
    except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
        found = f"{folder} has no tokenizer that transformers can open: {str(error).partition(chr(10))[0]}"
        raise SourceError(Problem("no-tokenizer", found, node.place, hint, node=node.name)) from error
    new = [token for token in config.extra_tokens if token not in inner.added_tokens_encoder]
    if new:
        inner.add_tokens(new, special_tokens=True)
    return inner
