"""Conversations as files: JSON that can be read again, and a page of HTML to look at. Both hold their media themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.records.conversation import is_conversation
from modelgraft.records.enclosing import kept


def with_media(value: Any) -> Any:
    """A conversation whose media are addresses that hold them, and so of a batch of such; any other value as it is."""
    if is_conversation(value):
        return [{**message, "content": _content(message["content"])} for message in value]
    if isinstance(value, list) and any(map(is_conversation, value)):
        return [with_media(record) for record in value]
    return value


def _content(content: Any) -> Any:
    if not isinstance(content, list | tuple):
        return content
    return [
        {key: kept(part) if key != "type" else part for key, part in entry.items()} if isinstance(entry, Mapping) else entry
        for entry in content
    ]
