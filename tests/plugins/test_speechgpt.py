"""What SpeechGPT reads and what becomes of its answers, word for word."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modelgraft import InputError
from modelgraft.testing import conform, run_node
from modelgraft_plugins.speechgpt import SELF, Prompt, Reply
from modelgraft_plugins.speechgpt.replies import Said, parsed

UNITS = torch.tensor([[3, 7, 0], [5, -1, -1]])
SPEECH = "<sosp><3><7><0><eosp>"
# the four templates of the paper, with what is asked in its place
ASKED = {
    ("units", "speech"): (
        f"This is a speech instruction: {SPEECH}. And your response should be speech. You can do it step by step. You can first transcribe"
        " the instruction and get the text Instruction. Then you can think about the instruction and get the text response. Last, you"
        " should speak the response aloud"
    ),
    ("units", "text"): (
        f"This is a speech instruction: {SPEECH}. And your response should be text. You can do it step by step. You can first transcribe"
        " the instruction and get the text instruction. Then you can think about the instruction and get the text response."
    ),
    ("text", "speech"): (
        "This is a text instruction: Name a colour. And your response should be speech. You can do it step by step. You can think about"
        " the instruction and get the text response. Then you should speak the response aloud"
    ),
    ("text", "text"): (
        "This is a text instruction: Name a colour. And your response should be text. You can think about the instruction and get the"
        " text response."
    ),
}


def test_components_keep_their_declaration():
    """Ports, and a batch as one by one; rows of as many units, so that none is filled up."""
    conform(Prompt, {}, text=None, units=torch.tensor([[3, 7, 0], [5, 1, 999]]))
    conform(Prompt, {"wants": None}, text=["a", "b"], units=torch.tensor([[3, 7, 0], [5, 1, 999]]))
    conform(Reply, {}, text=["a; [ta] b; [ua] <sosp><3><4><eosp>", "c; [ta] d; [ua] <sosp><5><6><eosp><eoa>"])


@pytest.mark.parametrize(("given", "wants"), ASKED, ids="-".join)
def test_an_instruction_is_written_as_in_the_training(given: str, wants: str):
    """Spoken or typed, answered in speech or text; a full stop that was typed is not doubled."""
    inputs = {"units": UNITS[:1]} if given == "units" else {"text": ["Name a colour."]}
    found = run_node(Prompt, {"wants": wants}, **inputs)["prompt"]
    assert found == [f"{SELF}[Human]: {ASKED[given, wants]} <eoh>. [SpeechGPT]: "]


@pytest.mark.parametrize(
    ("text", "has_speech", "question"),
    [
        ("Who is LeBron James?", False, "Who is LeBron James?"),
        (None, True, SPEECH),
        ("Recognize this speech, this is input:", True, f"Recognize this speech, this is input:{SPEECH}"),
        ("Recognize this speech, this is input: ", True, f"Recognize this speech, this is input:{SPEECH}"),
        ("Write it down.", True, f"Write it down. This is input:{SPEECH}"),
        ("Is {speech} a question?", True, f"Is {SPEECH} a question?"),
    ],
)
def test_what_is_typed_freely_stays_as_it_is(text: str | None, has_speech: bool, question: str):
    """Units stand where they are meant."""
    inputs: dict[str, Any] = {"text": None if text is None else [text], "units": UNITS[:1] if has_speech else None}
    assert run_node(Prompt, {"wants": None}, **inputs)["prompt"] == [f"{SELF}[Human]: {question} <eoh>. [SpeechGPT]: "]


def test_rows_of_a_batch_have_their_own_units():
    """What fills a shorter one up is none of them."""
    found = run_node(Prompt, {"wants": None, "introduction": ""}, units=UNITS)["prompt"]
    assert found == [f"[Human]: {SPEECH} <eoh>. [SpeechGPT]: ", "[Human]: <sosp><5><eosp> <eoh>. [SpeechGPT]: "]


@pytest.mark.parametrize(
    ("config", "inputs", "told"),
    [
        ({}, {"text": ["a"], "units": UNITS[:1]}, "this record has a text and speech; wants: null takes both"),
        ({"wants": None}, {"text": ["{speech}?"]}, "has a place for speech, {speech}, and this record has none"),
        ({"units": 7}, {"units": UNITS}, "unit 7 is beyond the 7 that the language model knows"),
        ({}, {}, "this record has neither a text nor speech"),
        ({"wants": None}, {}, "this record has neither a text nor speech"),
        ({}, {"units": torch.tensor([[-1]])}, "this record has neither a text nor speech"),
    ],
)
def test_what_cannot_be_asked_is_refused(config: dict[str, Any], inputs: dict[str, Any], told: str):
    with pytest.raises(InputError) as caught:
        run_node(Prompt, config, **inputs)
    assert told in str(caught.value)


FULL = Said("what is it?", "It is a cat.", "It is a cat.", (1, 2))
ANSWERS = {
    "as stored": ("what is it?; [ta] It is a cat.; [ua] <sosp><1><2><eosp><eoa>.", FULL),
    "as the templates write it": ("[tq] what is it?; [ta] It is a cat.; [ua] <sosp><1><2><eosp><ea>", FULL),
    "spaced": (" what is it? ; [ta]  It is a cat. ; [ua] <sosp>  <1> <2> <eosp> <eoa> .", FULL),
    "spaced inside": ("[ tq ] what is it?;[ ta ]It is a cat.;[ ua ]< sosp >< 1 > <2 >< eosp >", FULL),
    "over lines": ("what is it?;\n[ta] It is\na cat.;\n[ua] <sosp>\n<1>\n<2><eosp></s>", FULL),
    "a whole dialogue": ("[Human]: <sosp><9><eosp> <eoh>. [SpeechGPT] : what is it?; [ta] It is a cat.; [ua] <sosp><1><2><eosp>", FULL),
    "cut within units": ("what is it?; [ta] It is a cat.; [ua] <sosp><1><2><", FULL),
    "behind its end": ("what is it?; [ta] It is a cat.; [ua] <sosp><1><2><eosp><eos> [ta] more <sosp><3><eosp>", FULL),
    "text of speech": ("[tq] what is it?; [ta] It is a cat.<ea>", Said("what is it?", "It is a cat.", "It is a cat.", ())),
    "speech of text": ("[ta] It is a cat.; [ua] <sosp><1><2><eosp>", Said("", "It is a cat.", "It is a cat.", (1, 2))),
    "text of text": ("[ta] It is a cat.", Said("", "It is a cat.", "It is a cat.", ())),
    "words before units alone": ("It is a cat.; [ua] <sosp><1><eosp>", Said("", "It is a cat.", "It is a cat.", (1,))),
    "unmarked words": ("today is a sunny day. <eoa>", Said("", "", "today is a sunny day.", ())),
    "unmarked units": ("<sosp> <661> <987> <eosp> ", Said("", "", "", (661, 987))),
    "unmarked words and units": ("Here: <sosp><4><eosp>", Said("", "", "Here:", (4,))),
    "units outside of a span": ("see <4> and <5>", Said("", "", "see <4> and <5>", ())),
    "a mark without anything": ("what?; [ta]", Said("what?", "", "", ())),
    "nothing": ("", Said("", "", "", ())),
    "numbers that are no units": ("<sosp><1><99999999999999999999><eosp>", Said("", "", "", (1,))),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_taken_apart(name: str):
    answer, said = ANSWERS[name]
    assert parsed(answer) == said


def test_answers_of_a_batch_go_their_own_ways():
    """Exactly one of both masks is true for each; units are filled up with -1."""
    found = run_node(Reply, text=["[ta] a; [ua] <sosp><1><2><eosp>", "[ta] b", "<sosp><3><eosp>"])
    assert found["speaks"].tolist() == [True, False, True]
    assert found["else"].tolist() == [False, True, False]
    assert found["ua"].tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert (found["ta"], found["text"]) == (["a", "b", ""], ["a", "b", ""])
