"""Whether prompt and answer fit into the context, as far as it is known before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from modelgraft.plugin import SolvedNode, SourceError
from modelgraft_plugins import chat_templates
from modelgraft_plugins.llm.template import Field

if TYPE_CHECKING:
    from modelgraft_plugins.llm.config import LanguageConfig

SPECIALS = 2  # a begin and an end token at most


def review_context(config: LanguageConfig, node: SolvedNode) -> Iterator[tuple[str, str, str]]:
    """Give the `context-overflow` of a decoder-only model, if there is one: at least so many tokens in so many positions."""
    limit = config.max_position_embeddings
    if limit is None:
        return
    parts = [(f"{field.name}", count) for field in config.fields if (count := _embeddings(node, field))]
    new = config.reserved
    known = sum(count for _, count in parts) + new
    literal, added = _without("".join(piece for piece in config.pieces if isinstance(piece, str)), config.extra_tokens)
    if added:
        parts.append(("tokens that are added to it", added))
        known += added
    if literal and known <= limit < known + len(literal.encode()) + SPECIALS:
        parts.append(("the template's own text", tokens := _count(literal, node)))
        known += tokens
    if known <= limit:
        return
    spelt = " + ".join([*(f"{count:,} of {name}" for name, count in parts), f"{new:,} new (max_new_tokens)"])
    found = f"{node.name} reads and writes at least {known:,} tokens, but {config.kind} has {limit:,} positions: {spelt}"
    most = limit - (known - new)
    hint = f"set {node.name}.max_new_tokens to at most {most:,}, or " if most > 0 else ""
    yield ("context-overflow", found, f"{hint}take fewer tokens per medium or a language model with a longer context")


def review_chat(config: LanguageConfig, node: SolvedNode) -> Iterator[tuple[str, str, str]]:
    """Give the `no-chat-template` of a node that asks for a template which its source, a folder on this machine, does not have."""
    folder = node.source.folder if node.source is not None else None
    is_wanted = config.chat or config.chat_template is not None
    if not is_wanted or folder is None or not any((folder / name).is_file() for name in chat_templates.TOKENIZERS):
        return
    try:
        found = chat_templates.choose(chat_templates.find(folder), config.chat_template, place=f"{node.name}: {folder}")
    except SourceError as error:
        yield from ((problem.code, problem.found, problem.hint) for problem in error.problems)
        return
    if found is None:
        said = f"{node.name} asks for chat: true, and {folder} has no chat template"
        yield ("no-chat-template", said, f"write the turns into {node.name}.prompt, or name a checkpoint that was trained to chat")


def _embeddings(node: SolvedNode, field: Field) -> int:
    """How many positions an embedding field takes for certain; 0 for a text, or while it is not known."""
    if field.tokens is not None:
        return field.tokens
    if field.many:
        return 0
    tensor = node.in_ports[field.name].tensor if field.name in node.in_ports else None
    axis = tensor.axes[1] if tensor is not None and len(tensor.axes) > 1 else None
    return (axis.size or 0) if axis is not None else 0


def _without(text: str, tokens: Sequence[str]) -> tuple[str, int]:
    """A text without tokens that the source does not know, which would be counted by their letters; and how many there were."""
    count = 0
    for token in sorted(tokens, key=len, reverse=True):  # one may hold another
        count += text.count(token)
        text = text.replace(token, "")
    return text, count


def _count(text: str, node: SolvedNode) -> int:
    """Tokens of a text by the tokenizer of the source, without special tokens; 0 when there is none on this machine."""
    path = node.source.path("tokenizer.json") if node.source is not None else None
    if path is None:
        return 0
    from tokenizers import Tokenizer

    return len(Tokenizer.from_file(str(path)).encode(text, add_special_tokens=False).ids)
