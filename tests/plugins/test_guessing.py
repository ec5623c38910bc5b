"""Tokens that are guessed ahead: the answers of every kind of decoder are those that it writes one token at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from modelgraft.engine.run import NodeRuntime
from modelgraft.installed.discovery import assemble
from modelgraft.loops.guessing import Lookup
from modelgraft.loops.loop import generate
from modelgraft.loops.settings import Settings
from modelgraft.plugin import Remembering
from modelgraft_plugins import llm
from modelgraft_plugins.llm.decoders import CausalDecoder
from modelgraft_plugins.llm.writing import WritingConfig
from support import checkpoints
from support.open_part import open_part
from support.small_decoders import CONFIGS, FACTS, exported, model_of, plain_decoder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
PROMPTS = [[5, 6, 7, 8, 9, 5, 6], [20, 21, 22, 23, 24, 25, 26, 27, 28, 20, 21], [30, 31, 32]]
WAYS = {
    "greedy": {},
    "ended": {"end_ids": (3, 9, 17, 40), "min_new_tokens": 4},
    "no repeats": {"no_repeat_ngram_size": 4, "repetition_penalty": 1.02},
    "drawn": {"temperature": 0.6, "top_k": 4},
    "stopped": {"stop": ("31 8",), "suppressed": (11,)},
}


class Wrong:
    """Guesses that are never right, and others that always are: what comes next is known."""

    price, why = 0.0, ""

    def __init__(self, answers: list[list[int]], *, is_right: bool) -> None:
        self.answers, self.is_right, self.at, self.is_closed = answers, is_right, 0, False

    def take(self, tokens: list[int]) -> None:
        self.at += 1

    def guess(self, row: int, most: int) -> list[int]:
        known = self.answers[row][self.at : self.at + most]
        return known if self.is_right else [(token + 1) % 97 for token in known]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture(scope="module", params=["plain", *CONFIGS, pytest.param("grouped", marks=pytest.mark.slow)])
def decoder(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    """A decoder, and its embeddings."""
    if request.param == "plain":
        return ("plain", *plain_decoder())
    if request.param == "grouped":
        return ("grouped", *exported("grouped"))
    model = model_of(request.param)
    return request.param, CausalDecoder(model), model.get_input_embeddings()


def write(decoder: Any, embed: Any, rows: list[list[int]], *, new: int = 40, guesser: Any = None, taps: Any = (), **settings: Any) -> Any:
    prompts = [embed(torch.tensor(row)).detach() for row in rows]
    with torch.no_grad():
        return generate(
            decoder,
            prompts,
            Settings(max_new_tokens=new, **settings),
            decode=lambda ids: " ".join(map(str, ids)),
            said=rows,
            seed=3,
            guesser=guesser,
            taps=taps,
        )


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_with_guesses_is_the_one_without(decoder, way):
    """Token by token, by every rule, drawn ones by the same numbers; of batches of unlike prompts, some of which end sooner."""
    kind, decoder, embed = decoder
    for rows in ([PROMPTS[0]], [PROMPTS[1]], PROMPTS):
        plain = write(decoder, embed, rows, **WAYS[way], taps=("logprobs",))
        looked = write(decoder, embed, rows, **WAYS[way], lookup=5, taps=("logprobs",))
        assert (looked.ids, looked.texts) == (plain.ids, plain.texts)
        found, expected = (torch.tensor([number for row in each.taps.logprobs for number in row]) for each in (looked, plain))
        assert (found - expected).abs().max() < 1e-4
        assert plain.guesses is None
        assert looked.guesses.why == ("" if kind != "grouped" or len(rows) == 1 else NO_LOOK)


NO_LOOK = "what runs the model reads one token at a time, or cannot take tokens back"


@pytest.mark.parametrize("is_right", [True, False])
def test_guesses_save_calls_when_they_are_right_and_cost_little_when_they_are_not(decoder, is_right):
    """Counted by those who know what comes: no call more than tokens, and guesses that are never right are soon not read any more."""
    _, decoder, embed = decoder
    answer = write(decoder, embed, PROMPTS[:1])
    guesser = Wrong(answer.ids, is_right=is_right)
    looked = write(decoder, embed, PROMPTS[:1], lookup=6, guesser=guesser)
    assert looked.ids == answer.ids
    assert guesser.is_closed
    noted = looked.guesses
    assert noted.passes + noted.right == 39, "the last token is not read"
    if is_right:
        assert noted.right == noted.guessed > 25
    else:
        assert noted.right == 0 < noted.guessed < 25


def test_what_is_kept_of_an_answer_with_guesses_is_what_was_said(decoder):
    """The next turn goes on from it, and is answered as if all had been read anew."""
    _, decoder, embed = decoder
    remembering = Remembering(decoder, embed)
    first = write(remembering, embed, PROMPTS[1:2], lookup=5)
    turn = [*PROMPTS[1], *first.ids[0], 44, 45, 46]
    second = write(remembering, embed, [turn], lookup=5)
    assert remembering.reused == len(turn) - 4, "the last token of an answer is not read"
    assert second.ids == write(decoder, embed, [turn]).ids


def test_who_cannot_guess_says_so_and_answers():
    """A window that has let go of what was before it, hidden states that are wanted as tokens are read, beams."""
    torch.manual_seed(0)
    config = hf.MistralConfig(**{key: value for key, value in FACTS.items() if key != "model_type"}, sliding_window=6)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    found = write(CausalDecoder(model), model.get_input_embeddings(), PROMPTS[:1], lookup=5)
    assert found.guesses.why == NO_LOOK
    assert found.ids == write(CausalDecoder(model), model.get_input_embeddings(), PROMPTS[:1]).ids
    decoder, embed = plain_decoder(layers=(-1,))
    found = write(decoder, embed, PROMPTS[:1], lookup=5, taps=("states",), new=5)
    assert found.guesses.why == "hidden states are wanted of each token as it is read"
    assert write(decoder, embed, PROMPTS[:1], lookup=5, beams=2, new=5).guesses.why == "beams go several ways at once"
    with pytest.raises(ValueError, match="lookup: 5 guesses how one answer goes on, and beams: 2 follow several; choose one"):
        WritingConfig(lookup=5, beams=2)


@pytest.mark.whole(
    "tests/plugins/test_guessing.py::test_a_node_tells_how_many_calls_were_saved_or_why_none_were",
    "tests/plugins/test_llm_onnx.py::test_what_the_operator_cannot_serve_gets_a_growing_cache",
)
@pytest.mark.slow
def test_an_exported_decoder_whose_cache_grows_says_so_and_answers(tmp_path):
    """Its graph gives the logits of one position."""
    decoder, embed = exported("growing")
    found = write(decoder, embed, PROMPTS[:1], lookup=5)
    assert found.guesses.why == NO_LOOK
    assert found.ids == write(decoder, embed, PROMPTS[:1]).ids


@torch.no_grad()
def test_no_more_is_looked_at_than_there_is_room_for():
    """What is behind the last token of the longest answer is neither read nor guessed, though there are guesses."""
    decoder, embed = plain_decoder()
    for new in (1, 2, 3, 7):
        answer = write(decoder, embed, PROMPTS[:1], new=new)
        guessed = write(decoder, embed, PROMPTS[:1], new=new, lookup=9, guesser=Wrong([[*answer.ids[0], *[1] * 9]], is_right=True))
        assert guessed.ids == answer.ids


def test_lookup_guesses_what_followed_where_the_last_tokens_stood_last():
    """The longest run counts, of those the latest; the end of a text is not found for itself."""
    lookup = Lookup([[1, 2, 3, 4, 9, 2, 3, 5, 8, 2, 3], [7]])
    assert lookup.guess(0, 3) == [5, 8, 2]
    assert lookup.guess(1, 3) == ()
    lookup.take([4, 7])
    assert list(lookup.guess(0, 2)) == [9, 2], "2 3 4 is longer than 3 4, and stood at the beginning"
    lookup.take([1, 7])
    assert list(lookup.guess(0, 2)) == []
    assert list(lookup.guess(1, 4)) == [7]


def test_a_node_tells_how_many_calls_were_saved_or_why_none_were(tmp_path):
    """As an event of the run, and as a warning where states are read; a single record may ask for it. The texts are the same."""
    checkpoint, told = checkpoints.smollm(tmp_path), list[tuple[str, dict[str, Any]]]()
    texts = ["one two one two one two one", "a b c a b c a b"]

    def answered(*settings: Any, wanted: str = "text", **config: Any) -> list[str]:
        part = open_part(assemble({"llm": llm}), "llm/causal", str(checkpoint.folder), max_new_tokens=30, end_ids=(1,), **config)
        told.clear()
        part.loop.bind(NodeRuntime("llm", emit=lambda kind, **facts: told.append((kind, facts)) if kind != "token" else None))
        with torch.no_grad():
            found: list[str] = part.loop.run([texts, None, *settings], part.module.parts(()), wanted=frozenset({"text", wanted}))["text"]
        return found

    plain = answered()
    assert told == []
    assert answered(lookup=6) == plain
    ((kind, facts),) = told
    assert (kind, sorted(facts)) == ("guesses", ["guessed", "passes", "right"])
    assert facts["passes"] + facts["right"] <= 29
    assert facts["right"] <= facts["guessed"]
    assert answered([None, {"lookup": 6}]) == plain
    assert [kind for kind, _ in told] == ["guesses"]
    assert answered(lookup=6, wanted="states") == plain
    why = "hidden states are wanted of each token as it is read"
    assert told == [("warning", {"text": f"lookup: 6 guesses nothing here: {why}; the answer is the same"})]
