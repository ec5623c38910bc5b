"""Messages of a conversation, their words for a language model, and what a request is about."""

from __future__ import annotations

import numpy
import pytest
from PIL import Image

import modelgraft as mg
from modelgraft.testing import conform, open_node
from modelgraft_plugins.chatting import Ask, Reply, Shown, Subject, Words

PICTURE = Image.new("RGB", (5, 3))
SOUND = mg.Audio(numpy.zeros((1, 160), numpy.float32), 16_000)
BEFORE = ({"role": "user", "content": "Hello", "time": "2026-01-31"}, {"role": "assistant", "content": [{"type": "text", "text": "Hi!"}]})


def message(role: str, *texts: str):
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts]}


@pytest.mark.parametrize("subject", [Ask, Words, Reply, Shown, Subject])
def test_they_keep_their_declaration(subject):
    conform(subject)


def test_what_is_asked_stands_behind_what_was_said_with_its_media_before_its_words():
    found = open_node(Ask, {"media": ["image", "audio"]})(["What\n is this?", "Hm"], [BEFORE, ()], [PICTURE, None], None)
    first, second = found["conversation"]
    assert first[:2] == BEFORE
    assert first[2] == {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What\n is this?"}]}
    assert second == (message("user", "Hm"),)
    assert found["line"] == ["[image] What is this?", "Hm"]


def test_what_a_conversation_shows_comes_in_its_order_by_medium():
    """None, one and several; a medium that is not looked at is refused, with the record."""
    one, two = PICTURE, PICTURE.copy()
    shown = {
        "role": "user",
        "content": [{"type": "image", "image": one}, {"type": "text", "text": "and"}, {"type": "audio", "audio": SOUND}],
    }
    talk = (*BEFORE, shown, {"role": "user", "content": [{"type": "image", "image": two}]})
    found = open_node(Shown, {"media": ["image", "audio"]})([BEFORE, talk])
    assert [[id(part) for part in parts] for parts in found["image"]] == [[], [id(one), id(two)]]
    assert found["audio"] == [[], [SOUND]]
    assert open_node(Shown, {})([BEFORE]) == {"image": [[]]}
    with pytest.raises(mg.InputError, match="record 2 of 2 shows audio, and image alone is looked at"):
        open_node(Shown, {})([BEFORE, talk])


def test_an_answer_stands_behind_with_its_media_after_its_words():
    (found,) = open_node(Reply, {"media": ["image", "audio"]})([BEFORE], ["Yes"], None, [SOUND])["conversation"]
    assert found[2] == {"role": "assistant", "content": [{"type": "text", "text": "Yes"}, {"type": "audio", "audio": SOUND}]}


def test_of_media_only_the_name_is_left_for_a_model_that_has_no_eyes():
    seen = {"role": "user", "content": [{"type": "image", "image": PICTURE}, {"type": "text", "text": "What is it?"}]}
    (found,) = open_node(Words)([(*BEFORE, seen)])["words"]
    assert found == (message("user", "Hello"), message("assistant", "Hi!"), message("user", "[image] What is it?"))
    (bare,) = open_node(Words, {"marks": False})([(seen,)])["words"]
    assert bare == (message("user", "What is it?"),)


def test_only_the_end_of_a_long_conversation_is_read_and_it_begins_with_a_question():
    told = (message("system", "Be kind"), *(message(role, f"{role}{turn}") for turn in range(3) for role in ("user", "assistant")))
    told = (*told, message("user", "last"))
    (found,) = open_node(Words, {"last": 4})([told])["words"]
    assert [part["content"][0]["text"] for part in found] == ["Be kind", "user2", "assistant2", "last"]
    (short,) = open_node(Words, {"letters": 1})([told])["words"]
    assert [part["content"][0]["text"] for part in short] == ["Be kind", "last"]


def test_examples_stand_behind_the_instructions_and_before_what_was_said():
    told = (message("system", "Be kind"), message("user", "a"), message("assistant", "b"), message("user", "c"))
    (found,) = open_node(Words, {"last": 1, "examples": [["Hi", "Hello"]]})([told])["words"]
    assert found == (told[0], message("user", "Hi"), message("assistant", "Hello"), told[3])


@pytest.mark.parametrize(
    ("request_", "subject"),
    [
        ("show me a cat", "a cat"),
        ("Could you please show me a picture of a black cat, please?", "a black cat"),
        ("Hello! I would like to see some photos of the sea.", "the sea"),
        ("Do you have pictures of flowers?", "flowers"),
        ("[audio] Find me cat pictures", "cat"),
        ("look for something to drink in my album, thanks!", "something to drink"),
        ("Show me a cup of coffee, aloud", "a cup of coffee"),
        ("Find a horse and say it out loud, please.", "a horse"),
        ("a red car at night", "a red car at night"),
        ("Show me!", "Show me!"),
    ],
)
def test_a_request_is_about_its_subject(request_, subject):
    assert open_node(Subject)([request_])["text"] == [subject]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"lead": ["("]}, "cannot be read"),
        ({"tail": ["x*"]}, "matches nothing at all"),
    ],
)
def test_a_pattern_that_would_not_work_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        Subject(**config)


@pytest.mark.parametrize(("media", "said"), [(["image", "image"], "twice"), (["text"], "names text"), (["a b"], "names a b")])
def test_media_are_names_of_record_types_each_once(media, said):
    with pytest.raises(ValueError, match=said):
        Ask(media=media)
