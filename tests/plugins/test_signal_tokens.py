"""Signal tokens: what an answer asks of other models, and how what they made comes back into it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import modelgraft as mg
from modelgraft import ABSENT
from modelgraft.engine.run import NodeRuntime
from modelgraft.testing import conform
from modelgraft_plugins.routers.interleaved import load
from modelgraft_plugins.routers.interleaving import Interleave
from modelgraft_plugins.routers.signals import SignalTokens
from modelgraft_plugins.routers.signals_read import SignalReader

MEDIA = {"image": {"tokens": "[IMG{}]", "count": 3}, "sound": ["[AUD0]", "[AUD1]"], "found": "[RET]"}
SIGNALS = ["[IMG0]", "[IMG1]", "[IMG2]", "[AUD0]", "[AUD1]", "[RET]"]
LAYERS, WIDTH = 2, 4


def tapped(answers: list[list[str]], *, at: str = "signals") -> torch.Tensor:
    """float[batch layers positions width]: states that tell their record, place, layer and number; 0 behind the last."""
    rows = []
    for row, answer in enumerate(answers):
        places = [place for place, piece in enumerate(answer) if at == "written" or piece in SIGNALS]
        states = torch.tensor([[[1000.0 * (row + 1) + 10 * place + layer] * WIDTH for place in places] for layer in range(LAYERS)])
        rows.append(states.view(LAYERS, len(places), WIDTH).transpose(0, 1))
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).transpose(1, 2)


def read(answers: list[list[str]], *, at: str = "signals", **config: Any) -> tuple[dict[str, Any], list[str]]:
    """What a router gives of answers, and what it tells."""
    told: list[str] = []
    router = SignalReader(SignalTokens(media=MEDIA, at=at, **config), "asks")
    router.bind(NodeRuntime("asks", emit=lambda _kind, text: told.append(text)))
    return router(answers, tapped(answers, at=at)), told


def places(states: torch.Tensor, row: int = 0) -> list[list[int]]:
    """Which tokens of a record the spans are made of, by the states that `tapped` makes."""
    assert all((each[1] == each[0] + 1).all() for each in states), "the layers are in their order"
    return [[int((value - 1000 * (row + 1)) // 10) for value in each[0, :, 0].tolist()] for each in states]


def asked(parts: list[dict[str, Any]]) -> list[str]:
    """Parts, short: texts, and asks such as image 0."""
    return [part["text"] if part["type"] == "text" else f"<{part['medium']} {part['number']}>" for part in parts]


IMAGE, SOUND = SIGNALS[:3], SIGNALS[3:5]


@pytest.mark.parametrize("at", ["signals", "written"])
def test_complete_spans_are_found_in_their_order(at):
    """Several media in one answer, several asks of one; the states are those of their tokens; other records ask for nothing."""
    answer = ["A", " cat", *IMAGE, ",", "", " it purrs", *SOUND, *IMAGE, " and [IMG0", "] ", "[RET]", "[RET]", "."]
    found, told = read([["no", " signal"], answer, []], at=at)
    assert told == []
    assert [asked(parts) for parts in found["parts"]] == [
        ["no signal"],
        ["A cat", "<image 0>", ", it purrs", "<sound 0>", "<image 1>", " and [IMG0] ", "<found 0>", "<found 1>", "."],
        [],
    ]
    assert places(found["image_states"][1], 1) == [[2, 3, 4], [10, 11, 12]]
    assert places(found["sound_states"][1], 1) == [[8, 9]]
    assert places(found["found_states"][1], 1) == [[15], [16]]
    assert [tuple(each.shape) for each in found["image_states"]] == [(0, LAYERS, 3, WIDTH), (2, LAYERS, 3, WIDTH), (0, LAYERS, 3, WIDTH)]
    assert torch.equal(found["image_vector"][1], found["image_states"][1][:, -1, -1])
    assert found["image_text"] == [[], ["A cat", ", it purrs"], []]
    assert found["sound_text"][1] == [", it purrs"]
    assert found["found_text"][1] == ["and [IMG0]", "and [IMG0]"]


def test_words_that_follow_belong_to_an_ask_without_words_before_it():
    """Nothing at all where an answer is signals alone."""
    found, _ = read([["[RET]", " ", *SOUND, " a bird", "[RET]"], ["[RET]"]])
    assert (found["found_text"], found["sound_text"][0]) == ([["a bird", "a bird"], [""]], ["a bird"])


BROKEN = {
    "cut": (["a", *IMAGE[:2]], "[IMG0] [IMG1]", [[1, 2, 2]]),
    "begun late": ([*IMAGE[1:], "b"], "[IMG1] [IMG2]", [[0, 0, 1]]),
    "out of order": (["a", IMAGE[2], IMAGE[0], IMAGE[1]], "[IMG2] [IMG0] [IMG1]", [[2, 3, 1]]),
    "stammered": ([IMAGE[0], IMAGE[1], IMAGE[1], IMAGE[2]], "[IMG0] [IMG1] [IMG1] [IMG2]", [[0, 1, 3]]),
    "begun twice": ([IMAGE[0], IMAGE[1], *IMAGE], "[IMG0] [IMG1]", [[0, 1, 1], [2, 3, 4]]),
    "a word between": ([IMAGE[0], " x ", *IMAGE[1:]], "[IMG0]", [[0, 0, 0], [2, 2, 3]]),
    "another medium between": ([IMAGE[0], "[RET]", *IMAGE[1:]], "[IMG0]", [[0, 0, 0], [2, 2, 3]]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_spans_are_dropped_repaired_or_refused(name):
    """What is left out or made is told, with what stands there; the words around stay, without the signals."""
    answer, shown, repaired = BROKEN[name]
    whole = [span for span in repaired if [answer[place] for place in span] == IMAGE and span == list(range(span[0], span[0] + 3))]
    words = "".join(piece for piece in answer if piece not in SIGNALS)
    found, told = read([answer])
    assert places(found["image_states"][0]) == whole
    assert f"asks: record 1 of 1 holds a broken span of image: {shown}, wanted [IMG0] to [IMG2] in their order; it is left out" in told
    assert "".join(part["text"] for part in found["parts"][0] if part["type"] == "text") == words
    found, told = read([answer], broken="repair")
    assert places(found["image_states"][0]) == repaired
    assert len(told) == len(repaired) - len(whole)
    with pytest.raises(mg.InputError, match=r"asks: record 1 of 1 holds a broken span of image: .*; ask again, let max_new_tokens"):
        read([answer], broken="error")


def test_signals_without_end_ask_no_more_than_max_objects():
    """Of one token, of spans, and of broken ones; what is left out is told once."""
    found, told = read([["a", *["[RET]"] * 100], [*IMAGE * 50], ["b"]], max_objects=3)
    assert [len(each) for each in found["found_states"]] == [3, 0, 0]
    assert [len(each) for each in found["image_states"]] == [0, 3, 0]
    assert told == [
        "asks: record 1 of 3 asks for 97 more than max_objects: 3; these are left out",
        "asks: record 2 of 3 asks for 47 more than max_objects: 3; these are left out",
    ]
    found, told = read([["[IMG0]"] * 200], max_objects=3)
    assert (len(found["image_states"][0]), len(told)) == (0, 1)
    found, told = read([["[IMG0]"] * 200], max_objects=3, broken="repair")
    assert len(found["image_states"][0]) == 3


def test_white_space_between_the_tokens_of_a_span_does_no_harm():
    """As some tokenizers write it; behind the span it belongs to the words."""
    found, told = read([["a ", "[IMG0]", " ", "[IMG1]", "", " ", "[IMG2]", " ", "b"]])
    assert (told, asked(found["parts"][0])) == ([], ["a ", "<image 0>", " b"])
    assert places(found["image_states"][0]) == [[1, 3, 6]]


def test_signals_that_a_prompt_ends_with_begin_the_answer():
    """Those alone: what asked before in the prompt has been answered."""
    prompts = [["show", "[RET]", " more", "[RET]", "[RET]", ""], ["none", "[RET]", "?"]]
    router = SignalReader(SignalTokens(media=MEDIA), "asks")
    answers = [[], ["yes", "[RET]"]]
    found = router(answers, tapped(answers), prompts, tapped(prompts))
    assert places(found["found_states"][0]) == [[3], [4]]
    assert places(found["found_states"][1], 1) == [[1]]
    assert asked(found["parts"][0]) == ["<found 0>", "<found 1>"]
    with pytest.raises(mg.InputError, match="of prompt_pieces and prompt_states one is wired"):
        router(answers, tapped(answers), prompts, None)


def test_what_is_asked_for_may_be_known_otherwise():
    """Of one medium: captions stand in the place of the words before its asks, in their order; one for each ask."""
    answers = [["see", *IMAGE, *IMAGE, " or hear", *SOUND], ["no"]]
    reader = SignalReader(SignalTokens(media=MEDIA), "asks")
    found = reader(answers, tapped(answers), None, None, [["a cat", "a dog"], []])
    assert (found["image_text"], found["sound_text"]) == ([["a cat", "a dog"], []], [["or hear"], []])
    with pytest.raises(
        mg.InputError, match=r"asks\.image_captions: record 1 has 1, and its answer asks for image 2 times: give one for each"
    ):
        reader(answers, tapped(answers), None, None, [["a cat"], []])


def test_states_of_other_tokens_are_refused():
    """Fewer than there are signals, or more: they would be another token's."""
    router = SignalReader(SignalTokens(media=MEDIA), "asks")
    answers = [["a", *IMAGE], ["b", "[RET]"]]
    for states in (tapped(answers)[:, :, :2], tapped(answers, at="written")):
        with pytest.raises(
            mg.InputError, match=r"asks\.states has other positions than the [13] signal tokens of an answer: let states\.at"
        ):
            router(answers, states)
    wider = torch.cat([tapped(answers), torch.zeros(2, LAYERS, 5, WIDTH)], 2)  # of a larger batch
    assert torch.equal(router(answers, wider)["image_states"][0], router(answers, tapped(answers))["image_states"][0])


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({}, "at least 1 item"),
        ({"image": "[IMG{}]"}, r"\[IMG\{\}\] is a pattern of several tokens: say how many there are with count"),
        ({"image": {"tokens": "[IMG]", "count": 2}}, "count: 2 numbers the tokens of a pattern"),
        ({"image": ["[A]", "[A]"]}, "are not all different"),
        ({"image": "[A]", "sound": ["[B]", "[A]"]}, r"the token \[A\] asks for image and for sound"),
        ({"parts": "[A]"}, "the medium 'parts' cannot name outputs"),
        ({"a b": "[A]"}, "the medium 'a b' cannot name outputs"),
    ],
)
def test_tokens_that_are_not_clear_are_refused(media, message):
    with pytest.raises(ValidationError, match=message):
        SignalTokens(media=media)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([*SIGNALS, "a", " ", "", "b "]), max_size=14), min_size=1, max_size=3),
    st.sampled_from(["drop", "repair"]),
)
def test_any_answer_is_read_alone_as_in_a_batch_and_no_word_is_lost(answers, broken):
    """Words stay in order but for white space within spans; complete spans are those of a search for them; rows do not depend on others."""
    found, _ = read(answers, broken=broken, max_objects=100)
    for row, answer in enumerate(answers):
        alone, _ = read([answer], broken=broken, max_objects=100)
        assert alone["parts"][0] == found["parts"][row]
        for medium in MEDIA:
            assert places(alone[f"{medium}_states"][0]) == places(found[f"{medium}_states"][row], row)
        words = "".join(part["text"] for part in found["parts"][row] if part["type"] == "text")
        assert words.split() == "".join(piece for piece in answer if piece not in SIGNALS).split() or words.replace(" ", "") == "".join(
            piece for piece in answer if piece not in SIGNALS
        ).replace(" ", "")
        solid = [(place, piece) for place, piece in enumerate(answer) if piece.strip()]
        complete = [
            [place for place, _ in solid[start : start + 3]]
            for start in range(len(solid))
            if [piece for _, piece in solid[start : start + 3]] == IMAGE
        ]
        spans = places(found["image_states"][row], row)
        assert spans == complete if broken == "drop" else all(span in spans for span in complete)


# -- what comes back ------------------------------------------------------------------------------------------------------

TYPES = {"image": "image", "sound": "audio", "found": "list[image]"}
PARTS = [
    {"type": "text", "text": "A cat "},
    {"type": "ask", "medium": "image", "number": 0},
    {"type": "text", "text": " "},
    {"type": "ask", "medium": "found", "number": 0},
    {"type": "ask", "medium": "image", "number": 1},
    {"type": "text", "text": " is here."},
]


def interleaved(parts: list[Any], *, missing: str | None = None, **made: Any) -> tuple[list[Any], list[str]]:
    """The parts of each message, media as they were given, and the texts."""
    config = Interleave(media=TYPES, **({} if missing is None else {"missing": missing}))
    node = type("Node", (), {"name": "reply"})
    found = load(config, type("Context", (), {"node": node})())(parts, *(made.get(name, [[] for _ in parts]) for name in TYPES))
    messages = [message for (message,) in found["conversation"]]
    assert {message["role"] for message in messages} == {"assistant"}
    assert all(set(part) == {"type", part["type"]} for message in messages for part in message["content"])
    return [[part[part["type"]] for part in message["content"]] for message in messages], found["text"]


def test_media_stand_where_they_were_asked_for():
    """Lists part by part; white space between two media is no part, but stays in the text."""
    content, texts = interleaved([PARTS, PARTS[:1]], image=[["one", "two"], []], found=[[["x", "y"]], []])
    assert content == [["A cat ", "one", "x", "y", "two", " is here."], ["A cat "]]
    assert texts == ["A cat   is here.", "A cat "]


def test_an_ask_that_got_nothing_becomes_a_text_that_says_so():
    """Whether its node failed, gave an empty list, or gave less than was asked."""
    content, _ = interleaved([PARTS], image=[[ABSENT, "two"]], found=[[[]]], missing="({medium} is missing)")
    assert content == [["A cat ", "(image is missing)", "(found is missing)", "two", " is here."]]
    content, texts = interleaved([PARTS, []], image=[["one"], []])
    assert content[0] == ["A cat ", "one", "[no found: it could not be made]", "[no image: it could not be made]", " is here."]
    assert (content[1], texts[1]) == ([""], "")
    with pytest.raises(mg.InputError, match=r"reply: the answer asks for film, and reply\.media names image, sound, found: name it there"):
        interleaved([[{"type": "ask", "medium": "film", "number": 0}]])


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({}, "at least 1 item"),
        ({"image": "image | text"}, "'image | text' is not one type of records"),
        ({"image": "float[batch 3]"}, r"'float\[batch 3\]' is not one type of records"),
        ({"image": "list[list[image]]"}, "is not one type of records"),
        ({"parts": "image"}, "the medium 'parts' cannot name an input"),
    ],
)
def test_media_that_no_conversation_holds_are_refused(media, message):
    with pytest.raises(ValidationError, match=message):
        Interleave(media=media)


def test_both_conform():
    states = torch.zeros(2, 1, 3, 4)
    states[0] = 1.0
    conform(SignalTokens, {"media": MEDIA}, pieces=[["a", *IMAGE], ["b"]], states=states)
    conform(Interleave, {"media": {"note": "text"}}, parts=[PARTS[:1], []], note=[["a"], []])
