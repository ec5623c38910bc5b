"""Values with a comma between them, as options of sweeps take them."""

from __future__ import annotations

PAIRS = {"[": "]", "{": "}", "(": ")"}


def listed(text: str) -> list[str]:
    """Cut `a,b,c` at its commas; those within brackets and quotes stay. Raises ValueError for one that holds nothing."""
    parts, depth, quote = [""], list[str](), ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'" and not parts[-1].strip():  # a quote within a word is an apostrophe
            quote = letter
        elif letter in PAIRS:
            depth.append(PAIRS[letter])
        elif depth and letter == depth[-1]:
            depth.pop()
        elif letter == "," and not depth:
            parts.append("")
            continue
        parts[-1] += letter
    found = [part.strip() for part in parts]
    if not all(found):
        raise ValueError(f"found '{text}'; wanted: values with a comma between them, such as a,b")
    if twice := next((part for part in found if found.count(part) > 1), None):
        raise ValueError(f"found '{text}', which names '{twice}' twice")
    return found
