"""BLEU and chrF by sacrebleu: the counts of each record are its row, and the figure is made of their sums."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from modelgraft_plugins.metrics.wording import caption_words, needed

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from modelgraft.plugin import LoadContext
    from modelgraft_plugins.metrics import Bleu, Chrf
    from modelgraft_plugins.metrics.answers import Rows, Score

    Table = NDArray[numpy.float64]


def bleu(config: Bleu, _context: LoadContext) -> Score:
    """Row: words of the answer, words of the nearest reference, then runs found and runs there are, by length."""
    made = _made_bleu(config)

    def counts(prediction: str, references: Sequence[str]) -> list[float]:
        if config.words == "captions":
            prediction, references = " ".join(caption_words(prediction)), [" ".join(caption_words(one)) for one in references]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of figures for single sentences, which are not looked at
            found = made.corpus_score([prediction], [[one] for one in references])
        return [found.sys_len, found.ref_len, *found.counts, *found.totals]

    return lambda predictions, references: [counts(*pair) for pair in zip(predictions, _some(references), strict=True)]


def bleu_of(config: Bleu, rows: Table) -> float:
    """BLEU of the sums of rows."""
    sums = rows.sum(axis=0)
    order = config.order
    made = needed("sacrebleu.metrics.bleu", by="metric/bleu").BLEU
    counts, totals = list(sums[2 : 2 + order]), list(sums[2 + order :])
    found = made.compute_bleu(counts, totals, int(sums[0]), int(sums[1]), smooth_method=config.smooth, max_ngram_order=order)
    return float(found.score)


def _made_bleu(config: Bleu) -> Any:
    sacrebleu = needed("sacrebleu", by="metric/bleu")
    cut = "none" if config.words == "captions" else config.words
    known = sacrebleu.BLEU.TOKENIZERS
    if cut not in known:
        raise ValueError(f"words is '{cut}'; sacrebleu knows {', '.join(sorted(known))}, and there is captions")
    return sacrebleu.BLEU(
        tokenize=cut, lowercase=config.lowercase, smooth_method=config.smooth, max_ngram_order=config.order, force=cut == "none"
    )


def chrf(config: Chrf, _context: LoadContext) -> Score:
    """Row: for each length of runs, how many the answer has, the best reference has, and both have."""
    made = _made_chrf(config)

    def score(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Rows:
        # One by one, because records may have unlike numbers of references. sacrebleu gives the counts to its own significance tests alone.
        pairs = zip(predictions, _some(references), strict=True)
        return [made._extract_corpus_statistics([prediction], [[one] for one in wanted])[0] for prediction, wanted in pairs]

    return score


def chrf_of(config: Chrf, rows: Table) -> float:
    """The chrF of the sums of rows."""
    return float(_made_chrf(config)._compute_score_from_stats([int(number) for number in rows.sum(axis=0)]).score)


@lru_cache(maxsize=8)  # for the thousands of figures that an interval is made of
def _made_chrf(config: Chrf) -> Any:
    return needed("sacrebleu", by="metric/chrf").CHRF(word_order=config.words)


def _some(references: Sequence[Sequence[str]]) -> list[list[str]]:
    """The references, an empty one where a record has none."""
    return [list(wanted) or [""] for wanted in references]
