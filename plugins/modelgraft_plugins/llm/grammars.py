"""Answers that match a regular expression, or are documents of a JSON Schema: llguidance follows them token by token.

Source: github.com/guidance-ai/llguidance, which is asked before every token which ones may come next. Extra: modelgraft[grammar].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError
from modelgraft_plugins.llm.tokens import Bytes, Tokenizer
from modelgraft_plugins.llm.writing import WritingConfig

SPACES = r"[ \n\t]{0,20}"  # between the parts of a document: as people indent, and no endless run of them
BITS = 8


class Grammars:
    """Makes guides for one tokenizer and one vocabulary; what it makes of them is kept."""

    def __init__(self, tokenizer: Tokenizer, *, vocabulary: int, end_ids: Sequence[int], node: str) -> None:
        """vocabulary: how many tokens the model chooses from.

        Raises InputError where llguidance is not installed, or the tokenizer is none that it knows.
        """
        try:
            import llguidance
        except ImportError as error:
            found = f"{node}: answers of a given form need the package llguidance"
            raise InputError(f"{found}: pip install 'modelgraft[grammar]'") from error
        self.node, self.library = node, llguidance
        self.tokenizer: Any = _tokenizer(llguidance, tokenizer, vocabulary, list(end_ids), node=node)

    def guide(self, config: WritingConfig) -> Following:
        """What bounds one answer. Raises InputError for an expression or a schema that is not understood."""
        matcher = self.library.LLMatcher
        if config.matching is not None:
            what, grammar = f"{self.node}.matching: {config.matching!r}", matcher.grammar_from_regex(config.matching)
        else:
            what, schema = f"{self.node}.json_schema", json.dumps(config.json_schema)
            grammar = matcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": SPACES})
        made = matcher(self.tokenizer, grammar, log_level=0)
        if made.is_error():
            raise InputError(f"{what} is not understood: {' '.join(made.get_error().split())}")
        return Following(made)


class Following:
    """A guide: see modelgraft.plugin.Guide."""

    def __init__(self, matcher: Any) -> None:  # Any: of llguidance
        self.matcher = matcher

    @property
    def is_over(self) -> bool:
        """See Guide."""
        return bool(self.matcher.is_stopped())

    @property
    def is_complete(self) -> bool:
        """What was written is all that was asked for."""
        return self.is_over or bool(self.matcher.is_accepting())

    def allowed(self) -> Tensor:
        """See Guide."""
        packed = torch.frombuffer(bytearray(self.matcher.compute_bitmask()), dtype=torch.uint8)
        return (packed[:, None] >> torch.arange(BITS, dtype=torch.uint8) & 1).flatten().bool()

    def take(self, token: int) -> None:
        """See Guide."""
        self.matcher.consume_token(token)


def cut_short(guides: Sequence[Following], config: WritingConfig) -> list[tuple[int, str]]:
    """The rows whose answers ran out of tokens before they were what was asked for, with what is to be told of each."""
    what = "matches `matching`" if config.matching is not None else "is a document of `json_schema`"
    told = f"ended before it {what}: raise max_new_tokens ({config.max_new_tokens:,})"
    return [(row, told) for row, guide in enumerate(guides) if not guide.is_complete]


def _tokenizer(library: Any, tokenizer: Tokenizer, vocabulary: int, end_ids: list[int], *, node: str) -> Any:
    inner = tokenizer.inner
    if isinstance(inner, Bytes):
        return library.LLTokenizer(library.TokenizerWrapper(_Spelt(inner, vocabulary, end_ids)), n_vocab=vocabulary)
    text = inner.to_text() if hasattr(inner, "to_text") else _written(inner)
    if text is None:
        raise InputError(f"{node}: answers of a given form need a tokenizer of the package tokenizers, and {tokenizer.place} has another")
    size = len(json.loads(text)["model"].get("vocab", ()))
    return library.LLTokenizer(text, n_vocab=max(vocabulary, size), eos_token=end_ids or None)


def _written(inner: Any) -> str | None:
    backend = getattr(inner, "backend_tokenizer", None)
    return None if backend is None else str(backend.to_str())


class _Spelt:
    """One token per byte, as llguidance asks for a tokenizer."""

    def __init__(self, inner: Bytes, vocabulary: int, end_ids: list[int]) -> None:
        plain = vocabulary - len(inner.added_tokens_encoder)
        self.eos_token_id, self.bos_token_id = end_ids[0] if end_ids else vocabulary - 1, None
        self.tokens = [bytes([token % 256]) for token in range(plain)] + [name.encode() for name in inner.added_tokens_encoder]
        self.special_token_ids = [*range(plain, vocabulary), self.eos_token_id]

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())
