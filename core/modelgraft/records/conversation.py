"""Conversations: messages with roles, each made of text and of any other medium."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelgraft.kernel.words.errors import InputError, choices
from modelgraft.records.enclosing import content_of, is_address
from modelgraft.records.record_type import Reading, RecordType
from modelgraft.records.telling import describe

WORDS = "text"  # the medium of what is read in a message
MESSAGE = frozenset({"role", "content"})
NOTES = frozenset({"time", "nodes"})  # what may be noted of a message: when it was said, and the seconds of each node that made it


class ConversationType(RecordType):
    """A tuple of messages `{"role": ..., "content": [parts]}`, each part `{"type": medium, medium: record}`.

    A message may also say its `time`, as ISO 8601 writes it, and `nodes`: the seconds that each node took to make it.
    """

    name, meaning = "conversation", "an ordered list of messages with roles, each made of text and other media"
    writes = (".json", ".html")
    is_spoken = is_talk = True
    colour = ("#0f766e", "#52c7bb")

    def read(self, value: Any, reading: Reading) -> tuple[dict[str, Any], ...]:
        """Check messages, and read the media in them; a string is one message of the user."""
        if isinstance(value, str):
            value = [{"role": "user", "content": value}]
        if not isinstance(value, Sequence) or isinstance(value, bytes) or not value:
            raise reading.refused(value, "a conversation: a list of messages with role and content")
        return tuple(self._message(message, reading.within(f"{reading.label} message {index}")) for index, message in enumerate(value))

    def _message(self, message: Any, reading: Reading) -> dict[str, Any]:
        if not is_message(message):
            raise reading.refused(message, "a mapping of exactly `role` (text) and `content` (text or parts)")
        content = message["content"]
        parts = [{"type": WORDS, WORDS: content}] if isinstance(content, str) else content
        if not isinstance(parts, Sequence):
            raise InputError(f"{reading.label}: content is {describe(content)}, wanted text or a list of parts")
        read = [self._part(part, reading.within(f"{reading.label} part {index}")) for index, part in enumerate(parts)]
        return {"role": message["role"], "content": read, **_notes(message, reading)}

    def _part(self, part: Any, reading: Reading) -> dict[str, Any]:
        medium = part.get("type") if isinstance(part, Mapping) else None
        known = [name for name in reading.types if name != self.name]
        if not isinstance(medium, str) or medium not in known or medium not in part:
            wanted = "{type: text, text: ...}, {type: image, image: ...} or likewise another of "
            raise reading.refused(part, wanted + choices(known))
        if extra := sorted(map(str, set(part) - {"type", medium})):
            raise InputError(f"{reading.label}: found {', '.join(extra)} beside type and {medium}, which nothing reads: leave it out")
        value, kind = part[medium], reading.types[medium]
        held = content_of(value, reading.label) if is_address(value) and kind.is_file else value
        return {"type": medium, medium: kind.read(held, reading)}

    def accepts(self, value: Any) -> bool:
        """Lists of messages."""
        return isinstance(value, list | tuple)

    def example(self, index: int) -> tuple[dict[str, Any], ...]:
        """A greeting, and a longer one."""
        return ({"role": "user", "content": [{"type": "text", "text": ("Hello", "Hello there")[index % 2]}]},)

    def is_batch(self, value: list[Any]) -> bool:
        """A list of messages is one record, a list of such lists a batch."""
        return bool(value) and all(isinstance(record, list | tuple) for record in value)

    def misfit(self, default: Any) -> str | None:
        """A text, or messages whose media are not looked at."""
        is_listed = isinstance(default, list) and bool(default)
        is_one = is_listed and all(map(is_message, default))
        return None if is_one or isinstance(default, str) else "a text, or a list of messages, each with role and content"

    def noted(self, value: Any, *, time: str, nodes: Mapping[str, float]) -> Any:
        """Note of the last message when it was made and by what, unless it says so itself."""
        if not is_conversation(value):
            return value
        *before, last = value
        return (*before, {"time": time, "nodes": dict(nodes), **last})


def is_message(value: Any) -> bool:
    """Whether a value has the keys of a message, and no others."""
    return isinstance(value, Mapping) and MESSAGE <= set(value) <= MESSAGE | NOTES and isinstance(value["role"], str)


def is_conversation(value: Any) -> bool:
    """Whether a value is messages, one or more."""
    return isinstance(value, list | tuple) and bool(value) and all(map(is_message, value))


def _notes(message: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """What is noted of a message, as it stands there. Raises InputError for what is no such note."""
    found: dict[str, Any] = {}
    if (time := message.get("time")) is not None:
        if not isinstance(time, str):
            raise InputError(f"{reading.label}: time is {describe(time)}, wanted a text such as 2026-01-31T12:00:00")
        found["time"] = time
    if (nodes := message.get("nodes")) is not None:
        is_read = isinstance(nodes, Mapping) and all(
            isinstance(name, str) and isinstance(seconds, int | float) for name, seconds in nodes.items()
        )
        if not is_read:
            raise InputError(f"{reading.label}: nodes is {describe(nodes)}, wanted the seconds of each by its name")
        found["nodes"] = dict(nodes)
    return found
