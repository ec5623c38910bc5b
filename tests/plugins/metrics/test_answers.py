"""Metrics of short answers: each case counted by hand, or by the evaluation code of the benchmark itself."""

import numpy
import pytest

from modelgraft import Embedding
from modelgraft.plugin import PluginError
from modelgraft.testing import conform
from modelgraft_plugins.metrics import METRICS, Accuracy, Calibration, ExactMatch, MedianRank, Recall, VqaAccuracy, WordF1
from modelgraft_plugins.metrics.vqa import accuracy_of, normalised
from support.scored import scored

# What VQAEval of github.com/GT-Vision-Lab/VQA (March 2021) makes of awkward answers: processPunctuation, then processDigitArticle.
NORMALISED = {
    "The Dog.": "dog", "two dogs": "2 dogs", "none": "0", "a black-white cat": "black white cat", "black/white": "black white",
    "1,000 people": "1000 people", "3.5 m": "3.5 m", "10:30 a.m.": "10:30 am", "dont know": "don't know", "Couldn'tve": "couldn't've",
    "it's": "it's", "yes, it is": "yes it is", "(red)": "red", "What?": "what", "U.S.A.": "usa", "red ; blue": "red blue", '"no"': "no",
    "5%": "5%", "x_y": "x y", "somebody'd": "somebodyd", "lets go": "lets go", "ten o'clock": "10 o'clock", "a": "",
    "two by four ": "2 by 4", "well-known, it seems": "well known it seems",
}  # fmt: skip


@pytest.mark.parametrize(
    "metric", [one for one in METRICS if one not in (Calibration, MedianRank, Recall, VqaAccuracy)], ids=lambda one: one.__name__
)
def test_every_metric_keeps_its_declaration(metric):
    conform(metric)


def test_those_that_take_no_made_up_references_keep_their_declaration():
    conform(VqaAccuracy, references=[["a", "a", "b", "c"], ["two words"] * 10])
    conform(Calibration, references=[0, [4]])
    pictures = [Embedding(numpy.array([1.0, n], numpy.float32)) for n in (0, 3)]
    for metric in (Recall, MedianRank):
        for queries in ("predictions", "references"):
            conform(metric, {"queries": queries}, prediction=pictures, references=[pictures[:1], pictures])


def test_exact_match_counts_what_is_the_same_under_its_rules():
    answers, wanted = ["The cat!", "a Cat", "cat"], [["cat"], ["dog", "a cat"], ["cats"]]
    assert scored(ExactMatch(), answers, wanted) == (2 / 3, [[1.0], [1.0], [0.0]])
    assert scored(ExactMatch(rules="case"), answers, wanted)[1] == [[0.0], [1.0], [0.0]]
    assert scored(ExactMatch(rules="plain"), [" a  b ", "B"], [["a b"], ["b"]])[1] == [[1.0], [0.0]]
    assert scored(ExactMatch(), ["cat"], [[]])[0] == 0


def test_word_f1_is_that_of_squad():
    """Three of the four words, without `the`, are among the five of the reference: precision 3/4, recall 3/5."""
    _, rows = scored(WordF1(), ["the red, big cat sat", "", "dog"], [["a cat that is red and", "a big red cat here now"], [""], [""]])
    assert rows[0] == pytest.approx([2 * 3 / (4 + 5)])
    assert rows[1:] == [[1.0], [0.0]]
    assert scored(WordF1(), ["the the the", "cat cat"], [["a cat"], ["cat"]])[1] == [[0.0], [pytest.approx(2 / 3)]]


def test_accuracy_compares_labels_letter_for_letter():
    assert scored(Accuracy(), ["tabby cat", "Tabby cat", "dog "], [["tabby cat"]] * 2 + [["dog"]]) == (2 / 3, [[1.0], [0.0], [1.0]])


def test_answers_are_normalised_as_the_code_of_vqa_normalises_them():
    assert {text: normalised(text) for text in NORMALISED} == NORMALISED


@pytest.mark.parametrize(("agree", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_an_answer_is_worth_a_third_of_those_among_the_other_nine_who_agree(agree, expected):
    """Of three who agree, seven ways to leave one out have three (1), three have two (2/3): 0.9."""
    references = ["dog"] * agree + [f"other {n}" for n in range(10 - agree)]
    assert accuracy_of("Dog.", references, always=True) == pytest.approx(expected)


def test_vqa_compares_as_it_is_what_all_people_agree_on():
    """An oddity of the official code, which --metric vqa_accuracy:normalise=always leaves out."""
    answers, wanted = ["Dog.", "dog"], [["dog"] * 10] * 2
    assert scored(VqaAccuracy(), answers, wanted)[1] == [[0.0], [1.0]]
    assert scored(VqaAccuracy(normalise="always"), answers, wanted)[1] == [[1.0], [1.0]]


def test_an_answer_that_could_not_count_fully_is_refused():
    with pytest.raises((ValueError, PluginError), match="record 1 has 1 references; wanted at least 4"):
        scored(VqaAccuracy(), ["a", "b"], [["a"] * 10, ["b"]])
