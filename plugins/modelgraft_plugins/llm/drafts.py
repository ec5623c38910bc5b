"""Drafts, as checks see them: whether a smaller model has the tokens of the one that it guesses for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import SolvedNode, Space

if TYPE_CHECKING:
    from modelgraft.plugin import Source
    from modelgraft_plugins.llm import CausalConfig

FILE, FAMILY = "tokenizer.json", "guessed tokens"
OF_PROMPTS = ("prompt", "chat", "chat_template", "system", "states")  # fields of a language model that a draft has no use for


def tokens_of(source: Source) -> str | None:
    """What tells the tokens of a source from those of others: a digest of the pieces that its tokenizer knows, with their ids. Tokens that
    are added to these, such as those that mark roles, do not count. None where no such file is on this machine, or it cannot be read."""
    path = source.path(FILE)
    if path is None or not path.is_file():
        return None
    try:
        model: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model"]
        pieces = model["vocab"]
        known = pieces.items() if isinstance(pieces, dict) else ((piece[0], number) for number, piece in enumerate(pieces))
        text = json.dumps(sorted(known), ensure_ascii=False)
    except (ValueError, KeyError, TypeError, IndexError, OSError):
        return None  # opening it says what is wrong
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def space(tokenizer: str | None) -> Space:
    """What a draft says of its tokens."""
    return Space.of(FAMILY, tokenizer=tokenizer)


def review(config: CausalConfig, node: SolvedNode) -> Iterator[tuple[str, str, str]]:
    """Give the `space-mismatch` of a model and its draft: that is none, or both tokenizers are on this machine and know other tokens."""
    if config.draft_space is None or config.draft_space.family != FAMILY:
        found = f"{node.name}.draft takes a smaller model that guesses, and what is wired to it is none"
        yield "space-mismatch", found, "wire a node to it: {use: llm/draft, from: ...}"
        return
    given = dict(config.draft_space.facts).get("tokenizer")
    own = tokens_of(node.source) if given is not None and node.source is not None else None
    if own is None or own == given or node.source is None:
        return
    found = f"the draft of {node.name} has other tokens than {node.source.text} (the vocabularies of their {FILE} differ)"
    yield "space-mismatch", found, f"take a smaller model with the same tokenizer, or leave `draft` out of {node.name}"
