"""The graphs describe, caption, talk, read and look: real weights on real photographs, spoken sentences and drawn pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

import modelgraft as mg
from modelgraft.sources import archives
from modelgraft.testing import open_node
from modelgraft_plugins.speech import Kokoro, Phonemes, kokoro, pronounce

pytestmark = pytest.mark.slow  # it runs real models

REAL = ("describe", "talk", "read", "caption", "look")


def network(test):
    """Mark a test that uses real weights: the first time, 300 MB are fetched."""
    return pytest.mark.network(pytest.mark.timeout(900)(test))


def photograph(name: str) -> Path:
    """A photograph that ships with scikit-image or scikit-learn."""
    skimage = pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    sklearn = pytest.importorskip("sklearn", reason="the photographs ship with scikit-learn")
    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images")
    return next(folder / name for folder in folders if (folder / name).is_file())


def spoken(*texts: str) -> list[mg.Audio]:
    """The texts, spoken by the graph's own voice."""
    archives.member(pronounce.DICTIONARY), archives.member(pronounce.LETTERS)
    archives.join(kokoro.PARTS, sha256=kokoro.WHOLE_SHA256, name="kokoro-v1.0.int8.onnx")
    archives.member(kokoro.SYMBOLS), archives.member(kokoro.VOICES)
    sounds = open_node(Phonemes)(list(texts))["phonemes"]
    found: list[mg.Audio] = open_node(Kokoro)(sounds)["audio"]
    return found


def words(text: str) -> list[str]:
    """The words of a sentence without marks and capitals."""
    return "".join(letter for letter in text.lower() if letter.isalnum() or letter.isspace()).split()


def word_errors(heard: str, said: str) -> int:
    """The fewest words that must be put in, left out or changed to turn one sentence into the other."""
    one, other = words(heard), words(said)
    row = list(range(len(other) + 1))
    for index, word in enumerate(one):
        before, row[0] = row[:], index + 1
        for column, wanted in enumerate(other):
            row[column + 1] = min(before[column] + (word != wanted), before[column + 1] + 1, row[column] + 1)
    return row[-1]


def page(*lines: str) -> Image.Image:
    """Black lines on white paper."""
    picture = Image.new("RGB", (640, 70 * len(lines) + 40), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size=30)
    for index, line in enumerate(lines):
        pen.text((40, 30 + 70 * index), line, font=font, fill="black")
    return picture


@pytest.mark.parametrize("name", REAL)
def test_they_are_checked_without_weights_and_network(name, tmp_path, monkeypatch):
    """On a machine that never fetched anything the whole graph is solved, with the language model's width and context."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path))
    plan = mg.plan(mg.load(name))
    model = next(step for step in plan.steps if step.node.component.id == "llm/causal")
    assert model.parameters.total == 134_515_008  # published: SmolLM2-135M
    assert model.node.config.max_position_embeddings == 8192


def test_describe_plans_the_eye_alone_when_only_labels_are_wanted():
    """Nobody needs the language model for that: it is neither loaded nor run."""
    plan = mg.plan(mg.load("describe"), wanted=["labels"])
    assert plan.pruned == ("sentence",)
    assert plan.totals.parameters == 4_652_008  # published: 4.65 M


@network
def test_describe_tells_what_real_photographs_show():
    """The eye names the thing among its guesses, and the sentence is about one of the guesses."""
    shown = {"chelsea.png": ("cat",), "coffee.png": ("espresso", "cup"), "china.jpg": ("palace", "monastery")}
    with mg.open("describe") as pipeline:
        for name, things in shown.items():
            result = pipeline.run(image=photograph(name))
            assert any(thing in result["labels"] for thing in things), f"{name}: {result['labels']}"
            assert any(thing in result["text"] for thing in things), f"{name}: {result['text']}"
            assert result["text"].startswith("The photograph shows a")
            assert result["text"].endswith(".")


@network
def test_look_sends_each_question_of_a_batch_its_own_way():
    """Who asks for words gets those of the sign, who asks what it is gets the sentence of `describe`; unneeded branches are not loaded."""
    sign = page("NO FISHING")
    with mg.open("look") as pipeline:
        heard = list(pipeline.stream(image=sign, question="What does the sign SAY?"))
        read = heard[-1]["result"]
        assert words(read["text"]) == ["no", "fishing"]
        assert {event.node for event in heard if event.kind == "node-loaded"} == {"asks", "page", "text"}
        cat = photograph("chelsea.png")
        both = pipeline.run(image=[cat, sign], question=["What is this?", "Read it."])
        assert both["text"] == [mg.open("describe").run(image=cat)["text"], read["text"]]
        assert both["reads"].tolist() == [False, True]


@network
def test_describe_prepares_pictures_as_the_authors_do_and_loads_what_it_needs():
    """Shorter side 256, middle 224 x 224, (x - 127) / 128; a run for the labels loads the eye alone."""
    picture = Image.open(photograph("chelsea.png")).convert("RGB")
    scale = 256 / min(picture.size)
    small = picture.resize([int(side * scale) for side in picture.size], Image.Resampling.BICUBIC)
    left, top = (small.width - 224) // 2, (small.height - 224) // 2
    wanted = (np.asarray(small.crop((left, top, left + 224, top + 224)), dtype=np.float32) - 127) / 128
    with mg.open("describe", offline=True) as pipeline:
        result = pipeline.run(image=picture, outputs=["labels", "pixels.pixels"])
    torch.testing.assert_close(result["pixels.pixels"][0].permute(1, 2, 0), torch.from_numpy(wanted), rtol=0, atol=1e-5)
    assert set(result.timings) == {"pixels", "eye", "guesses"}


@network
def test_talk_hears_every_word_whatever_the_recording_and_answers_aloud():
    """A spoken question is written down word for word, at 24 kHz and in stereo at 44.1 kHz; the spoken answer is heard again."""
    said = "What is the capital of France?"
    (question,) = spoken(said)
    frames = np.arange(int(question.seconds * 44_100)) / 44_100
    plain = np.interp(frames, np.arange(question.samples.shape[1]) / 24_000, question.samples[0])
    stereo = mg.Audio(np.stack([plain, plain * 0.5]).astype(np.float32), 44_100)
    with mg.open("talk") as pipeline:
        first = pipeline.run(audio=question)
        second = pipeline.run(audio=stereo, outputs=["question"])
        heard = pipeline.run(audio=first["audio"], outputs=["question"])["question"]
    assert words(first["question"]) == words(said)
    assert words(second["question"]) == words(said)
    assert any("2 channels were mixed into one" in warning for warning in second.warnings)
    assert any("resampled from 44100 Hz to 16000 Hz" in warning for warning in second.warnings)
    assert "Paris" in first["text"]
    assert first["audio"].sample_rate_hz == 24_000
    assert word_errors(heard, first["text"]) <= 1  # of six words: the voice speaks English with an accent


@network
def test_what_the_voice_says_is_understood():
    """Sentences come back from the recogniser with few words wrong."""
    sentences = (
        "The photograph shows a golden retriever with a tennis ball.",
        "The doctor will see you on Tuesday morning.",
        "Please read the third line of the letter aloud.",
    )
    with mg.open("talk", offline=True) as pipeline:
        heard = pipeline.run(audio=spoken(*sentences), outputs=["question"])["question"]
    errors = sum(word_errors(one, other) for one, other in zip(heard, sentences, strict=True))
    count = sum(len(words(sentence)) for sentence in sentences)
    assert errors / count <= 0.1, f"{errors} of {count} words: {heard}"


@network
def test_talk_says_what_is_wrong_with_a_sound(tmp_path):
    """Too long for the recogniser, and empty: each with one message, before anything is loaded that is not needed."""
    import wave

    empty = tmp_path / "empty.wav"
    with wave.open(str(empty), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
    with mg.open("talk", offline=True) as pipeline:
        with pytest.raises(mg.InputError, match=r"input 'audio': '.*empty\.wav' is empty: it holds no samples"):
            pipeline.run(audio=empty)
        with pytest.raises(mg.InputError, match=r"the sound lasts 31\.0 s and 30 s are heard at once; cut it into pieces"):
            pipeline.run(audio=mg.Audio(np.zeros((1, 31 * 8000), np.float32), 8000))


@network
def test_read_answers_from_the_lines_of_a_page():
    """Every line is read to the letter, and the answer holds what stands in the right one."""
    pytest.importorskip("rapidocr", reason="the package rapidocr is not installed")
    receipt = ("Corner Cafe", "12 Market Street", "2 x Espresso 5.00", "1 x Croissant 2.80", "Total: 7.80 EUR", "Thank you!")
    with mg.open("read") as pipeline:
        result = pipeline.run(image=page(*receipt), question="What is the total?")
        other = pipeline.run(image=page(*receipt), question="Where is the cafe?", outputs=["text"])
        blank = pipeline.run(image=Image.new("RGB", (211, 103), "white"), question="What is the total?", outputs=["text"])
    assert tuple(result["lines"]) == receipt
    assert [box["text"] for box in result["boxes"]] == list(receipt)
    assert "7.80" in result["text"]
    assert "12 Market Street" in other["text"]
    assert "page" in other.cached  # another question does not read the picture again
    assert blank["text"] == "There is no text in the picture to answer this from: What is the total?"


@network
def test_caption_quotes_the_words_of_a_picture_that_has_some():
    """Two pictures at once take two ways: one is described, of the other the heading is quoted."""
    pytest.importorskip("rapidocr", reason="the package rapidocr is not installed")
    with mg.open("caption") as pipeline:
        result = pipeline.run(image=[Image.open(photograph("chelsea.png")), page("Garden Party", "Sunday at noon")])
    assert result["lines"] == [[], ["Garden Party", "Sunday at noon"]]
    assert "cat" in result["text"][0]
    assert "Garden Party" not in result["text"][0]
    assert "Garden Party" in result["text"][1]
