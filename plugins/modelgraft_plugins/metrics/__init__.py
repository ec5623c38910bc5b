"""Metrics: how good answers are. Those of captions, translations and speech need the extra: pip install 'modelgraft[metrics]'."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, component, hookimpl
from modelgraft.plugin import Metric

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Rows = NDArray[numpy.float64]  # [records statistics]

TEXTS = {"prediction": "text | label", "references": "list[text]"}
VECTORS = {"prediction": "embedding | float[batch width]", "references": "list[embedding]"}
ROWS = {"rows": "object"}
HERE = "modelgraft_plugins.metrics"


def ratio(rows: Rows) -> float:
    """What was counted in the first column over what there was to count in the second, of all records together; 0 of nothing."""
    return float(rows[:, 0].sum() / max(rows[:, 1].sum(), 1))


@component("metric/exact_match", kind="metric", load=f"{HERE}.answers:exact_match", inputs=TEXTS, outputs=ROWS)
class ExactMatch(Metric):
    """The part of the answers that equal one of their references.

    rules  squad: lower case, without punctuation and the articles a, an, the (the evaluation script of SQuAD 1.1, arXiv
           1606.05250); case: lower case; plain: as they are. Space at the ends and runs of space never count
    """

    rules: Literal["squad", "case", "plain"] = "squad"


@component("metric/word_f1", kind="metric", load=f"{HERE}.answers:word_f1", inputs=TEXTS, outputs=ROWS)
class WordF1(Metric):
    """How far the words of an answer and of its best reference are the same, as SQuAD counts them.

    The harmonic mean of precision and recall over words, in any order, normalised as by the evaluation script of SQuAD 1.1
    (arXiv 1606.05250). Two empty answers are the same.
    """


@component("metric/accuracy", kind="metric", load=f"{HERE}.answers:accuracy", inputs=TEXTS, outputs=ROWS)
class Accuracy(Metric):
    """The part of the labels that are right: letter for letter, apart from space at the ends."""


@component("metric/vqa_accuracy", kind="metric", load=f"{HERE}.vqa:vqa_accuracy", inputs=TEXTS, outputs=ROWS)
class VqaAccuracy(Metric):
    """Accuracy of VQA: an answer that three of the other people gave counts fully, over all ways to leave one of them out.

    arXiv 1505.00468, as its evaluation code does it (github.com/GT-Vision-Lab/VQA). Fewer than four references are refused.

    normalise  official: as in that code, where answers are compared as they are if all references are the same, also "Dog." with
               dog; always: also then
    """

    normalise: Literal["official", "always"] = "official"


@component("metric/bleu", kind="metric", load=f"{HERE}.translations:bleu", inputs=TEXTS, outputs=ROWS)
class Bleu(Metric):
    """Corpus BLEU by sacrebleu: runs of up to four words that answers share with any of their references, from 0 to 100.

    words  13a: sacrebleu's own way to cut words; captions: lower case and without punctuation, nearly as COCO's evaluation
           does; or another of sacrebleu's, such as char, intl, zh
    order  of the longest runs
    """

    of_sums = True
    words: str = "13a"
    order: int = Field(4, gt=0, le=9)
    smooth: Literal["exp", "floor", "add-k", "none"] = "exp"
    lowercase: bool = False

    def summary(self, rows: Rows) -> float:
        """BLEU of the counts of all records together."""
        from modelgraft_plugins.metrics.translations import bleu_of

        return bleu_of(self, rows)


@component("metric/chrf", kind="metric", load=f"{HERE}.translations:chrf", inputs=TEXTS, outputs=ROWS)
class Chrf(Metric):
    """Corpus chrF by sacrebleu: runs of up to six letters that answers share with their best reference, from 0 to 100.

    words  the longest runs of words that count too: 0 is chrF, 2 is chrF++
    """

    of_sums = True
    words: int = Field(0, ge=0)

    def summary(self, rows: Rows) -> float:
        """The chrF of the counts of all records together."""
        from modelgraft_plugins.metrics.translations import chrf_of

        return chrf_of(self, rows)


@component("metric/rouge_l", kind="metric", load=f"{HERE}.captions:rouge_l", inputs=TEXTS, outputs=ROWS)
class RougeL(Metric):
    """How long the longest common subsequence of words of an answer and its references is (ROUGE-L, Lin 2004).

    rules  google: words as the package rouge-score cuts them, the best reference, precision and recall weigh the same;
           coco: words as COCO's evaluation cuts captions, the best precision and the best recall of all references, recall
           weighs 1.2 times as much
    """

    rules: Literal["google", "coco"] = "google"


@component("metric/cider", kind="metric", load=f"{HERE}.captions:cider", inputs=TEXTS, outputs=ROWS)
class Cider(Metric):
    """CIDEr-D of captions: runs of words shared with the references, weighed by how few of the pictures have them; from 0 to 10.

    arXiv 1411.5726. It says nothing of few records: with one, nothing is rare. An interval keeps the weights of all records.
    """


@component("metric/wer", kind="metric", load=f"{HERE}.speech:wer", inputs=TEXTS, outputs=ROWS)
class Wer(Metric):
    """Word error rate by jiwer: words to insert, delete or replace over the words of the references, of all records together.

    text  what is compared. plain: lower case, without punctuation apart from the apostrophes inside words; whisper: as
          Whisper's papers do for any language (its BasicTextNormalizer in transformers); whisper_english: also numbers,
          contractions and spellings (EnglishTextNormalizer, without its list of British spellings); as_is: nothing changed

    Of several references the nearest counts.
    """

    of_sums = True
    better = "lower"
    text: Literal["plain", "whisper", "whisper_english", "as_is"] = "plain"

    def summary(self, rows: Rows) -> float:
        """Errors over words."""
        return ratio(rows)


@component("metric/cer", kind="metric", load=f"{HERE}.speech:cer", inputs=TEXTS, outputs=ROWS)
class Cer(Metric):
    """Character error rate by jiwer: letters to insert, delete or replace over the letters of the references, of all records together.

    text  as of metric/wer
    """

    of_sums = True
    better = "lower"
    text: Literal["plain", "whisper", "whisper_english", "as_is"] = "plain"

    def summary(self, rows: Rows) -> float:
        """Errors over letters."""
        return ratio(rows)


@component("metric/recall", kind="metric", load=f"{HERE}.ranking:recall", inputs=VECTORS, outputs=ROWS)
class Recall(Metric):
    """Recall at k of a search by cosine among the vectors of all records, such as texts to pictures, with several texts to a picture.

    k        how many of the nearest may hold the right one
    queries  predictions: each looks for one of its references among those of all records; references: each looks for the
             prediction of its record among all. A tie counts against
    """

    of_sums = True
    k: int = Field(1, gt=0)
    queries: Literal["predictions", "references"] = "predictions"

    def summary(self, rows: Rows) -> float:
        """Hits over queries."""
        return ratio(rows)


@component("metric/median_rank", kind="metric", load=f"{HERE}.ranking:median_rank", inputs=VECTORS, outputs=ROWS)
class MedianRank(Metric):
    """The median, over records, of the rank at which a search by cosine finds the right one: 1 is the best.

    queries  as of metric/recall; of several queries of one record the median counts
    """

    better = "lower"
    queries: Literal["predictions", "references"] = "predictions"

    def summary(self, rows: Rows) -> float:
        """The median of the ranks."""
        import numpy

        return float(numpy.median(rows[:, 0]))


@component(
    "metric/calibration", kind="metric", load=f"{HERE}.calibration:calibration",
    inputs={"prediction": "float[batch classes]", "references": "object"}, outputs=ROWS,
)  # fmt: skip
class Calibration(Metric):
    """Expected calibration error: how far the probability of the likeliest class is from how often it is right.

    The prediction is a probability for each class, the reference the number of the right class, from 0. Records are put into
    bins by their probability, and the gaps between its mean and the accuracy are averaged by size (arXiv 1706.04599).

    bins   how many
    equal  records: each bin holds as many (adaptive bins, arXiv 1904.01685); width: each is as wide
    """

    better = "lower"
    bins: int = Field(15, gt=0)
    equal: Literal["records", "width"] = "records"

    def summary(self, rows: Rows) -> float:
        """The mean gap, weighed by the size of the bins."""
        from modelgraft_plugins.metrics.calibration import error_of

        return error_of(rows, bins=self.bins, equal=self.equal)


METRICS = (
    ExactMatch, WordF1, Accuracy, VqaAccuracy, Bleu, Chrf, RougeL, Cider, Wer, Cer, Recall, MedianRank, Calibration,
)  # fmt: skip


@component("score/word_errors", kind="head", load=f"{HERE}.hearing:load", cache=False)
class WordErrors(Config):
    """Compare what was heard with what was to be said: the word error rate of each record, 0 where every word is right.

    text  how both are made alike before, as in `metric/wer`. Needs the extra `metrics`.
    """

    text: Literal["plain", "whisper", "whisper_english", "as_is"] = Field("plain", description="how texts are made alike before")

    def ports(self) -> Ports:
        """Two texts in, a rate out: words that differ over words that were to be said."""
        return Ports.of({"heard": "text", "wanted": "text"}, {"score": "float[batch]"})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the metrics, and what scores a record within a graph."""
    for subject in (*METRICS, WordErrors):
        register(subject)
