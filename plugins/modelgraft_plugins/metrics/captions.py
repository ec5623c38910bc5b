"""ROUGE-L and CIDEr-D: what captions share with their references.

CIDEr-D is written after arXiv 1411.5726 and what its authors' code (pycocoevalcap) does where the paper leaves it open: the length in
the penalty is that of runs of two words, and the weights come from the references of the records that are scored.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modelgraft_plugins.metrics.wording import caption_words, needed

if TYPE_CHECKING:
    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.metrics import Cider, RougeL
    from modelgraft_plugins.metrics.answers import Rows, Score

BETA = 1.2  # how much recall weighs in COCO's ROUGE-L
ORDER = 4  # the longest runs of words that CIDEr looks at
SIGMA = 6.0  # of the penalty on a difference in length
SCALE = 10.0  # so that CIDEr-D is from 0 to 10

Run = tuple[str, ...]


def rouge_l(config: RougeL, _context: LoadContext) -> Score:
    """The ROUGE-L of each answer."""
    longest = needed("rapidfuzz.distance.LCSseq", by="metric/rouge_l").similarity
    cut, beta = (caption_words, BETA) if config.rules == "coco" else (_plain_words, 1.0)

    def against(found: list[str], wanted: list[str]) -> tuple[float, float]:
        common = longest(found, wanted)
        return common / max(len(found), 1), common / max(len(wanted), 1)

    def score(prediction: str, references: Sequence[str]) -> float:
        found = cut(prediction)
        pairs = [against(found, cut(one)) for one in references] or [(0.0, 0.0)]
        if config.rules == "coco":
            precisions, recalls = zip(*pairs, strict=True)
            pairs = [(max(precisions), max(recalls))]
        return max(_f_measure(*pair, beta) for pair in pairs)

    return lambda predictions, references: [[score(*pair)] for pair in zip(predictions, references, strict=True)]


def _plain_words(text: str) -> list[str]:
    """Runs of a-z and 0-9 in lower case, as rouge-score cuts them without its stemmer."""
    return re.findall(r"[a-z0-9]+", text.lower())


def _f_measure(precision: float, recall: float, beta: float) -> float:
    if not precision or not recall:
        return 0.0
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A caption as CIDEr compares it: by length of run, the weights of its runs and the length of that vector; its runs of two words."""

    weights: Sequence[dict[Run, float]]
    norms: Sequence[float]
    pairs: int


def cider(_config: Cider, _context: LoadContext) -> Score:
    """The CIDEr-D of each caption."""

    def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        wanted = [[_runs(one) for one in those] for those in references]
        seen = Counter(run for those in wanted for run in {run for one in those for run in one})  # in how many records a run stands
        records = math.log(len(wanted))

        def weighed(runs: Counter[Run]) -> _Weighed:
            rare = {run: times * (records - math.log(max(1, seen[run]))) for run, times in runs.items()}
            by_length = [{run: weight for run, weight in rare.items() if len(run) == n} for n in range(1, ORDER + 1)]
            norms = [math.sqrt(sum(weight**2 for weight in part.values())) for part in by_length]
            return _Weighed(by_length, norms, sum(times for run, times in runs.items() if len(run) == 2))

        rows = []
        for prediction, those in zip(predictions, wanted, strict=True):
            found = weighed(_runs(prediction))
            likeness = [_likeness(found, weighed(one)) for one in those]
            rows.append([SCALE * sum(likeness) / max(len(likeness), 1)])
        return rows

    return score


def _runs(text: str) -> Counter[Run]:
    words = caption_words(text)
    return Counter(tuple(words[start : start + n]) for n in range(1, ORDER + 1) for start in range(len(words) - n + 1))


def _likeness(found: _Weighed, wanted: _Weighed) -> float:
    """The mean cosine over lengths of runs; what a caption repeats counts as often as the reference has it, another length costs."""
    penalty = math.exp(-((found.pairs - wanted.pairs) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for mine, theirs, my_norm, their_norm in zip(found.weights, wanted.weights, found.norms, wanted.norms, strict=True):
        if my_norm and their_norm:
            shared = sum(min(weight, theirs.get(run, 0.0)) * theirs.get(run, 0.0) for run, weight in mine.items())
            total += shared / (my_norm * their_norm)
    return penalty * total / ORDER
