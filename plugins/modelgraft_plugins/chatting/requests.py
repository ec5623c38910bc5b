"""What a request in English is about: the work of chat/subject. Light, because its patterns are looked at while a graph is checked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from modelgraft.plugin import LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.chatting import Subject

LEAD = (
    r"(?:\[\w+\]\s*)+",  # media, as chat/ask names them
    r"(?:hi|hello|hey|ok|okay|now|please|well|so|then|and|but|also)\b[\s,.!]*",
    r"(?:can|could|would|will)\s+you\s+(?:please\s+)?",
    r"(?:i\s+(?:want|would\s+like|'d\s+like|wish|need)|i'd\s+like|let\s+me|let's)\s+(?:to\s+(?:see|have|look\s+at)\s+)?",
    r"(?:do\s+you\s+have|have\s+you\s+got|is\s+there|are\s+there)\s+",
    r"(?:show|find|fetch|give|get|bring|send|search|look\s+for|look\s+up|draw|paint|sketch)(?:\s+(?:me|us)\b)?(?:\s+for\b)?(?:\s+|(?=[.!?]*$))",
    r"(?:a|an|the|some|any|your|my|another|one|more)?\s*(?:nice|good|other|new)?\s*(?:picture|photo|photograph|image|pic|drawing)s?\s+(?:of|with|showing|that\s+shows?)\s+",
)
TAIL = (
    r"[\s.!?,;]+",
    r",?\s*(?:please|thanks|thank\s+you)",
    r"(?:,?\s+and)?,?\s+(?:say\s+(?:it|so)\s+)?(?:aloud|out\s+loud)",
    r"\s+(?:in|from)\s+(?:my|the|your)\s+(?:album|folder|pictures|photos|collection)",
    r"\s+(?:picture|photo|image)s?",
)


def complaint(pattern: str) -> str:
    """What is wrong with a regular expression; "" when it can be read and takes something."""
    try:
        return f"the pattern {pattern!r} matches nothing at all: it would never end" if re.compile(pattern).match("") else ""
    except re.error as error:
        return f"the pattern {pattern!r} cannot be read: {error.msg}"


def subject(config: Subject, _context: LoadContext) -> Callable[[list[str]], list[str]]:
    """Make the function from requests to what they are about."""
    before = [re.compile(pattern, re.IGNORECASE) for pattern in config.lead]
    behind = [re.compile(f"(?:{pattern})$", re.IGNORECASE) for pattern in config.tail]

    def find(text: list[str]) -> list[str]:
        return [_bare(record, before, behind) or record.strip() for record in text]

    return find


def _bare(text: str, before: list[re.Pattern[str]], behind: list[re.Pattern[str]]) -> str:
    """A text without what leads up to its subject and what follows it."""
    text = text.strip()
    while (found := next((match for pattern in before if (match := pattern.match(text)) and match.end()), None)) is not None:
        text = text[found.end() :]
    while (found := next((match for pattern in behind if (match := pattern.search(text)) and match[0]), None)) is not None:
        text = text[: found.start()]
    return text.strip()
