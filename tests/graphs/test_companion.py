"""The graph companion: each message goes its own way, only what it asks for is loaded, and real parts give sensible answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

import modelgraft as mg
from modelgraft.cli import main


def photographs() -> Path:
    data = pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    return Path(data.__file__).parent / "data"


def way_of(line: str) -> str:
    """Which way a line goes, by the router of the graph as it is shipped."""
    from modelgraft.testing import open_node
    from modelgraft_plugins.routers import Match

    solved = mg.check(mg.load("companion"))
    config = solved.nodes["way"].config.model_dump()
    masks = open_node(Match, {name: value for name, value in config.items() if name in ("cases", "patterns", "where")})([line])
    (found,) = [name for name, mask in masks.items() if bool(mask[0])]
    return found


@pytest.mark.parametrize(
    ("line", "way"),
    [
        ("Hello, who are you?", "else"),
        ("[audio] What is the capital of France?", "else"),
        ("Write a poem about the sea", "else"),
        ("I see what you mean", "else"),
        ("[image] What is this?", "look"),
        ("[image] [audio] Which animal is that?", "look"),
        ("[image] What does the sign say?", "read"),
        ("[image] Please read this page to me", "read"),
        ("show me a cat", "show"),
        ("[audio] Show me a cat.", "show"),
        ("Could you find me a picture of a flower?", "show"),
        ("Do you have any photos of the moon?", "show"),
        ("Draw me a house", "draw"),
        ("Can you make a picture of a castle?", "draw"),
    ],
)
def test_a_message_goes_the_way_that_its_words_ask_for(line, way):
    assert way_of(line) == way


def network(test):
    """Mark a test that uses real weights: the first time, some 500 MB are fetched."""
    return pytest.mark.slow(pytest.mark.network(pytest.mark.timeout(1800)(test)))


@pytest.fixture(scope="module")
def album(tmp_path_factory) -> Path:
    """An index of some photographs, made by the command."""
    home = tmp_path_factory.mktemp("album")
    (home / "photos").mkdir()
    for name in ("chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "camera.png", "moon.png"):
        Image.open(photographs() / name).convert("RGB").save(home / "photos" / f"{Path(name).stem}.png")
    assert main(["index", "companion/see", str(home / "photos"), "--out", str(home / "album.safetensors"), "--quiet"]) == 0
    return home / "album.safetensors"


@pytest.fixture(scope="module")
def talk(album) -> Iterator[mg.Pipeline]:
    with mg.open("companion/album", params={"index": str(album)}) as pipeline:
        yield pipeline


def asked(pipeline: mg.Pipeline, **given: object) -> tuple[mg.Result, set[str]]:
    """The result of a message, and which nodes were loaded for it."""
    loaded = set()
    with pipeline.stream(**given) as events:
        for event in events:
            if event.kind == "node-loaded":
                loaded.add(event.node)
        return events.result, loaded


@network
def test_what_nobody_asks_is_not_loaded(album):
    """A picture that is asked for needs a reader of words and the album; no language model, no eye, no ear, no voice."""
    with mg.open("companion/album", params={"index": str(album)}) as pipeline:
        result, loaded = asked(pipeline, text="show me a cat")
        heavy = {"sound", "ear", "written", "eye", "guesses", "scene", "page", "answer", "sounds", "speech"}
        assert not loaded & heavy
        assert {"reader", "found"} <= loaded
        assert "chelsea" in result["text"]
        assert result["audio"] is mg.ABSENT
        result, loaded = asked(pipeline, image=str(photographs() / "coffee.png"))
        assert "espresso" in result["text"]
        assert (loaded & heavy) == {"eye", "guesses", "scene"}


@network
@pytest.mark.parametrize(
    ("words", "name"),
    [("Show me a cat.", "chelsea"), ("find something to drink", "coffee"), ("Do you have pictures of a motorcycle?", "motorcycle_left")],
)
def test_who_asks_for_a_picture_gets_the_one_that_shows_it(talk, words, name):
    result = talk.run(text=words)
    assert name in result["text"]
    with Image.open(next(photographs().glob(f"{name}.*"))) as whole:
        assert result["picture"].size == whole.size, "the photograph itself, not the small one of the index"
    (_, answer) = result["conversation"]
    assert [part["type"] for part in answer["content"]] == ["text", "image"]


@network
def test_a_picture_is_named_and_one_that_the_eye_does_not_know_is_not(talk):
    assert "cat" in talk.run(image=str(photographs() / "chelsea.png"), text="Which animal is that?")["text"]
    assert talk.run(image=str(photographs() / "astronaut.png"))["text"].startswith("I am not sure")


@pytest.mark.whole(
    "tests/graphs/test_companion.py::test_a_message_goes_the_way_that_its_words_ask_for",
    "tests/graphs/test_real_graphs.py::test_talk_hears_every_word_whatever_the_recording_and_answers_aloud",
)
@network
def test_who_is_heard_hears_the_answer(talk):
    """A sentence in the voice of the graph itself is understood, and answered aloud."""
    spoken = talk.run(text="Please say it aloud: hello.")["audio"]
    assert spoken.sample_rate_hz == 24_000
    assert spoken.seconds > 0.5
    result = talk.run(audio=spoken)
    assert result["question"]
    assert result["audio"] is not mg.ABSENT
    (said, answer) = result["conversation"]
    assert [part["type"] for part in said["content"]] == ["audio", "text"]
    assert [part["type"] for part in answer["content"]] == ["text", "audio"]


@network
def test_what_was_said_before_is_read_and_comes_back(talk):
    before = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello Ada, nice to meet you!"}]
    result = talk.run(text="What is my name?", history=before, outputs=["text", "talk.words", "conversation"])
    assert [message["content"][0]["text"] for message in result["talk.words"]][-3:] == [
        *(one["content"] for one in before),
        "What is my name?",
    ]
    assert result["text"]
    assert [message["role"] for message in result["conversation"]] == ["user", "assistant", "user", "assistant"]


@network
def test_records_of_one_batch_go_different_ways(talk):
    """And come back in their order, each as it is alone."""
    texts = ["Draw me a house.", "show me a cat"]
    together = talk.run(text=texts, outputs=["text"])["text"]
    assert together == [talk.run(text=text, outputs=["text"])["text"] for text in texts]
