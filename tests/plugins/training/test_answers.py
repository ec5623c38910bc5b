"""Which tokens of a written conversation are its answers: of templates of several kinds, letter by letter."""

from __future__ import annotations

import pytest

import modelgraft as mg
from modelgraft_plugins.llm import dialogues

TALK = [("system", "Be kind."), ("user", "One?"), ("assistant", " a b "), ("user", "Two|?"), ("assistant", "c")]
MESSAGES = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in TALK]


def chat(text, *, ends, behind="", begins="{role}:"):
    """What writes messages: each begins with its role, and answers end so."""

    def write(messages, *, asks):
        told = [(one["role"], one["content"][0]["text"]) for one in messages]
        written = [begins.format(role=role) + text(said) + ((ends + behind) if role == "assistant" else "/\n") for role, said in told]
        return "".join(written) + (begins.format(role="assistant") if asks else "")

    return write


def same(said):
    """The words as they are."""
    return said


@pytest.mark.parametrize(
    ("write", "stops", "wanted", "is_ended"),
    [
        (chat(same, ends="|", behind="\n"), (), " a b |c|", True),  # a token of its own, and a line break that nobody learns
        (chat(str.strip, ends="|"), (), "a b|c|", True),
        (chat(same, ends="###"), ("###",), " a b ###c###", True),  # letters that end answers
        (chat(same, ends="\n"), (), " a bc", False),  # nothing ends them: the token of the model comes behind the last
    ],
    ids=["token", "stripped", "stop", "none"],
)
def test_each_answer_is_learnt_with_what_ends_it(write, stops, wanted, is_ended):
    """Neither instructions, questions nor what begins an answer are, nor the token in a question that ends answers."""
    whole, turns = dialogues.turns(MESSAGES, write, stops=stops, node="llm")
    ids = [*map(ord, whole)]
    found = dialogues.learnt(ids, whole, turns, lambda text: [*map(ord, text)], marks=frozenset({ord("|")}))
    assert "".join(chr(ids[place]) for place in found.places) == wanted
    assert found.is_ended == is_ended


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (MESSAGES[:2], "no message of the 'assistant' behind one of the 'user', so that nothing is to be learnt"),
        (MESSAGES[:4], "ends with a message of 'user', which nothing answers"),
        ([*MESSAGES[:2], {"role": "assistant", "content": [{"type": "image", "image": None}]}], "message 3, an answer, shows image"),
    ],
)
def test_a_conversation_without_answers_is_refused(messages, said):
    """With what it lacks."""
    with pytest.raises(mg.InputError, match=said):
        dialogues.turns(messages, lambda found, *, asks: f"{len(found)} {asks}", stops=(), node="llm")


def test_a_template_that_writes_answers_otherwise_is_refused():
    """What is to be learnt would be something else."""
    with pytest.raises(mg.InputError, match=r"writes message 3 as 'A B', and its words are 'a b': what is to be learnt cannot be found"):
        dialogues.turns(MESSAGES[:3], chat(str.upper, ends=""), stops=(), node="llm")
