"""Metrics of vectors and probabilities: against loops that are slow and obvious."""

import numpy
import pytest
import torch

from modelgraft import Embedding
from modelgraft_plugins.metrics import Calibration, MedianRank, Recall
from support.scored import scored

RANDOM = numpy.random.default_rng(2)
PICTURES = [Embedding(vector.astype(numpy.float32)) for vector in RANDOM.normal(size=(13, 5))]
CAPTIONS = [
    [Embedding((one.vector + RANDOM.normal(size=5)).astype(numpy.float32)) for _ in range(1 + index % 3)]
    for index, one in enumerate(PICTURES)
]


def cosine(one, other):
    return float(one.vector @ other.vector / numpy.linalg.norm(one.vector) / numpy.linalg.norm(other.vector))


def ranks_of_captions():
    """Picture to text: the rank of the best of its own captions among all captions."""
    everyone = [(owner, caption) for owner, those in enumerate(CAPTIONS) for caption in those]
    for index, picture in enumerate(PICTURES):
        order = sorted(everyone, key=lambda pair: -cosine(picture, pair[1]))
        yield 1 + next(rank for rank, (owner, _) in enumerate(order) if owner == index)


def ranks_of_pictures():
    """Text to picture: for each caption of each picture, the rank of that picture."""
    for index, those in enumerate(CAPTIONS):
        orders = [sorted(range(len(PICTURES)), key=lambda n: -cosine(caption, PICTURES[n])) for caption in those]
        yield [1 + order.index(index) for order in orders]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_recall_counts_what_is_found_among_the_nearest(k):
    forth = [rank <= k for rank in ranks_of_captions()]
    found, rows = scored(Recall(k=k), PICTURES, CAPTIONS)
    assert rows == [[hit, 1] for hit in forth]
    assert found == pytest.approx(sum(forth) / 13)
    back = [[rank <= k for rank in ranks] for ranks in ranks_of_pictures()]
    found, rows = scored(Recall(k=k, queries="references"), PICTURES, CAPTIONS)
    assert rows == [[sum(hits), len(hits)] for hits in back]
    assert found == pytest.approx(sum(map(sum, back)) / sum(map(len, back)))


def test_the_median_rank_is_that_of_the_right_ones():
    assert scored(MedianRank(), PICTURES, CAPTIONS)[0] == numpy.median(list(ranks_of_captions()))
    assert scored(MedianRank(queries="references"), PICTURES, [those[:1] for those in CAPTIONS])[0] == numpy.median(
        [ranks[0] for ranks in ranks_of_pictures()]
    )


def test_a_model_that_tells_nothing_apart_finds_nothing():
    """All vectors are the same: a tie counts against."""
    same = [Embedding(numpy.ones(3, numpy.float32))] * 6
    assert scored(Recall(k=5), same, [[one] for one in same])[0] == 0
    assert scored(Recall(k=6), same, [[one] for one in same])[0] == 1


def test_vectors_may_come_as_a_tensor():
    tensor = torch.tensor(numpy.stack([one.vector for one in PICTURES])).to(torch.float16)
    assert scored(Recall(k=3), tensor, CAPTIONS)[0] == scored(Recall(k=3), PICTURES, CAPTIONS)[0]


def test_vectors_of_other_widths_are_of_other_spaces():
    with pytest.raises(ValueError, match="predictions are vectors of 5 numbers, references of 3"):
        scored(Recall(), PICTURES[:1], [[Embedding(numpy.ones(3, numpy.float32))]])
    with pytest.raises(ValueError, match="record 1 has no references to be found"):
        scored(Recall(), PICTURES[:2], [CAPTIONS[0], []])


def calibration_by_hand(sure, right, bins):
    """Of a list of (members) for each bin."""
    return sum(len(those) / len(sure) * abs(numpy.mean([sure[n] for n in those]) - numpy.mean([right[n] for n in those])) for those in bins)


def test_calibration_is_the_gap_between_how_sure_and_how_right():
    """Five records in two bins of as many records (3 and 2), or in two bins of the same width."""
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.55, 0.45], [0.3, 0.7]])
    wanted = [0, 0, 1, 0, 0]
    sure, right = [0.9, 0.6, 0.8, 0.55, 0.7], [1, 0, 1, 1, 0]
    by_records = calibration_by_hand(sure, right, [[3, 1, 4], [2, 0]])
    by_width = calibration_by_hand(sure, right, [[0, 1, 2, 3, 4]])  # all above one half
    assert scored(Calibration(bins=2), probabilities, wanted)[0] == pytest.approx(by_records, abs=1e-6)
    assert scored(Calibration(bins=2, equal="width"), probabilities, wanted)[0] == pytest.approx(by_width, abs=1e-6)
    in_tens = calibration_by_hand(sure, right, [[0], [2], [1], [3], [4]])
    assert scored(Calibration(bins=20, equal="width"), probabilities, wanted)[0] == pytest.approx(in_tens, abs=1e-6)


def test_a_class_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="the reference of record 0 is 2; wanted: the number of the right class, from 0 to 1"):
        scored(Calibration(), torch.tensor([[0.5, 0.5]]), [2])
