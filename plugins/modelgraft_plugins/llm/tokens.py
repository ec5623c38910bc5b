"""The tokenizer of a source, and the little that prompts need of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext, Problem, SourceError
from modelgraft_plugins import chat_templates, kept_tokenizers
from modelgraft_plugins.chat_rendering import Renderer
from modelgraft_plugins.kept_tokenizers import Encoded

if TYPE_CHECKING:
    from modelgraft_plugins.llm.config import LanguageConfig

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "qwen.tiktoken")


APART = "\ufdd0"  # no letter: the tokens before and behind it are made apart, so that none is made across it


def as_letters(text: str, tokens: Sequence[str]) -> str:
    """A text in which these tokens are letters like others: each is cut behind its first one."""
    text = text.replace(APART, "")
    for token in sorted(tokens, key=len, reverse=True):  # one may hold another
        text = text.replace(token, token[0] + APART + token[1:])
    return text


class Tokenizer:
    """Text to token ids and back, by a tokenizer of transformers.

    placeholder_id  the id of the placeholder of media, None when the tokenizer does not know it
    templates       chat templates by name;  place  where they lie, for messages
    before, after   what it puts around every text: begin and end tokens
    """

    def __init__(
        self,
        inner: kept_tokenizers.Inner,
        *,
        placeholder: str,
        templates: chat_templates.Templates | None = None,
        place: str = "the tokenizer",
    ) -> None:
        self.inner, self.templates, self.place = inner, templates or {}, place
        self._renderer = Renderer()
        known: dict[str, int] = inner.added_tokens_encoder
        self.placeholder, self.placeholder_id = placeholder, known.get(placeholder)
        bare, full = self.plain("a"), self.full("a")
        start = next((i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare), 0)
        self.before, self.after = full[:start], full[start + len(bare) :]

    def plain(self, text: str) -> list[int]:
        """The ids of a text alone; see `as_letters` for what stands apart in it."""
        if APART in text:
            return [token for piece in text.split(APART) for token in self.plain(piece)]
        ids: list[int] = self.inner(text, add_special_tokens=False).input_ids if text else []
        return ids

    def guarded(self, template: str, *more: str) -> list[str]:
        """The tokens that say where a role or a medium begins: the placeholder, the tokenizer's own special tokens, those that a chat
        template writes, and more."""
        named = [token for value in self.inner.special_tokens_map.values() for token in ([value] if isinstance(value, str) else [])]
        written = [token for token in self.inner.added_tokens_encoder if token in template]
        return [token for token in dict.fromkeys([self.placeholder, *named, *written, *more]) if len(token) > 1]

    def full(self, text: str) -> list[int]:
        """The ids of a text with the begin and end tokens that belong to it; see `as_letters` for what stands apart in it."""
        if APART in text:
            return [*self.before, *self.plain(text), *self.after]
        ids: list[int] = self.inner(text).input_ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens left out."""
        text: str = self.inner.decode(ids, skip_special_tokens=True)
        return text

    def id_of(self, token: str) -> int | None:
        """The id of a token given as a string, or None when there is no such token."""
        found = self.inner.convert_tokens_to_ids(token)
        is_there = found is not None and (found != self.inner.unk_token_id or token == self.inner.unk_token)
        return int(found) if is_there else None

    def chat_template(self, name: str | None = None) -> str | None:
        """The chat template of a name, or the default one; None when there are none. Raises SourceError `no-chat-template`."""
        return chat_templates.choose(self.templates, name, place=self.place)

    @property
    def named_ids(self) -> frozenset[int]:
        """The tokens that have names of their own, but for the placeholder: a chat template ends answers with one."""
        return frozenset(self.inner.added_tokens_encoder.values()) - {self.placeholder_id}

    def chat(self, messages: list[dict[str, Any]], *, template: str, asks: bool = True) -> str:
        """Messages in a chat template; asks: ready for the answer. Raises InputError, SourceError: see Renderer.render."""
        names = {**self.inner.special_tokens_map, "placeholder": self.placeholder}
        return self._renderer.render(template, messages, names=names, place=self.place, asks=asks)


class Bytes:
    """What stands in for `transformers`' tokenizer of a model with random weights and no source: one id per byte of UTF-8.

    The tokens that are added to it have the last ids of the vocabulary.
    """

    unk_token, unk_token_id = None, None
    special_tokens_map: Mapping[str, str] = {}

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self.added_tokens_encoder: dict[str, int] = {}
        self.words: dict[int, str] = {}  # of those the ones that texts show

    def __call__(self, text: str, **_: Any) -> Encoded:
        """The bytes of a text, with the added tokens as they are."""
        added, ids = self.added_tokens_encoder, list[int]()
        pieces = re.split(f"({'|'.join(map(re.escape, added))})", text) if added else [text]
        for piece in pieces:
            ids += [added[piece]] if piece in added else [byte % (self.vocabulary - len(added)) for byte in piece.encode()]
        return Encoded(ids)

    def decode(self, ids: list[int], **_: Any) -> str:
        """The text of the bytes; what is no UTF-8 becomes a replacement character, and an added token nothing."""
        added = self.added_tokens_encoder.values()
        shown = (
            self.words[token].encode() if token in self.words else bytes([token % 256])
            for token in ids
            if token not in added or token in self.words
        )
        return b"".join(shown).decode(errors="replace")

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """No token has a name but those that were added."""
        return self.added_tokens_encoder.get(token)

    def add_tokens(self, tokens: Sequence[str], *, special_tokens: bool = True) -> None:
        """Give the last ids to all that were added, in their order."""
        named = [*self.added_tokens_encoder, *tokens]
        shown = {*self.words.values(), *(() if special_tokens else tokens)}
        self.added_tokens_encoder = {token: self.vocabulary - len(named) + index for index, token in enumerate(named)}
        self.words = {number: token for token, number in self.added_tokens_encoder.items() if token in shown}


def open_tokenizer(context: LoadContext, config: LanguageConfig, *, vocabulary: int) -> Tokenizer:
    """Open the tokenizer of a node's source. A model that starts from random numbers and has no files reads plain bytes.

    config      says the placeholder, what is added (extra_tokens as special ones, extra_words behind them) and what must be there
    vocabulary  how many tokens the model knows, those that are added among them

    Raises SourceError `no-tokenizer` when the source has none, `config-mismatch` for an extra token that it has already, and for one
    that it must have and lacks.
    """
    placeholder, extra, words = config.placeholder, config.extra_tokens, config.shown_words
    folder = _folder(context)
    there = folder is not None and any((folder / name).is_file() for name in FILES)
    if not there and context.init == "random" and context.weights is None:
        return Tokenizer(_extended(Bytes(vocabulary), extra, words, context), placeholder=placeholder)
    if folder is None or not there:
        raise _missing(context, f"{folder} has none of {', '.join(FILES)}" if folder is not None else "it has no folder on this machine")
    try:
        inner = kept_tokenizers.open_tokenizer(folder)
    except Exception as error:  # the package tokenizers raises Exception itself for a file that it cannot take
        raise _missing(context, f"its tokenizer files cannot be read: {error}") from error
    templates = chat_templates.find(folder)
    found = Tokenizer(_extended(inner, extra, words, context), placeholder=placeholder, templates=templates, place=str(folder))
    if lacking := [token for token in config.known_tokens if found.id_of(token) is None]:
        said = f"the tokenizer of {context.node.name} has no token {', '.join(map(repr, lacking[:4]))}, which its prompts are written with"
        hint = f"take the tokenizer that the model was trained with, or name it in {context.node.name}.extra_tokens to train it"
        raise SourceError(Problem("config-mismatch", said, context.node.place, hint, node=context.node.name))
    return found


def _extended(inner: kept_tokenizers.Inner, extra: Sequence[str], words: Sequence[str], context: LoadContext) -> kept_tokenizers.Inner:
    """Add tokens behind those there are, special ones first."""
    known = [token for token in (*extra, *words) if token in inner.added_tokens_encoder]
    if known:
        node = context.node
        found = f"the tokenizer of {node.name} has {', '.join(map(repr, known[:4]))} already"
        hint = f"leave it out of {node.name}.{'extra_tokens' if known[0] in extra else 'extra_words'}"
        raise SourceError(Problem("config-mismatch", found, node.place, hint, node=node.name))
    if extra:
        inner.add_tokens(list(extra), special_tokens=True)
    if words:
        inner.add_tokens(list(words), special_tokens=False)
    return inner


def _folder(context: LoadContext) -> Path | None:
    if context.weights is not None:
        return context.weights.home
    source = context.node.source
    found = (source.path("tokenizer.json") or source.path("config.json") or source.path()) if source is not None else None
    if found is None:
        return None
    return found if found.is_dir() else found.parent


def _missing(context: LoadContext, why: str) -> SourceError:
    node = context.node
    name = node.source.text if node.source is not None else "a node without a source"
    found = f"{node.name} ({node.component.id}) needs the tokenizer of {name}: {why}"
    return SourceError(Problem("no-tokenizer", found, node.place, "name a checkpoint that holds its tokenizer", node=node.name))
