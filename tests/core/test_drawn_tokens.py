"""Tokens drawn on the host, against the rules as torch computes them over the whole vocabulary."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
import transformers as hf

from modelgraft.kernel.words.errors import InputError
from modelgraft.loops import whole_tokens
from modelgraft.loops.chosen import Tokens
from modelgraft.loops.drawn_in_torch import draw, narrow
from modelgraft.loops.drawn_tokens import Drawer
from modelgraft.loops.likeliest_tokens import Sieve
from modelgraft.loops.loop import generate
from modelgraft.loops.narrowing import Rules, place_of
from modelgraft.loops.near_tokens import ROUNDED, Seeker
from modelgraft.loops.sampling import chooser
from modelgraft.loops.scoring import ScoresAsked, Scoring
from modelgraft.loops.settings import Settings
from support.small_decoders import plain_decoder

RULES = [
    {}, {"top_k": 1}, {"top_k": 7}, {"top_k": 900}, {"top_p": 0.3}, {"top_p": 0.95}, {"top_p": 1e-9}, {"top_p": 0.999}, {"min_p": 0.02},
    {"min_p": 0.0}, {"top_h": 0.4}, {"top_k": 40, "top_p": 0.8}, {"top_k": 20, "min_p": 0.1}, {"top_p": 0.9, "min_p": 0.05},
    {"top_k": 30, "typical_p": 0.6}, {"top_p": 0.9, "epsilon_cutoff": 0.01}, {"top_k": 50, "eta_cutoff": 0.02},
    {"top_h": 0.9, "top_k": 60, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9, "epsilon_cutoff": 0.005, "eta_cutoff": 0.03},
    {"typical_p": 0.2}, {"typical_p": 0.9}, {"typical_p": 0.999}, {"epsilon_cutoff": 3e-4}, {"epsilon_cutoff": 0.3}, {"eta_cutoff": 2e-3},
    {"eta_cutoff": 0.5}, {"epsilon_cutoff": 1e-3, "eta_cutoff": 0.01}, {"typical_p": 0.8, "eta_cutoff": 0.02, "temperature_last": True},
    {"top_k": 40, "top_p": 0.8, "temperature_last": True}, {"temperature_last": True},
]  # fmt: skip


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize(("vocabulary", "spread"), [(5, 2.0), (1000, 0.05), (4133, 3.0), (8192, 9.0)])
def test_a_token_drawn_on_the_host_is_the_one_that_the_whole_distribution_gives(rules, vocabulary, spread):
    """For numbers all over [0, 1), where some tokens are forbidden and the last ones of an odd vocabulary are likely too."""
    settings = Settings(temperature=0.8, **rules)
    logits = torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(3)) * spread
    logits[1, ::3] = float("-inf")
    logits[2, -1] = logits[2].max() + 1
    logits[3, : vocabulary // 2] = logits[3].max()  # as likely as each other
    drawer, before, after = Drawer(settings), *((1.0, 0.8) if settings.temperature_last else (0.8, 1.0))
    expected = narrow(logits / before, settings) / after
    for number in (0.0, 1e-4, 0.0173, 0.2507, 0.5123, 0.7519, 0.9991):
        numbers = torch.full((6,), number, dtype=torch.float64)
        wanted, found = draw(expected, numbers).tolist(), [drawer.draw(row.numpy(), number) for row in logits]
        if rules.keys() & {"top_p", "top_h"}:  # of equally likely ones torch takes any
            del wanted[3], found[3]
        assert found == wanted


@pytest.mark.parametrize("rules", [{}, {"top_k": 7}, {"top_p": 0.9}, {"min_p": 0.1}, {"top_p": 0.9, "typical_p": 0.9}, {"typical_p": 0.9}])
def test_next_to_no_temperature_takes_the_likeliest(rules):
    """On the host and in torch, whatever float32 makes of a logit by it; at all numbers, and never a token that is forbidden."""
    logits = torch.randn(1, 1000, generator=torch.Generator().manual_seed(4)) * 3 + 40
    logits[0, ::2] = float("-inf")
    for temperature in (1e-7, 1e-10, 1e-20, 1e-38, 1e-46, 5e-324):
        for is_last in (False, True):
            choose = chooser(Settings(temperature=temperature, temperature_last=is_last, **rules), [()], seed=0)
            assert {choose(logits).ids[0] for _ in range(20)} == {logits.argmax().item()}


@pytest.mark.parametrize("temperature", [1e15, 1e17, 1e30, 1e38, 1e300])
def test_however_high_a_temperature_it_makes_tokens_alike_and_changes_no_order(temperature):
    """Without a warning of numbers that leave float32: of all tokens each is as likely, and the likeliest is still the first."""
    logits = numpy.random.default_rng(9).standard_normal(97).astype(numpy.float32) * 3
    for is_last in (False, True):
        alone, of_all = (Drawer(Settings(temperature=temperature, temperature_last=is_last, **rules)) for rules in ({"top_k": 1}, {}))
        for number in (0.0, 0.3, 0.72, 0.9):
            assert alone.draw(logits, number) == logits.argmax()
            assert of_all.draw(logits, number) == int(97 * number)


def test_a_part_of_the_probability_is_told_where_logits_are_far_from_nothing():
    """A large one that all have in common changes nothing: of two tokens that hold 0.77 and 0.23 the first is enough for 0.76."""
    for far in (0.0, 4e5, 5e5, -4e5):
        logits = torch.tensor([far, far - 0.84375, *[far - 60.0] * 60])
        drawer = Drawer(Settings(temperature=0.7, top_p=0.76))
        assert {drawer.draw(logits.numpy(), number / 20) for number in range(20)} == {0}


def test_where_no_token_is_likely_enough_all_that_are_likeliest_stay():
    """As in torch: each of 63 that are as likely has less than 0.02."""
    settings, logits = Settings(temperature=1.0, top_k=50, epsilon_cutoff=0.02), torch.zeros(1, 63)
    drawer = Drawer(settings)
    for number in (0.0, 0.3, 0.9):
        expected = draw(narrow(logits, settings), torch.tensor([number], dtype=torch.float64)).item()
        assert drawer.draw(logits[0].numpy(), number) == expected == int(63 * number)


WARPERS = {
    "typical_p": lambda part: hf.TypicalLogitsWarper(mass=part),
    "epsilon_cutoff": lambda part: hf.EpsilonLogitsWarper(epsilon=part),
    "eta_cutoff": lambda part: hf.EtaLogitsWarper(epsilon=part),
}


@pytest.mark.parametrize("rule", WARPERS)
@pytest.mark.parametrize("part", [0.0007, 0.03, 0.4, 0.93])
@pytest.mark.parametrize(("vocabulary", "spread"), [(5, 2.0), (1000, 0.05), (4133, 3.0), (49152, 5.0)])
def test_rules_that_see_every_token_leave_over_what_those_of_transformers_do(rule, part, vocabulary, spread):
    """Token by token: a number in the middle of the place of each that stays draws it, of those that go none is drawn."""
    logits = torch.randn(3, vocabulary, generator=torch.Generator().manual_seed(5)) * spread
    logits[1, ::3] = float("-inf")
    expected = WARPERS[rule](part)(None, (logits / 0.7).double())
    drawer = Drawer(Settings(temperature=0.7, **{rule: part}))
    for row, kept in zip(logits, expected, strict=True):
        shares = kept.softmax(-1)
        ends = shares.cumsum(-1)
        tokens = (kept > float("-inf")).nonzero().squeeze(1)
        tokens = tokens[shares[tokens] > 1e-5]  # narrower places are lost in what float32 has of sums
        tokens = tokens[:: max(1, len(tokens) // 50)]
        found = [drawer.draw(row.numpy(), number) for number in (ends - shares / 2)[tokens].tolist()]
        assert found == tokens.tolist()


@pytest.mark.parametrize(
    "settings", [{}, {"beams": 2}, {"temperature": 0.5}, {"temperature": 0.5, "top_p": 0.9}, {"temperature": 1.0, "typical_p": 0.5}]
)
def test_rules_that_forbid_every_token_are_one_error(settings):
    """Whatever chooses: it says where, and which settings to look at."""
    decoder, embed = plain_decoder()
    found = r"the answer of record 0 cannot go on after 0 tokens: its rules forbid every token; allow some, by suppress_tokens"
    with pytest.raises(InputError, match=found):
        generate(decoder, [embed(torch.tensor([3, 4]))], Settings(suppressed=tuple(range(97)), **settings), decode=str, said=[[3, 4]])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_run_of_tokens_stands_twice(size):
    """Against a search of all that was said, while the text grows and rows change places."""
    vocabulary, generator = 5, torch.Generator().manual_seed(size)
    texts, heard = [[1, 2, 1, 3], [4]], [[0, 1, 2], []]
    settings = Settings(no_repeat_ngram_size=size, encoder_no_repeat_ngram_size=size + 1)
    logits = torch.randn(2, vocabulary, generator=generator)
    scoring = Scoring(settings, [ScoresAsked(text, len(text), read) for text, read in zip(texts, heard, strict=True)], logits)
    for step in range(9):
        found = scoring.apply(logits, length=step) == float("-inf")
        for row, text in enumerate(texts):
            for token in range(vocabulary):
                is_said = any([*text, token][-size:] == text[start : start + size] for start in range(len(text) - size + 1))
                is_heard = len(text) >= size and any(
                    [*text, token][-size - 1 :] == heard[row][start : start + size + 1] for start in range(len(heard[row]) - size)
                )
                assert found[row, token] == (is_said or is_heard)
        tokens = torch.randint(0, vocabulary, (2,), generator=generator)
        scoring.note(Tokens(tensor=tokens))
        texts = [[*text, token] for text, token in zip(texts, tokens.tolist(), strict=True)]
        if step == 4:
            scoring.reorder(torch.tensor([0, 0]))
            texts = [texts[0], list(texts[0])]
            heard = [heard[0], heard[1]]


@pytest.mark.parametrize("vocabulary", [5, 1023, 2047, 2048, 2049, 50_257])
@pytest.mark.parametrize("kind", ["unlike", "alike", "forbidden"])
@pytest.mark.parametrize("count", [1, 50, 257])
def test_the_likeliest_tokens_are_those_of_a_sort(vocabulary, kind, count):
    """With all that are as likely as the last of them, among few others; whatever is left over behind the last whole row of groups."""
    logits = numpy.random.default_rng(vocabulary).standard_normal(vocabulary).astype(numpy.float32) * 3
    if kind == "alike":
        logits = logits.round()
    if kind == "forbidden":
        logits[: vocabulary - 3] = -math.inf
    logits[-1] = 9
    found, last = Sieve().likeliest(logits, count), numpy.sort(logits)[-min(count, vocabulary)]
    assert set((logits >= last).nonzero()[0]) <= set(found.tolist())
    assert found.tolist() == sorted(found.tolist())
    if kind == "unlike" and vocabulary > 2048:
        assert len(found) < 2 * count + 9


@pytest.mark.parametrize("rules", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"encoder_no_repeat_ngram_size": 2}], ids=str)
def test_the_likeliest_token_stays_it_where_rules_make_others_less_likely(rules):
    """And is told to, exactly where the rules leave its logit alone: nothing is copied then."""
    generator, text, read = torch.Generator().manual_seed(12), [1, 2, 3, 1], [0, 1, 4, 1, 5]
    for _ in range(60):
        logits = torch.randn(1, 6, generator=generator).numpy()
        scoring, found = Scoring(Settings(**rules), [ScoresAsked(text, len(text), read)], logits), Tokens([int(logits.argmax())])
        scores = scoring.apply(logits, length=0)
        is_kept = scoring.keeps(found, [0], length=0)
        assert is_kept == (scores[0, found.ids[0]] == logits[0, found.ids[0]])
        assert not is_kept or scores.argmax() == found.ids[0]


def test_a_penalty_below_one_is_asked_even_where_the_likeliest_token_was_not_said():
    """It makes what was said likelier than that."""
    logits = numpy.array([[2.0, 3.0, 1.0]], numpy.float32)
    scoring = Scoring(Settings(repetition_penalty=0.5), [ScoresAsked([0], 1, [0])], logits)
    assert not scoring.keeps(Tokens([1]), [0], length=0)
    assert scoring.apply(logits, length=0).argmax() == 0


@pytest.mark.parametrize("rules", [{}, {"top_p": 0.9}, {"typical_p": 0.9}, {"epsilon_cutoff": 3e-4}], ids=str)
@pytest.mark.parametrize("power", [(numpy.exp, 1.0), (numpy.exp2, 1 / math.log(2))], ids=["e", "2"])
def test_either_power_gives_the_draws_of_the_whole_distribution(rules, power, monkeypatch):
    """Of processors with a fast 2 to the x and without; large logits and the least numbers of float32, as masks hold them, among them."""
    monkeypatch.setattr(whole_tokens, "_power", lambda: power)
    settings = Settings(temperature=0.8, **rules)
    logits = torch.randn(3, 4133, generator=torch.Generator().manual_seed(6)) * 3
    logits[0] += 45
    logits[1] -= 500
    logits[:, ::5] = torch.finfo(torch.float32).min
    drawer, expected = Drawer(settings), narrow((logits - logits.amax(-1, keepdim=True)) / 0.8, settings)
    for number in (0.0, 0.0173, 0.2507, 0.5123, 0.7519, 0.9991):
        wanted = draw(expected, torch.full((3,), number, dtype=torch.float64)).tolist()
        assert [drawer.draw(row.numpy(), number) for row in logits] == wanted


@pytest.mark.parametrize("spread", [0.3, 6.0, 9.0])
def test_what_is_certain_without_the_whole_vocabulary_is_what_the_whole_gives(spread):
    """Against float64 over all tokens; most draws are certain where some tokens stand out, and none where thousands are alike."""
    logits = torch.randn(20_011, generator=torch.Generator().manual_seed(8)) * spread
    logits[::4] = float("-inf")
    shares = (logits.double() / 0.8).softmax(-1)
    near = Seeker().near(logits.numpy(), logits.max().item(), 0.8)
    if spread < 1:
        assert near is None
        return
    numbers = torch.arange(500, dtype=torch.float64) / 500
    found = [place_of(near.heights, number, rest=near.rest, rounded=ROUNDED) for number in numbers.tolist()]
    wanted = torch.searchsorted(shares.cumsum(-1), numbers, right=True).tolist()
    assert all(place is None or near.ids[place] == right for place, right in zip(found, wanted, strict=True))
    assert found.count(None) < 250
    parts = (0.05, 0.3, 0.5, 0.7, 0.9)
    for rules in [{"top_p": part} for part in parts] + [{"epsilon_cutoff": part * least} for part in parts for least in (0.02, 1e-4)]:
        settings = Settings(temperature=0.8, **rules)
        whole = narrow(logits[None].double() / 0.8, settings)
        drawn = [Rules.of(settings, after=1.0).draw(near.ids, near.values, number, near.total) for number in numbers.tolist()]
        wanted = draw(whole.expand(500, -1), numbers).tolist()
        assert all(token in (None, right) for token, right in zip(drawn, wanted, strict=True))
        assert drawn.count(None) < 250


def test_what_has_seldom_helped_is_tried_at_every_eighth_token():
    """Where tokens are all alike, until some stand out again."""
    alike, outstanding = numpy.zeros(9000, numpy.float32), numpy.zeros(9000, numpy.float32)
    outstanding[7] = 30
    seeker = Seeker()
    assert all(seeker.near(alike, 0.0, 1.0) is None for _ in range(40))
    for _ in range(20):
        found = [seeker.near(outstanding, 30.0, 1.0) is not None for _ in range(8)]
        assert found.count(True) == 1
    for _ in range(80):
        if seeker.near(outstanding, 30.0, 1.0) is not None:
            seeker.told(helped=True)
    assert all(seeker.near(outstanding, 30.0, 1.0) is not None for _ in range(20))


def test_a_row_draws_alone_what_it_draws_in_a_batch():
    """Also where many logits are equal, as in half precision: the other rows, and those before, decide how many tokens are looked at."""
    generator, settings = torch.Generator().manual_seed(3), Settings(temperature=0.8, top_k=20, top_p=0.4)
    alone, both = (chooser(settings, prompts, seed=5) for prompts in ([[1, 2]], [[3], [1, 2]]))
    for spread in (1.0, 9.0, 3.0, 0.4) * 10:
        row, other = ((torch.randn(1, 30_000, generator=generator) * wide).round() for wide in (3.6, spread))
        assert alone(row).ids == both(torch.cat([other, row])).ids[1:]
