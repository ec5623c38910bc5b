"""Metrics of captions, translations and speech: against what independent implementations gave."""

import jiwer
import numpy
import pytest
import sacrebleu

from modelgraft.plugin import InputError
from modelgraft_plugins.metrics import Bleu, Cer, Chrf, Cider, RougeL, Wer
from modelgraft_plugins.metrics.speech import plain
from modelgraft_plugins.metrics.wording import caption_words, needed
from support.scored import scored

CAPTIONS = (
    ("A small orange cat sits on a wooden chair.",
     ["An orange cat sitting on a chair.", "A cat rests on top of a wooden chair", "the small cat is sitting on a chair made of wood",
      "A cat sits, looking at the camera."]),
    ("A man rides a bike down the street",
     ["A man riding a bicycle down a busy street.", "The man is on a bike in the street", "A cyclist rides past a row of parked cars."]),
    ("a cup of coffee on a table",
     ["A cup of coffee sits on a white table.", "There's a coffee cup on the table", "A white mug filled with coffee."]),
    ("astronaut astronaut astronaut",
     ["A portrait of an astronaut in an orange suit.", "The astronaut isn't wearing her helmet",
      "A smiling woman in a space suit, with a flag behind her."]),
    ("dog", ["A dog runs on the beach", "A brown dog, running."]),
    ("", ["A photo of a rocket launch at night", "A rocket lifts off."]),
    ("Two people don't look at the well-known t-shirt; it's 3.5 metres wide!",
     ["Two people aren't looking at the t-shirt", "Nobody's looking at a (very) wide \"t-shirt\".",
      "They cannot see it: it is 3.5 metres wide"]),
)  # fmt: skip
SAID, WANTED = [said for said, _ in CAPTIONS], [wanted for _, wanted in CAPTIONS]
# What pycocoevalcap 1.2 gave for them, with its tokenizer of the Penn Treebank (Java).
COCO_CIDER = (1.1455941122209976, [1.765372, 1.523746, 2.391076, 0.176544, 1.139468, 0.0, 1.022952])
COCO_ROUGE = (0.46470024459276876, [0.69397, 0.582061, 0.855711, 0.186544, 0.360947, 0.0, 0.573668])
COCO_BLEU = [0.7457100909395549, 0.5296665466810385, 0.31292504547094185, 0.17772204528156443]
# What rouge-score 0.1.2 gave: RougeScorer(["rougeL"]).score_multi(references, prediction)["rougeL"].fmeasure.
GOOGLE_ROUGE = [0.666667, 0.588235, 0.875, 0.2, 0.4, 0.0, 0.538462]
LISTED = [[wanted[n] if n < len(wanted) else None for wanted in WANTED] for n in range(4)]  # references as sacrebleu takes them


def firsts(rows):
    return [row[0] for row in rows]


def test_cider_is_that_of_its_authors():
    found, rows = scored(Cider(), SAID, WANTED)
    assert found == pytest.approx(COCO_CIDER[0], abs=1e-9)
    assert firsts(rows) == pytest.approx(COCO_CIDER[1], abs=1e-6)


def test_rouge_l_is_that_of_coco_or_of_google():
    found, rows = scored(RougeL(rules="coco"), SAID, WANTED)
    assert found == pytest.approx(COCO_ROUGE[0], abs=1e-9)
    assert firsts(rows) == pytest.approx(COCO_ROUGE[1], abs=1e-6)
    assert firsts(scored(RougeL(), SAID, WANTED)[1]) == pytest.approx(GOOGLE_ROUGE, abs=1e-6)


def test_bleu_of_captions_is_that_of_coco():
    """But for the tiny numbers that it adds where nothing matches."""
    for order in (1, 2, 3, 4):
        found, _ = scored(Bleu(words="captions", order=order, smooth="none"), SAID, WANTED)
        assert found == pytest.approx(100 * COCO_BLEU[order - 1], abs=1e-4)


def test_captions_are_cut_as_the_penn_treebank_cuts_them():
    """As its tokenizer in Java did, with brackets as they are written."""
    assert caption_words("Two people don't; it's 3.5 metres, a well-known t-shirt!") == [
        "two", "people", "do", "n't", "it", "'s", "3.5", "metres", "a", "well-known", "t-shirt",
    ]  # fmt: skip
    assert caption_words('They cannot see "it" (very)') == ["they", "can", "not", "see", "it", "(", "very", ")"]


def test_bleu_and_chrf_of_rows_are_those_of_the_corpus():
    """With unlike numbers of references; made of the sums of rows."""
    assert scored(Bleu(), SAID, WANTED)[0] == pytest.approx(sacrebleu.corpus_bleu(SAID, LISTED).score)
    assert scored(Bleu(lowercase=True, order=2, words="char"), SAID, WANTED)[0] == pytest.approx(
        sacrebleu.BLEU(lowercase=True, max_ngram_order=2, tokenize="char").corpus_score(SAID, LISTED).score
    )
    for words in (0, 2):
        found = scored(Chrf(words=words), SAID, WANTED)[0]
        assert found == pytest.approx(sacrebleu.CHRF(word_order=words).corpus_score(SAID, LISTED).score)


def test_bleu_of_other_words_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"words is 'klingon'; sacrebleu knows .*13a.*, and there is captions"):
        scored(Bleu(words="klingon"), SAID, WANTED)


def test_error_rates_count_over_all_records_together():
    """One of ten words, and one of two: 2/12, and not the mean of 1/10 and 1/2."""
    said = ["one two three four five six seven eight nine tin", "Hello, word"]
    wanted = [["one two three four five six seven eight nine ten"], ["hello world"]]
    found, rows = scored(Wer(), said, wanted)
    assert rows == [[1, 10], [1, 2]]
    assert found == pytest.approx(2 / 12)
    assert found == pytest.approx(jiwer.wer([one[0] for one in wanted], [plain(one) for one in said]))
    assert scored(Cer(), ["word"], [["world"]]) == (1 / 5, [[1, 5]])


def test_of_several_references_the_nearest_counts_and_an_empty_one_has_no_words():
    assert scored(Wer(), ["a b c"], [["x y", "a b d", "a b c d e f"]])[1] == [[1, 3]]
    assert scored(Wer(), ["a b", ""], [[""], ["a b"]]) == (2.0, [[2, 0], [2, 2]])
    assert scored(Wer(), [""], [[""]])[0] == 0


@pytest.mark.parametrize(
    ("text", "said", "wanted", "errors"),
    [
        ("plain", "It\u2019s 'fine', OK?", "it's fine ok", 0),
        ("as_is", "Fine.", "fine", 1),
        ("whisper", "[noise] Fine, d\u00e9j\u00e0-vu", "fine d\u00e9j\u00e0 vu", 0),
        ("whisper_english", "I won't pay twenty dollars", "i will not pay $20", 0),
    ],
)
def test_what_is_compared_is_normalised_as_it_is_named(text, said, wanted, errors):
    assert scored(Wer(text=text), [said], [[wanted]])[1][0][0] == errors


def test_a_package_that_is_missing_is_named_with_its_extra():
    with pytest.raises(InputError, match=r"metric/wer needs the package not_there: pip install 'modelgraft\[metrics\]'"):
        needed("not_there.inside", by="metric/wer")


def test_a_figure_of_drawn_rows_is_that_of_drawn_records():
    """Rows of records that are drawn twice make the figure that these records would make."""
    picks = [0, 0, 2, 6, 1, 1, 1]
    for metric in (Bleu(), Chrf(), Wer()):
        rows = numpy.asarray(scored(metric, SAID, WANTED)[1], dtype=float)
        drawn = scored(metric, [SAID[n] for n in picks], [WANTED[n] for n in picks])[0]
        assert metric.summary(rows[picks]) == pytest.approx(drawn)
