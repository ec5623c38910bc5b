"""The work of text/tokenizer: arrays on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modelgraft.plugin import InputError, LoadContext, Problem, SourceError
from modelgraft_plugins import kept_tokenizers, long_texts, sentence_pieces
from modelgraft_plugins.kept_tokenizers import rows_of
from modelgraft_plugins.text.cleaning import mended

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from modelgraft_plugins.text import Tokenizer as Config

Tokenizer = kept_tokenizers.Inner
Encoded = dict[str, Any]  # arrays by the ports
ENDLESS = 10**20  # what transformers takes for no limit of a text, and more


def load(config: Config, context: LoadContext) -> Callable[[Any], Encoded]:
    """Open the tokenizer and make the function from texts, or lists of texts with `many`, to ids and mask."""
    tokenizer = _open(config, context)

    def one_each(texts: list[str]) -> Encoded:
        if config.clean == "web":
            texts = [mended(text, name=context.node.name) for text in texts]
        return _encode(tokenizer, texts, config)

    def many_each(records: list[list[str]]) -> Encoded:
        most = max(len(texts) for texts in records)
        if not most:
            raise InputError(f"{context.node.name}: no record has a text: give at least one")
        padded = [text for texts in records for text in (*texts, *[""] * (most - len(texts)))]
        found = one_each(padded)
        there = np.arange(most) < np.array([len(texts) for texts in records])[:, None]
        return {**{name: array.reshape(len(records), most, array.shape[1]) for name, array in found.items()}, "there": there}

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
        build = None if alone is None else lambda _: sentence_pieces.open_pieces(alone)
        return kept_tokenizers.open_tokenizer(folder, writes=False, build=build)
    except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
        found = f"{folder} has no tokenizer that transformers can open: {str(error).partition(chr(10))[0]}"
        hint = "name another source that has one, such as a folder with tokenizer.json; for CLIP, that vocabulary of its authors"
        raise SourceError(Problem("no-tokenizer", found, context.node.place, hint, node=context.node.name)) from error


def _bounded(tokenizer: Tokenizer, text: str, config: Config) -> str:
    """A text, or as much of it as is read of it. Raises InputError for one that is far too long, before it is cut into tokens."""
    most = config.max_length or long_texts.MOST_TOKENS
    side = kept_tokenizers.filling_of(tokenizer).cuts

    def count(piece: str) -> int:
        return len(rows_of(tokenizer, [piece], add_special_tokens=False)[0])

    if config.truncate and config.max_length and side == "right":
        return long_texts.beginning(text, most, count)
    if not config.truncate and long_texts.more_than(text, most, count):
        way_out = "shorten it, or set truncate: true" if config.max_length else "shorten it"
        raise InputError(f"a text of {len(text):,} letters has more than {most:,} tokens, which is the most: {text[:60]!r}...; {way_out}")
    return text


def _encode(tokenizer: Tokenizer, texts: list[str], config: Config) -> Encoded:
    """Encode a flat list of texts: int64[texts tokens] and bool[texts tokens]."""
    if config.without:
        texts = [text.replace(config.without, "") for text in texts]
    texts = [_bounded(tokenizer, text, config) for text in texts]
    rows = rows_of(tokenizer, texts, most=config.max_length if config.truncate else None)
    lengths = list(map(len, rows))
    if config.max_length and max(lengths) > config.max_length:
        worst = max(range(len(texts)), key=lengths.__getitem__)
        found_long = f"a text has {lengths[worst]} tokens and {config.max_length} is the most: {texts[worst][:60]!r}..."
        raise InputError(f"{found_long}; shorten it, or set truncate: true")
    filling = kept_tokenizers.filling_of(tokenizer)
    number = filling.number if config.pad_id is None else config.pad_id
    if number is None:
        raise InputError("the tokenizer has no token that fills up shorter texts: say its id with pad_id")
    longest = max(lengths)
    if config.padding == "max_length":
        full = config.max_length or filling.most
        longest = max(longest, full) if full <= ENDLESS else longest
    ids, mask = _filled(rows, longest, number, on_left=filling.side == "left")
    _refuse_strange(ids, tokenizer, config)
    return {"ids": ids, "mask": mask}


def _filled(rows: Sequence[Sequence[int]], longest: int, number: int, *, on_left: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows filled up to one length with a number, and where their own are."""
    ids, mask = np.full((len(rows), longest), number, dtype=np.int64), np.zeros((len(rows), longest), dtype=bool)
    for index, row in enumerate(rows):
        own = slice(longest - len(row), longest) if on_left else slice(0, len(row))
        ids[index, own], mask[index, own] = row, True
    return ids, mask


def _refuse_strange(ids: NDArray[np.int64], tokenizer: Tokenizer, config: Config) -> None:
    """Raise InputError for an id that the embeddings have no row for."""
    if config.vocab_size and ids.size and (strange := int(ids.max())) >= config.vocab_size:
        known = f"the embeddings that read it have {config.vocab_size:,} rows (0 to {config.vocab_size - 1:,})"
        way_out = "leave it out of the text, or take the tokenizer and the weights of one checkpoint"
        raise InputError(f"the tokenizer writes {tokenizer.decode([strange])!r} as the id {strange:,}, and {known}: {way_out}")
