"""Short answers against references: exact match, word F1, labels."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.metrics import Accuracy, ExactMatch, WordF1

Rows = list[list[float]]
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Rows]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def best_of(compare: Callable[[str, str], float]) -> Score:
    """A metric that gives each prediction what it gets against the best of its references; 0 without any."""
    return lambda predictions, references: [
        [max((compare(prediction, one) for one in wanted), default=0.0)] for prediction, wanted in zip(predictions, references, strict=True)
    ]


def squad(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: `normalize_answer` of SQuAD's evaluation script."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def _lower(text: str) -> str:
    return " ".join(text.lower().split())


def _plain(text: str) -> str:
    return " ".join(text.split())


NORMALISED: dict[str, Callable[[str], str]] = {"squad": squad, "case": _lower, "plain": _plain}


def exact_match(config: ExactMatch, _context: LoadContext) -> Score:
    """1 for a prediction that equals a reference."""
    normalised = NORMALISED[config.rules]
    return best_of(lambda prediction, reference: float(normalised(prediction) == normalised(reference)))


def accuracy(_config: Accuracy, _context: LoadContext) -> Score:
    """1 for the right label."""
    return best_of(lambda prediction, reference: float(prediction.strip() == reference.strip()))


def word_f1(_config: WordF1, _context: LoadContext) -> Score:
    """The F1 of words against the best reference."""
    return best_of(_f1)


def _f1(prediction: str, reference: str) -> float:
    found, wanted = squad(prediction).split(), squad(reference).split()
    if not found or not wanted:
        return float(found == wanted)
    same = (Counter(found) & Counter(wanted)).total()
    return 2 * same / (len(found) + len(wanted))
