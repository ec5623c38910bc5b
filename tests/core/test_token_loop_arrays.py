"""The token loop on arrays of numpy writes what it writes on tensors, and imports no torch for what is common."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy
import pytest
import torch

import modelgraft.loops
from modelgraft.loops.drafting import Drafting, DraftModel
from modelgraft.loops.loop import generate
from modelgraft.loops.prefixes import Remembering
from modelgraft.loops.random_numbers import numbers_of
from modelgraft.loops.settings import Settings
from support.numeric import VOCABULARY, Numeric, Plain, embed

SAID = [[3, 4, 5, 3, 4], [7, 8], [11, 3, 4, 5, 9, 1, 2]]
WAYS = {
    "greedy": {},
    "ends": {"end_ids": (2, 5, 9), "min_new_tokens": 5, "stop": ("c d",)},
    "by length": {"max_length": 15, "min_length": 9, "end_ids": tuple(range(0, 20, 2))},
    "forbidden": {"suppressed": (1, 2, 3, 4), "suppressed_first": (9, 11, 12), "token_delay": ((8, 3), (13, 9))},
    "penalty": {"repetition_penalty": 1.7, "encoder_repetition_penalty": 1.3},
    "rewarded": {"repetition_penalty": 0.6},
    "n-grams": {"no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 3},
    "words": {"bad_words_ids": ((4, 5), (6,)), "sequence_bias": (((7,), 2.5), ((3, 4), 4.0), ((5, 4), -3.0))},
    "forced": {"forced_bos_token_id": 6, "forced_eos_token_ids": (2, 3), "end_ids": (2, 3)},
    "decay": {"exponential_decay_length_penalty": (3, 1.4), "end_ids": (2, 3)},
    "scaled": {"token_scale": ((3, 1.5), (9, 0.25))},
    "drawn": {"temperature": 0.9},
    "drawn by rules": {"temperature": 1.3, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.2, "end_ids": (2,), "min_new_tokens": 4},
    "drawn last": {"temperature": 0.7, "temperature_last": True, "typical_p": 0.8, "suppressed": (3,)},
}


def written(decoder, settings, *, seed=0, dtype=None, **asked):
    """The answer, its prompts in the kind of the decoder."""
    kind = (decoder.inner if isinstance(decoder, Plain | Remembering) else decoder).kind
    prompts = [embed(numpy.array(row)) for row in SAID]
    given = prompts if kind == "array" else [torch.from_numpy(one) for one in prompts]
    return generate(decoder, given, Settings(**{"max_new_tokens": 12} | settings), decode=spelt, said=SAID, seed=seed, **asked)


def spelt(ids: list[int]) -> str:
    """A letter for each token."""
    return " ".join("abcdefghijklmnopqrstuvw"[token] for token in ids)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(3))
def test_answers_on_arrays_are_those_on_tensors(way, seed):
    """Token by token, with every rule; also where sessions take no numbers, and where several tokens are read at once."""
    settings = WAYS[way]
    wanted = written(Numeric("tensor"), settings, seed=seed)
    assert isinstance(wanted.logits, torch.Tensor)
    for decoder, more in ((Numeric(), {}), (Plain(), {}), (Numeric(), {"lookup": 4}), (Plain("tensor"), {})):
        found = written(decoder, {**settings, **more}, seed=seed)
        assert (found.ids, found.texts) == (wanted.ids, wanted.texts)
        assert torch.equal(torch.as_tensor(found.logits), wanted.logits)
    assert isinstance(written(Numeric(), settings).logits, numpy.ndarray)


@pytest.mark.parametrize("way", ["greedy", "penalty", "drawn", "words"])
def test_arrays_of_half_the_precision_count_as_their_tensors_do(way):
    """float16: rules compute as torch does, in float32 and rounded."""
    one, two = (written(Numeric(kind, numpy.float16), WAYS[way]) for kind in ("array", "tensor"))
    assert one.ids == two.ids
    assert one.logits.dtype == numpy.float32
    assert numpy.array_equal(one.logits, two.logits.numpy())


@pytest.mark.parametrize(
    "asked",
    [
        {"settings": {"beams": 3, "end_ids": (2, 5), "repetition_penalty": 1.3, "no_repeat_ngram_size": 2}},
        {"settings": {}, "taps": ("logprobs", "states")},
        {"settings": {"beams": 2}, "taps": ("logprobs", "states")},
        {"settings": {"temperature": 0.8}, "given": [[[3, 4, 5], [7]], [[1]], [[2, 2, 2, 9], [4, 4], [1]]]},
    ],
    ids=["beams", "taps", "beams read again", "likelihoods"],
)
def test_what_computes_with_torch_does_so_on_the_same_memory(asked):
    """Beams, log-probabilities and states of tokens, likelihoods of texts."""
    one, two = (written(decoder, asked["settings"], **{k: v for k, v in asked.items() if k != "settings"}) for decoder in both())
    assert one.ids == two.ids
    assert one.likely == two.likely
    assert one.taps.logprobs == two.taps.logprobs
    states = [[each.tolist() for each in row] for row in one.taps.states]
    assert states == [[each.tolist() for each in row] for row in two.taps.states]


def both() -> tuple[Numeric, Numeric]:
    """Of arrays and of tensors."""
    return Numeric("array"), Numeric("tensor")


class Even:
    """A guide that allows tokens of even numbers, and ends behind six."""

    def __init__(self) -> None:
        self.count = 0

    @property
    def is_over(self) -> bool:
        """See Guide."""
        return self.count == 6

    def allowed(self) -> torch.Tensor:
        """See Guide."""
        return torch.arange(VOCABULARY - 1) % 2 == 0

    def take(self, token: int) -> None:
        """See Guide."""
        self.count += 1


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_guides_bound_answers_on_arrays(temperature):
    """As on tensors."""
    one, two = (written(decoder, {"temperature": temperature}, guides=[Even() for _ in SAID]) for decoder in both())
    assert one.ids == two.ids
    assert [len(row) for row in one.ids] == [6] * 3
    assert all(token % 2 == 0 for row in one.ids for token in row)


@pytest.mark.parametrize("kinds", [("array", "array"), ("array", "tensor"), ("tensor", "array")])
def test_a_draft_and_its_model_may_be_of_different_kinds(kinds):
    """Tokens are guessed by the same numbers, so that all of them are right."""
    drafting = Drafting(
        DraftModel(Numeric(kinds[1]), embed_as(kinds[1]), "cpu", VOCABULARY), SAID, room=12, vocabulary=VOCABULARY, price=0.1
    )
    found = written(Numeric(kinds[0]), {"lookup": 4}, guesser=drafting)
    assert found.ids == written(Numeric("tensor"), {}).ids
    assert found.guesses.guessed
    assert found.guesses.right >= found.guesses.guessed - 4  # the last ones may be beyond the end


def embed_as(kind: str):
    """Embeddings in a kind, whatever the ids are."""
    return lambda ids: embed(numpy.asarray(ids)) if kind == "array" else embed(torch.as_tensor(ids))


@pytest.mark.parametrize("kinds", [("array",), ("tensor",), ("array", "tensor")], ids="-".join)
def test_conversations_are_kept_and_go_on_whatever_kind_their_prompts_are(kinds):
    """The answers are those of reading everything; only what is new is read, also where prompts come as arrays and as tensors in turn."""
    for decoder in both():
        remembering, said = Remembering(decoder, embed), list(range(1, 11))
        for turn in range(4):
            prompt = embed(numpy.array(said))
            given = prompt if kinds[turn % len(kinds)] == "array" else torch.from_numpy(prompt)
            before = decoder.read
            found = generate(remembering, [given], Settings(max_new_tokens=5, temperature=0.5), decode=spelt, said=[said], seed=turn)
            read = decoder.read - before
            fresh = generate(Numeric(), [prompt], Settings(max_new_tokens=5, temperature=0.5), decode=spelt, said=[said], seed=turn)
            assert found.ids == fresh.ids
            assert remembering.reused == (0 if turn == 0 else len(said) - 4)  # the last token that was written was never read
            assert read == len(said) - remembering.reused + 4
            said = [*said, *found.ids[0], turn, 15, 16]
        other = [*said[:9], 20, *range(8)]  # parts early: read on from a copy
        found = generate(remembering, [embed(numpy.array(other))], Settings(max_new_tokens=5), decode=spelt, said=[other])
        assert remembering.reused == 9
        assert found.ids == generate(Numeric(), [embed(numpy.array(other))], Settings(max_new_tokens=5), decode=spelt, said=[other]).ids
        assert len(remembering.kept) == 2
        remembering.close()


SEEDS = [
    0,
    1,
    5489,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**32 + 1,
    2**53 + 7,
    2**63 - 1,
    0x7FFF_FFFF_0000_0000,
    *range(10**12, 10**12 + 40),
]


@pytest.mark.parametrize("seed", SEEDS)
def test_random_numbers_are_those_of_torch_to_the_bit(seed):
    """Over several turns of the generator's memory, taken in pieces or at once."""
    generator = torch.Generator().manual_seed(seed)
    wanted = [number for count in (1, 32, 7, 1000) for number in torch.rand(count, generator=generator, dtype=torch.float64).tolist()]
    assert list(islice(numbers_of(seed), 1040)) == wanted


def test_random_numbers_stay_those_of_torch_over_a_long_answer():
    """Half a million words."""
    wanted = torch.rand(250_000, generator=torch.Generator().manual_seed(77), dtype=torch.float64)
    assert numpy.array_equal(numpy.fromiter(numbers_of(77), numpy.float64, 250_000), wanted.numpy())


PROGRAM = """
import sys
import numpy
from modelgraft.plugin import Assembling, Decoder, Drafting, Graph, Guide, Places, Remembering, Settings, generate
import modelgraft.loops.beams, modelgraft.loops.taps, modelgraft.loops.likelihoods, modelgraft.loops.tracing, modelgraft.engine.parity
from support.numeric import Numeric, Plain, embed
ways = [{}, {"end_ids": (2, 5), "min_new_tokens": 6}, {"suppressed": (1, 2, 3), "suppressed_first": (4, 9)}, {"repetition_penalty": 1.5},
        {"no_repeat_ngram_size": 2, "bad_words_ids": ((3, 4), (5,))}, {"temperature": 0.8}, {"temperature": 0.8, "top_k": 5, "top_p": 0.9}]
decoders = [Numeric(), Plain(), Remembering(Numeric(), embed)]
for decoder in decoders:
    for way in ways:
        for lookup in (0, 4):
            for said in ([list(range(12))], [[*range(12), 3, 4, 9, 3, 4]], [[3, 4], [1, 2, 3, 1, 2]]):
                prompts = [embed(numpy.array(row)) for row in said]
                told = []
                generate(decoder, prompts, Settings(max_new_tokens=9, stop=("zz",), lookup=lookup, **way), decode=str, said=said,
                         emit=lambda row, piece: told.append(piece))
                assert told
assert decoders[-1].kept
print(sorted({"torch", "transformers", "onnxruntime"} & set(sys.modules)))
"""


def test_answers_on_arrays_are_written_without_torch():
    """Greedy and drawn ones, streamed, of batches, of kept conversations, guessed ahead; rules and imports of all else too."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=120, cwd=Path(__file__).parents[1]
    )
    assert (done.stderr, done.stdout.strip()) == ("", "[]")


def test_no_module_of_loops_imports_torch_at_its_top_but_those_that_are_modules_of_torch():
    """`module` holds a class of torch's, `drawn_in_torch` is imported where a device draws."""
    folder = Path(modelgraft.loops.__file__).parent
    found = {path.stem for path in folder.glob("*.py") if {"import torch", "from torch import nn"} & set(path.read_text().splitlines())}
    assert found == {"module", "drawn_in_torch"}
