"""The accuracy of VQA and its normalisation of answers, whole.

Source: vqaEval.py of github.com/GT-Vision-Lab/VQA as of March 2021, in our own words. Where that code is odd, this is odd in the same
way, so that figures can be compared: what becomes of a mark depends on the whole answer, and answers that all people agree on are
compared as they are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.metrics import VqaAccuracy
    from modelgraft_plugins.metrics.answers import Rows, Score

FEWEST = 4  # references: of the others, three must be able to agree
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
UP_TO_TEN = "zero one two three four five six seven eight nine ten"
NUMBERS = {word: str(number) for number, word in enumerate(UP_TO_TEN.split())} | {"none": "0"}
ARTICLES = frozenset({"a", "an", "the"})
CONTRACTIONS = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
    how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't shan't
    she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd
    something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""

_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")  # not that of 3.5


def _without_one(word: str) -> list[str]:
    """A word with one of its apostrophes left out, in each way."""
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


WITH_APOSTROPHE = {short: word for word in CONTRACTIONS.split() for short in _without_one(word)} | {"somebody'd": "somebodyd"}


def without_punctuation(text: str) -> str:
    """The text without punctuation: a mark beside a space goes, another becomes a space; each goes where a number has a comma."""
    has_comma, out = _COMMA_IN_NUMBER.search(text) is not None, text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside_space or has_comma else " ")
    return _FULL_STOP.sub("", out)


def normalised(text: str) -> str:
    """An answer as it is compared: no punctuation, lower case, numbers to ten as digits, no articles, apostrophes in contractions."""
    words = [NUMBERS.get(word, word) for word in without_punctuation(text).lower().split()]
    return " ".join(WITH_APOSTROPHE.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(config: VqaAccuracy, _context: LoadContext) -> Score:
    """The accuracy of each answer."""

    def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        if few := [index for index, given in enumerate(references) if len(given) < FEWEST]:
            found = f"record {few[0]} has {len(references[few[0]])} references"
            raise ValueError(
                f"{found}; wanted at least {FEWEST}: an answer counts fully when three others agree. One reference: metric/exact_match"
            )
        return [[accuracy_of(*pair, always=config.normalise == "always")] for pair in zip(predictions, references, strict=True)]

    return score


def accuracy_of(answer: str, references: Sequence[str], *, always: bool) -> float:
    """The mean of min(1, equals / 3) over all ways to leave one reference out.

    always  both sides are normalised also where all references are the same
    """
    given, wanted = _one_line(answer), [_one_line(one) for one in references]
    if always or len(set(wanted)) > 1:
        given, wanted = normalised(given), [normalised(one) for one in wanted]
    equal = sum(one == given for one in wanted)
    others = [equal - (one == given) for one in wanted]
    return sum(min(1.0, count / 3) for count in others) / len(others)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
