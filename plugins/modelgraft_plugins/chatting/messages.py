"""The work of chat/ask, chat/words and chat/reply: messages as records of type conversation have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.chatting import Ask, Reply, Shown, Words

Message = Mapping[str, Any]
Conversation = Sequence[Message]


def ask(config: Ask, _context: LoadContext) -> Callable[..., dict[str, Any]]:
    """Make the function from texts, conversations and media, each a batch or None, to conversations with one message more."""

    def put(text: list[str], history: list[Conversation] | None, *media: list[Any] | None) -> dict[str, Any]:
        before = history if history is not None else [()] * len(text)
        messages = [_message(config.role, config.media, said, [part[row] if part else None for part in media], row_first="media")
                    for row, said in enumerate(text)]  # fmt: skip
        return {
            "conversation": [(*told, message) for told, message in zip(before, messages, strict=True)],
            "line": [line_of(message) for message in messages],
        }

    return put


def reply(config: Reply, _context: LoadContext) -> Callable[..., list[tuple[Message, ...]]]:
    """Make the function from conversations, texts and media to conversations with the answer behind them."""

    def put(conversation: list[Conversation], text: list[str] | None, *media: list[Any] | None) -> list[tuple[Message, ...]]:
        return [
            (*told, _message(config.role, config.media, text[row] if text else None, [part[row] if part else None for part in media]))
            for row, told in enumerate(conversation)
        ]

    return put


def words(config: Words, _context: LoadContext) -> Callable[[list[Conversation]], list[tuple[Message, ...]]]:
    """Make the function from conversations to their words."""

    def give(conversation: list[Conversation]) -> list[tuple[Message, ...]]:
        return [_shortened([_spoken(message, marks=config.marks) for message in told], config) for told in conversation]

    return give


def shown(config: Shown, context: LoadContext) -> Callable[[list[Conversation]], Any]:
    """Make the function from conversations to what they show: a list for each, and of several media those by their names.

    It raises InputError for a medium that is not looked at.
    """

    def give(conversation: list[Conversation]) -> Any:  # Any: of one medium its lists alone
        parts = [[part for message in told for part in _parts(message) if part["type"] != "text"] for told in conversation]
        for row, told in enumerate(parts):
            if other := next((part["type"] for part in told if part["type"] not in config.media), None):
                record = f"{context.node.name}: record {row + 1} of {len(parts)}"
                raise InputError(f"{record} shows {other}, and {', '.join(config.media)} alone is looked at: leave it out")
        by_name = {name: [[part[name] for part in told if part["type"] == name] for told in parts] for name in config.media}
        return by_name if len(by_name) > 1 else by_name[config.media[0]]

    return give


def line_of(message: Message) -> str:
    """A message in one line: its media by their names in brackets, then its words."""
    names = [f"[{part['type']}]" for part in message["content"] if part["type"] != "text"]
    said = [" ".join(part["text"].split()) for part in message["content"] if part["type"] == "text"]
    return " ".join([*names, *said]).strip()


def _message(role: str, names: Sequence[str], text: str | None, media: Sequence[Any], *, row_first: str = "text") -> dict[str, Any]:
    """One message. row_first: "media" or "text", whichever stands before the other."""
    said = [{"type": "text", "text": text}] if text else []
    shown = [{"type": name, name: record} for name, record in zip(names, media, strict=True) if record is not None]
    return {"role": role, "content": [*shown, *said] if row_first == "media" else [*said, *shown]}


def _spoken(message: Message, *, marks: bool) -> dict[str, Any]:
    """A message with its words alone; what else is noted of it is left out."""
    said = [part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in _parts(message) if marks or part["type"] == "text"]
    return _text(message["role"], " ".join(said))


def _parts(message: Message) -> Sequence[Message]:
    """The parts of a message, whose content may be a text."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _shortened(messages: Sequence[dict[str, Any]], config: Words) -> tuple[dict[str, Any], ...]:
    """The instructions, the examples, and of the rest the end: within the bounds, and beginning with what was asked."""
    rules = [message for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    kept = rest[-config.last :] if config.last is not None else rest
    while len(kept) > 1 and config.letters is not None and sum(len(message["content"][0]["text"]) for message in kept) > config.letters:
        kept = kept[1:]
    while len(kept) > 1 and kept[0]["role"] == "assistant":
        kept = kept[1:]
    shown = [_text(role, said) for pair in config.examples for role, said in zip(("user", "assistant"), pair, strict=True)]
    return (*rules, *shown, *kept)
