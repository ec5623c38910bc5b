"""CTC: greedy text and loss against transformers, beam search against all texts that there are, n-grams against their formula."""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from modelgraft import InputError
from modelgraft.sources import views
from modelgraft.testing import conform, open_node
from modelgraft_plugins.audio import letters
from modelgraft_plugins.audio.arpa import Ngrams
from modelgraft_plugins.audio.ctc import Beam, Ctc, Greedy, Head
from support.installed import registry
from support.open_part import configured

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
REGISTRY = registry()
SMALL = ("_", "A", "B", "|")  # blank, two letters, delimiter


def tokenizer(folder: Path, **more: Any) -> hf.Wav2Vec2CTCTokenizer:
    """The letters of the published English models, saved."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(letters.ENGLISH)}))
    made = hf.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **more)
    made.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "wav2vec2", "pad_token_id": 0}))
    return made


@pytest.mark.parametrize("lower", [False, True])
def test_greedy_text_equals_that_of_transformers(tmp_path: Path, lower: bool):
    """On random classes with many repeats and blanks, special tokens among them, rows of unlike lengths."""
    made = tokenizer(tmp_path, do_lower_case=lower)
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, len(letters.ENGLISH), (5, 60), generator=generator) * (torch.rand(5, 60, generator=generator) < 0.6)
    ids = ids.repeat_interleave(2, dim=1)
    mask = torch.arange(120) < torch.tensor([120, 3, 1, 0, 77])[:, None]
    found = open_node(Greedy, configured(REGISTRY, "ctc/greedy", str(tmp_path)).config.model_dump())(
        torch.nn.functional.one_hot(ids, len(letters.ENGLISH)).float(), mask
    )["text"]
    assert found == made.batch_decode([row[there].tolist() for row, there in zip(ids, mask, strict=True)])


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_loss_equals_that_of_transformers(tmp_path: Path, reduction: str):
    """The mean of the shares is the published loss, of rows of unlike lengths of sound and letters."""
    sizes = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 3, "num_conv_pos_embeddings": 4,
             "num_conv_pos_embedding_groups": 2, "conv_dim": [6, 7], "conv_stride": [5, 2], "conv_kernel": [10, 3]}  # fmt: skip
    torch.manual_seed(3)
    model = hf.Wav2Vec2ForCTC(hf.Wav2Vec2Config(**sizes, feat_extract_norm="layer", ctc_loss_reduction=reduction, vocab_size=11)).eval()
    model.save_pretrained(tmp_path)
    samples, there = torch.randn(3, 331), torch.arange(331) < torch.tensor([331, 210, 250])[:, None]
    labels = torch.tensor([[3, 3, 5, 1], [7, -100, -100, -100], [10, 2, -100, -100]])
    with torch.no_grad():
        wanted = model(samples, attention_mask=there.long(), labels=labels)
    mask = torch.arange(wanted.logits.shape[1]) < model._get_feat_extract_output_lengths(there.sum(-1))[:, None]
    loss = open_node(Ctc, configured(REGISTRY, "loss/ctc", str(tmp_path)).config.model_dump())
    torch.testing.assert_close(loss(wanted.logits, labels, mask)["loss"].mean(), wanted.loss, rtol=1e-6, atol=0)


def test_labels_that_are_no_letters_are_refused():
    loss = open_node(Ctc, {})
    for label, told in ((0, "found the label 0: the blank, which no text holds"), (9, "found the label 9: wanted 0 to 4")):
        with pytest.raises(InputError, match=told):
            loss(torch.randn(1, 7, 5), torch.tensor([[2, label]]), None)


def test_a_text_longer_than_its_sound_loses_without_end_unless_it_is_asked_to_count_for_nothing():
    logits, labels = torch.randn(1, 2, 5), torch.tensor([[1, 2, 3]])
    assert math.isinf(float(open_node(Ctc, {})(logits, labels, None)["loss"]))
    assert float(open_node(Ctc, {"zero_infinity": True})(logits, labels, None)["loss"]) == 0


def test_head_loss_and_writers_keep_their_declarations():
    conform(Head, {"in_features": 6, "classes": 5})
    conform(Ctc, {}, logits=torch.randn(2, 9, 5), labels=torch.tensor([[1, 2, 2], [3, -1, -1]]))
    conform(Ctc, {"reduction": "mean"}, logits=torch.randn(2, 9, 5), labels=torch.tensor([[1, 2, 2], [3, -1, -1]]))
    for writer in (Greedy, Beam):
        conform(writer, {"vocabulary": SMALL})


# -- beam search -----------------------------------------------------------------------------------------------------------

ARPA = """
\\data\\
ngram 1=6
ngram 2=4
ngram 3=1

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-1.2\t</s>
-0.6\tAB\t-0.3
-0.9\tA\t-0.2
-1.4\tBA\t-0.7

\\2-grams:
-0.4\t<s> A\t-0.1
-0.2\tA BA\t-0.25
-0.35\tAB AB
-0.3\tBA </s>

\\3-grams:
-0.15\t<s> A BA

\\end\\
"""


def every_text(rows: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The log-probability of each text: the sum over every alignment, of which there are classes ** frames."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    listed = rows.tolist()
    for path in itertools.product(range(rows.shape[1]), repeat=rows.shape[0]):
        letters_of = tuple(number for number, _ in itertools.groupby(path) if number != 0)
        found[letters_of] += math.exp(sum(row[number] for row, number in zip(listed, path, strict=True)))
    return {text: math.log(value) for text, value in found.items()}


def spoken(text: tuple[int, ...]) -> list[str]:
    return "".join(SMALL[number] for number in text).split("|")


def said(words: list[str]) -> float:
    """The log10 of words by hand: the longest n-gram that is listed, and a weight for each word that is dropped."""
    table = [line.split("\t") for line in ARPA.splitlines() if "\t" in line]
    grams = {row[1]: (float(row[0]), float(row[2]) if len(row) > 2 else 0.0) for row in table}

    def behind(before: list[str], word: str) -> float:
        if word not in grams:
            return behind(before, "<unk>") - 10.0
        gram = " ".join([*before, word])
        if gram in grams:
            return grams[gram][0]
        return behind(before[1:], word) + grams.get(" ".join(before), (0.0, 0.0))[1]

    all_words = ["<s>", *words, "</s>"]
    return sum(behind(all_words[max(0, index - 2) : index], word) for index, word in enumerate(all_words) if index)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["letters", "words", "ngram", "both"])
def test_the_best_text_is_the_best_of_all_texts(tmp_path: Path, kind: str, seed: int):
    """Of every text of two letters and a delimiter in six frames, by its probability, its words, and what an n-gram says of them."""
    rows = (2.0 * torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)
    (tmp_path / "small.arpa").write_text(ARPA)
    listed = ("A", "AB", "BA", "ABBA")
    words, ngram = (listed if kind in ("words", "both") else ()), (str(tmp_path / "small.arpa") if kind in ("ngram", "both") else "")
    beam = open_node(Beam, {"vocabulary": SMALL, "width": 5000, "least": -1000.0, "words": words, "ngram": ngram, "weight": 0.7})
    scores = {}
    for text, probability in every_text(rows).items():
        parts = spoken(text)
        inner = [part for place, part in enumerate(parts) if part or 0 < place < len(parts) - 1]
        doubled = "||" in "".join(SMALL[number] for number in text)
        if words and (doubled or not set(filter(None, parts)) <= set(listed)):
            continue
        real = [word for word in inner if word]
        scores[text] = probability + ((0.7 * math.log(10) * said(real) + 1.5 * len(real)) if ngram else 0.0)
    wanted = "".join(SMALL[number] for number in max(scores, key=scores.__getitem__)).replace("|", " ").strip()
    assert beam(rows[None], None)["text"] == [wanted]


def test_a_narrow_beam_finds_what_a_wide_one_does_where_letters_are_clear():
    """And a frame whose letters are all unlikely still has its likeliest."""
    sharp = torch.full((1, 7, 4), -20.0)
    for frame, number in enumerate((1, 0, 1, 2, 3, 2, 1)):
        sharp[0, frame, number] = 20.0
    assert open_node(Beam, {"vocabulary": SMALL, "width": 1})(sharp, None)["text"] == ["AAB BA"]
    assert open_node(Beam, {"vocabulary": SMALL, "least": -0.001})(torch.zeros(1, 3, 4), None)["text"] == [""]


def test_a_word_that_is_not_whole_at_the_end_is_left_out():
    sharp = torch.nn.functional.one_hot(torch.tensor([[1, 2, 3, 2]]), 4).float() * 40
    assert open_node(Beam, {"vocabulary": SMALL, "words": ("AB", "BA"), "least": -1.0})(sharp, None)["text"] == ["AB"]


def test_an_ngram_is_read_also_when_it_is_packed(tmp_path: Path):
    with gzip.open(tmp_path / "small.arpa.gz", "wt") as file:
        file.write(ARPA)
    model = Ngrams(tmp_path / "small.arpa.gz")
    for words in (["A", "BA"], ["AB", "AB", "A"], ["C", "BA"], []):
        history, total = model.start(), 0.0
        for word in words:
            score, history = model.score(history, word)
            total += score
        assert total + model.end(history) == pytest.approx(math.log(10) * said(words))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("\\data\\\n\\1-grams:\n-1 A\n", "no whole n-gram in ARPA format"),
        ("\\1-grams:\nx A\n\\end\\", "line 2: 'x A' has no number"),
        ("\\2-grams:\n-1 A\n\\end\\", "line 2: '-1 A', wanted a log10, 2 words"),
        ("\\99-grams:\n\\end\\", "wanted .1-grams: to .12-grams:"),
        (b"\x80binary", "cannot be read as an n-gram in ARPA format"),
    ],
)
def test_a_file_that_is_no_ngram_is_refused(tmp_path: Path, content: str | bytes, told: str):
    (tmp_path / "x.arpa").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=told):
        Ngrams(tmp_path / "x.arpa")


def test_word_lists_that_cannot_be_are_refused(tmp_path: Path):
    for config, told in (
        ({"words": ("cat", "dog")}, "no word of the list can be spelt with the letters of the vocabulary; the first is 'cat'"),
        ({"words_file": str(tmp_path / "none.txt")}, "there is no file .*none.txt"),
    ):
        with pytest.raises(InputError, match=told):
            open_node(Beam, {"vocabulary": SMALL, **config})


# -- letters ---------------------------------------------------------------------------------------------------------------


def test_a_folder_brings_its_language_model(tmp_path: Path):
    """As processors with a language model are saved."""
    tokenizer(tmp_path)
    folder = tmp_path / "language_model"
    folder.mkdir()
    (folder / "unigrams.txt").write_text("A\nAB\n")
    (folder / "3gram.arpa").write_text(ARPA)
    (folder / "attrs.json").write_text(json.dumps({"alpha": 0.25, "beta": 2.0, "unk_score_offset": -8.0, "score_boundary": True}))
    config = configured(REGISTRY, "ctc/beam", str(tmp_path)).config
    assert (config.weight, config.bonus, config.unknown) == (0.25, 2.0, -8.0)
    assert (config.words_file, config.ngram) == (str(folder / "unigrams.txt"), str(folder / "3gram.arpa"))


def test_letters_of_fairseq_are_read_beside_its_file_and_inside_it(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    (tmp_path / "dict.ltr.txt").write_text("| 94802\nE 51860\nT 38431\n")
    config = configured(REGISTRY, "ctc/greedy", str(tmp_path)).config
    assert config.vocabulary == ("<s>", "<pad>", "</s>", "<unk>", "|", "E", "T")
    inside = {"target_dictionary": {"symbols": ["<s>", "<pad>", "</s>", "<unk>", "|", "Z"]}}
    torch.save({"model": {"w2v_encoder.proj.weight": torch.zeros(6, 3)}, "task_state": inside}, tmp_path / "tuned.pt")
    (tmp_path / "dict.ltr.txt").unlink()
    assert configured(REGISTRY, "ctc/greedy", str(tmp_path / "tuned.pt")).config.vocabulary[4:] == ("|", "Z")


def test_letters_that_no_file_says_are_told(tmp_path: Path):
    torch.save({"w2v_encoder.proj.weight": torch.zeros(32, 3)}, tmp_path / "tuned.pt")
    view = views.view(views.parse(str(tmp_path / "tuned.pt")), registry=REGISTRY, folder=None, trusted=True, offline=True)
    ((found, way_out, key),) = Greedy.unheeded(view)
    assert "says no letters: its classes are taken for those of the published English models" in found
    assert "vocab.json" in way_out
    assert key == "vocabulary"


def test_one_of_several_languages_must_be_chosen(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    (tmp_path / "vocab.json").write_text(json.dumps({"deu": {"<pad>": 0, "ä": 1}, "fra": {"<pad>": 0, "é": 1}}))
    with pytest.raises(ValueError, match="the letters of 2 languages, and none is chosen: name one as target_lang"):
        configured(REGISTRY, "ctc/greedy", str(tmp_path))
    (tmp_path / "tokenizer_config.json").write_text('{"target_lang": "fra"}')
    assert configured(REGISTRY, "ctc/greedy", str(tmp_path)).config.vocabulary == ("<pad>", "é")


def test_a_head_that_is_not_there_is_told(tmp_path: Path):
    torch.save({"encoder.layer_norm.weight": torch.zeros(3)}, tmp_path / "pretrained.pt")
    with pytest.raises(ValueError, match=r"holds no head of CTC .*: it was not fine-tuned on letters"):
        configured(REGISTRY, "ctc/head", str(tmp_path / "pretrained.pt"))
