"""Which option an answer names, by rules alone: those of MMBench's own toolkit, letter by letter.

Source: `can_infer` of open-compass/VLMEvalKit; tests hold what it says of some hundred awkward answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

UNREAD = ""  # no rule reads the answer
NONE_OF_THEM = "Z"  # the answer refuses, or says itself that it is none of the options

_NO_ANSWER = "Failed to obtain answer via API"  # what the toolkit keeps where a model gave nothing
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST = 4  # a lone letter counts among so many words from the end: before them it is more likely an article
_SPELT_OUT = re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE)


def letter_of(answer: object, options: Mapping[str, str]) -> str:
    """The letter of the option that an answer names, NONE_OF_THEM, or UNREAD.

    answer   taken as the text of it, whatever it is
    options  by letter, in their order
    """
    text = str(answer)
    return _by_letter(text, options) or _by_wording(text, options)


def _by_letter(text: str, options: Mapping[str, str]) -> str:
    """A letter that stands alone near the end, or behind "answer is"."""
    if _NO_ANSWER in text:
        return UNREAD
    if any(refusal in text for refusal in _REFUSALS):
        return NONE_OF_THEM
    words = text.translate(_MARKS).split()
    named = [letter for letter in options if letter in words]
    if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST:
        return named[0]
    if not named and NONE_OF_THEM in words:
        return NONE_OF_THEM
    spelt = _SPELT_OUT.search(text)
    return spelt[1].upper() if spelt is not None and spelt[1].upper() in options else UNREAD


def _by_wording(text: str, options: Mapping[str, str]) -> str:
    """The one option whose words stand in the answer, if that is not much longer than all options together."""
    lower = text.lower()
    if len(lower) > 2 * sum(len(option) for option in options.values()):
        return UNREAD
    found = [letter for letter, option in options.items() if option.lower() in lower]
    return found[0] if len(found) == 1 else UNREAD
