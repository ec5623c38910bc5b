"""The generation loop on a decoder that is a table: every answer can be worked out by hand."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from transformers.generation import logits_process as hf

from modelgraft.kernel.words.errors import Cancelled, InputError
from modelgraft.loops.chosen import Tokens
from modelgraft.loops.drawn_in_torch import draw, narrow
from modelgraft.loops.loop import Answers, generate
from modelgraft.loops.scoring import ScoresAsked, Scoring
from modelgraft.loops.settings import Settings

VOCABULARY = 7


class TableDecoder:
    """A bigram model: the logits after a token are a row of a table, whatever came before."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.steps = table, 0

    states = None

    def start(self, prompts, *, conditions=None, room, states=False):
        """The last number of each prompt is its last token. One session at a time is enough here."""
        self.room = room
        self.logits = self.table[torch.tensor([int(prompt[-1, 0]) for prompt in prompts])]
        return self

    def step(self, tokens):
        """Look up."""
        self.steps += 1
        assert self.steps <= self.room
        self.logits = self.table[tokens]
        return self.logits

    def reorder(self, rows):
        """A row keeps no memory."""

    def close(self):
        """Nothing to give back."""


def table(seed: int = 0) -> torch.Tensor:
    """Random logits."""
    return torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def chain(*tokens: int) -> torch.Tensor:
    """A table in which each of the tokens is by far most likely after the one before it."""
    certain = torch.zeros(VOCABULARY, VOCABULARY)
    for before, after in pairwise(tokens):
        certain[before, after] = 9.0
    return certain


def prompts(*last: int) -> list[torch.Tensor]:
    """Prompts of different length that end in these tokens."""
    return [torch.tensor([[float(token)]] * (index + 1)) for index, token in enumerate(last)]


def letters(ids: list[int]) -> str:
    """0 is a special token, the others are letters."""
    return "".join("-abcdef"[token] for token in ids if token)


def write(decoder_table: torch.Tensor, *last: int, **settings) -> Answers:
    """Generate after prompts that end in `last`."""
    asked = prompts(*last)
    said = [[int(token) for token in prompt[:, 0]] for prompt in asked]
    return generate(TableDecoder(decoder_table), asked, Settings(**settings), decode=letters, said=said)


class ByNumbers(TableDecoder):
    """The same, asked as sessions are that take numbers; its logits always lie in the same memory."""

    def start(self, prompts, **asked):
        """See TableDecoder."""
        super().start(prompts, **asked)
        self.logits = self.logits.clone()
        return self

    def step(self, tokens):
        """Nobody asks."""
        raise AssertionError("it takes numbers")

    def step_ids(self, tokens):
        """Look up."""
        assert [type(token) for token in tokens] == [int] * len(self.logits)
        self.logits.copy_(self.table[torch.tensor(tokens)])
        return self.logits

    fork = rewind = TableDecoder.reorder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"end_ids": (3,), "min_new_tokens": 6},
        {"suppressed": (2, 5), "suppressed_first": (1, 4, 6)},
        {"token_delay": ((2, 3), (4, 9), (6, 1))},
        {"repetition_penalty": 1.7},
        {"temperature": 0.9, "top_k": 4},
        {"temperature": 0.9, "suppressed": (2,)},
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_session_that_takes_numbers_gives_the_same_answers(settings, seed):
    """Also where its logits are overwritten by each step, and where rules forbid what would be likeliest."""
    logits = table(seed)
    asked, said = prompts(1, 4, 2), [[1], [4, 4], [2, 2, 2]]
    found = generate(ByNumbers(logits), asked, Settings(max_new_tokens=9, **settings), decode=letters, said=said)
    wanted = generate(TableDecoder(logits), asked, Settings(max_new_tokens=9, **settings), decode=letters, said=said)
    assert found.ids == wanted.ids
    if "temperature" not in settings and "repetition_penalty" not in settings:  # by hand: the likeliest of what may come
        for row, before in enumerate((1, 4, 2)):
            last = before
            for length, token in enumerate(found.ids[row]):
                left = logits[last].clone()
                left[list(settings.get("suppressed", ()))] = -torch.inf
                left[list(settings.get("suppressed_first", ()) if length == 0 else ())] = -torch.inf
                left[list(settings.get("end_ids", ()) if length < settings.get("min_new_tokens", 0) else ())] = -torch.inf
                left[[late for late, count in settings.get("token_delay", ()) if length < count]] = -torch.inf
                assert token == int(left.argmax())
                last = token


def test_greedy_takes_the_most_likely_token_until_the_limit():
    """The chain of largest entries, for each row on its own."""
    logits = table()
    expected = []
    for start in (3, 5):
        token, answer = start, []
        for _ in range(6):
            token = int(logits[token].argmax())
            answer.append(token)
        expected.append(answer)
    answers = write(logits, 3, 5, max_new_tokens=6)
    assert answers.ids == expected
    torch.testing.assert_close(answers.logits, logits[[3, 5]])


def test_any_of_several_end_tokens_ends_a_row_and_not_the_others():
    """The end token is kept in the ids; rows that have ended wait for the others."""
    logits = chain(1, 2, 3, 4, 5, 6, 0)
    answers = write(logits, 1, 4, 5, max_new_tokens=9, end_ids=(0, 6))
    assert answers.ids == [[2, 3, 4, 5, 6], [5, 6], [6]]
    assert answers.texts == ["bcdef", "ef", "f"]


def test_no_end_token_before_the_shortest_answer():
    """With end tokens forbidden for three tokens, the next best ones are taken."""
    logits = chain(1, 0)
    logits[1, 2], logits[2, 0], logits[2, 1] = 5.0, 9.0, 5.0
    assert write(logits, 1, max_new_tokens=9, end_ids=(0,)).ids == [[0]]
    assert write(logits, 1, max_new_tokens=9, min_new_tokens=3, end_ids=(0,)).ids == [[2, 1, 2, 0]]


def test_suppressed_tokens_are_never_chosen_or_not_first():
    """`suppressed` holds for every token, `suppressed_first` for the first."""
    logits = chain(1, 2, 3)
    logits[1, 4] = 5.0
    logits[4, 2] = 9.0
    assert write(logits, 1, max_new_tokens=2, suppressed=(2,)).ids[0][0] == 4
    assert write(logits, 1, max_new_tokens=3, suppressed_first=(2,)).ids == [[4, 2, 3]]


def test_the_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_what_was_said():
    """Against the formula, with the prompt counted as said."""
    logits = table(3) * 2
    said, token, expected = [2], 2, []
    for _ in range(8):
        row = logits[token].clone()
        for seen in set(said):
            row[seen] = row[seen] * 1.8 if row[seen] < 0 else row[seen] / 1.8
        token = int(row.argmax())
        said.append(token)
        expected.append(token)
    assert write(logits, 2, max_new_tokens=8, repetition_penalty=1.8).ids == [expected]
    assert write(logits, 2, max_new_tokens=8).ids != [expected]


@pytest.mark.parametrize("beams", [1, VOCABULARY**2])
def test_the_logit_of_a_token_is_multiplied_before_it_is_compared(beams):
    """Against another table, whose column is multiplied: greedy, and in a search of all answers; taps keep the model's own numbers."""
    for seed, factor in ((3, 1.7), (7, 0.2), (8, 4.0)):
        logits = table(seed) * 2
        other = logits.clone()
        other[:, 4] *= factor
        settings = {"max_new_tokens": 3, "beams": beams}
        found = generate(
            TableDecoder(logits),
            prompts(2),
            Settings(token_scale=((4, factor),), **settings),
            decode=letters,
            taps=["logprobs"] if beams == 1 else [],
        )
        assert found.ids == write(other, 2, **settings).ids
        assert found.ids != write(logits, 2, **settings).ids
        if beams == 1:
            own = [float(logits[before].log_softmax(-1)[after]) for before, after in pairwise([2, *found.ids[0]])]
            assert found.taps.logprobs[0] == pytest.approx(own, abs=1e-5)


def test_a_token_that_comes_late_is_not_among_the_first_ones():
    """As if its column were forbidden for some steps."""
    logits = chain(1, 2, 2)
    logits[1, 3], logits[3, 5], logits[5, 6] = 5.0, 5.0, 5.0
    logits[3, 2] = logits[5, 2] = 9.0
    assert write(logits, 1, max_new_tokens=4, token_delay=((2, 0),)).ids == [[2, 2, 2, 2]]
    assert write(logits, 1, max_new_tokens=4, token_delay=((2, 2),)).ids == [[3, 5, 2, 2]]
    assert 2 not in write(logits, 1, max_new_tokens=4, token_delay=((2, 4),)).ids[0]
    assert write(logits, 1, max_new_tokens=3, beams=2, token_delay=((2, 3), (3, 3))).ids[0].count(2) == 0


def test_nothing_is_written_when_no_token_may_be():
    """max_new_tokens 0 gives the logits of the prompt and empty texts."""
    answers = write(table(), 1, 2, max_new_tokens=0)
    assert (answers.ids, answers.texts, answers.logits.shape) == ([[], []], ["", ""], (2, VOCABULARY))


def test_the_answer_is_cut_before_the_first_stop_string():
    """Also when it spans tokens; generation stops there."""
    logits = chain(1, 2, 3, 4, 5, 6, 0)
    decoder = TableDecoder(logits)
    answers = generate(decoder, prompts(1), Settings(max_new_tokens=9, stop=("xx", "cd")), decode=letters)
    assert answers.texts == ["b"]
    assert decoder.steps == 2


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"temperature": 1.5, "top_k": 3}, {"temperature": 1.0, "top_p": 0.8}])
def test_a_sample_depends_on_the_seed_and_not_on_the_other_rows(settings):
    """The same row alone and in two batches; another seed gives another sample."""
    logits = table(5)

    def sample(asked, seed):
        said = [[int(token) for token in prompt[:, 0]] for prompt in asked]
        return generate(TableDecoder(logits), asked, Settings(max_new_tokens=12, **settings), decode=letters, said=said, seed=seed).ids

    one, two, three = prompts(1, 2, 3)
    together = sample([one, two, three], 4)
    assert [sample([prompt], 4)[0] for prompt in (one, two, three)] == together
    assert sample([three, one], 4) == [together[2], together[0]]
    assert sample([one, two, three], 5) != together


def test_top_k_and_top_p_keep_what_they_say():
    """Against loops over the sorted probabilities."""
    logits = torch.randn(5, 11, generator=torch.Generator().manual_seed(2)) * 2
    for top_k, top_p in [(3, None), (None, 0.6), (4, 0.9), (11, 1.0), (None, 1e-9)]:
        kept = narrow(logits, Settings(temperature=1, top_k=top_k, top_p=top_p)).isfinite()
        for row, line in zip(logits, kept, strict=True):
            order = sorted(range(11), key=lambda token: -float(row[token]))[: top_k or 11]
            shares = torch.stack([row[token] for token in order]).double().softmax(0).tolist()
            total, wanted = 0.0, set()
            for token, share in zip(order, shares, strict=True):
                if top_p is None or total < top_p or not wanted:
                    wanted.add(token)
                total += share
            assert {token for token in range(11) if line[token]} == wanted


def test_drawing_inverts_the_distribution_function():
    """Each number in [0, 1) falls to the token whose interval holds it; a forbidden token is never drawn."""
    logits = torch.tensor([[0.2, float("-inf"), 0.5, 0.3]]).log().nan_to_num(neginf=float("-inf"))
    logits[0, 1] = float("-inf")
    for number, token in [(0.0, 0), (0.19, 0), (0.21, 2), (0.69, 2), (0.71, 3), (0.999999, 3)]:
        assert draw(logits, torch.tensor([number], dtype=torch.float64)).tolist() == [token]


@pytest.mark.parametrize("seed", range(4))
def test_wide_beams_find_the_best_of_all_answers(seed):
    """With as many beams as there are answers, beam search is exhaustive search."""
    logits = table(seed) * 3
    likely = logits.double().log_softmax(-1)

    def score(answer, token=2):
        total = 0.0
        for following in answer:
            total += float(likely[token, following])
            token = following
        return total

    best = max(product(range(VOCABULARY), repeat=3), key=score)
    assert write(logits, 2, max_new_tokens=3, beams=VOCABULARY**2).ids == [list(best)]


def test_beams_of_a_batch_are_those_of_its_rows():
    """Each row's search is its own, also when it ends before the others."""
    logits = table(9) * 2
    settings = {"max_new_tokens": 8, "beams": 3, "end_ids": (0, 4), "length_penalty": 0.3}
    together = write(logits, 1, 2, 3, 5, **settings).ids
    assert together == [write(logits, token, **settings).ids[0] for token in (1, 2, 3, 5)]
    assert len(set(map(len, together))) > 1


def test_a_stop_string_ends_beams():
    """The best answer is cut before it."""
    logits = chain(1, 2, 3, 4, 5, 6, 0)
    assert write(logits, 1, max_new_tokens=9, beams=2, stop=("de",)).texts == ["bc"]


def test_a_cancelled_run_stops_at_the_next_step():
    """`check` is asked before every step."""
    decoder, asked = TableDecoder(table()), []

    def check():
        asked.append(decoder.steps)
        if len(asked) == 4:
            raise Cancelled("stopped", node="llm")

    for beams in (1, 2):
        decoder.steps, asked[:] = 0, []
        with pytest.raises(Cancelled):
            generate(decoder, prompts(1), Settings(max_new_tokens=50, beams=beams), decode=letters, check=check)
        assert asked == [0, 0, 1, 2]


def test_nothing_is_copied_when_no_rule_applies():
    """Greedy decoding hands the decoder's own logits to argmax: the loop must be lean."""
    from modelgraft.loops.scoring import ScoresAsked, Scoring

    logits = table()
    assert Scoring(Settings(), [ScoresAsked([1], 1, [1])] * VOCABULARY, logits).apply(logits, length=0) is logits
    assert Scoring(Settings(), [ScoresAsked([1], 1, [1])] * VOCABULARY, logits).scaled(logits) is logits


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}], ids=["greedy", "drawn"])
@pytest.mark.parametrize(("number", "name"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_logits_that_are_not_numbers_stop_the_run(settings, number, name):
    """At the token where they appear, with the record: a NaN would be chosen as the most likely token, or draw anything."""
    logits = chain(3, 5, 6, 1)
    logits[6, 2] = number
    with pytest.raises(
        InputError, match=f"the logits of record 1 are {name} after 2 tokens of its answer, wanted finite numbers: look for NaN"
    ):
        write(logits, 4, 3, max_new_tokens=5, **settings)
    assert write(logits, 4, 3, max_new_tokens=2, **settings).ids[1] == [5, 6]


def test_beams_stop_at_logits_that_are_not_numbers():
    """Wherever one of them comes by; a candidate of NaN would win over every other."""
    logits = chain(3, 5, 6, 1)
    logits[6, 2] = float("nan")
    with pytest.raises(InputError, match=r"the logits of record 0 are nan after [12] tokens of its answer"):
        write(logits, 3, max_new_tokens=5, beams=2)


@pytest.mark.parametrize("prompts_said", [[[3, 4, 4], [5]], [[], [2]], [[], []]], ids=["both", "one", "none"])
def test_the_penalty_falls_on_what_each_row_has_said(prompts_said):
    """Against a table of what was said: the prompt's tokens and the answer's, once each, in no other row, after a reordering too."""
    settings, vocabulary = Settings(repetition_penalty=1.5), 7
    logits = torch.randn(2, vocabulary, generator=torch.Generator().manual_seed(2))
    scoring, said = Scoring(settings, [ScoresAsked(row, len(row), row) for row in prompts_said], logits), [set(row) for row in prompts_said]
    for step, tokens in enumerate(([0, 3], [0, 1], [6, 6])):
        expected = [
            [(value * 1.5 if value < 0 else value / 1.5) if token in said[row] else value for token, value in enumerate(values)]
            for row, values in enumerate(logits.tolist())
        ]
        assert torch.allclose(scoring.apply(logits, length=step), torch.tensor(expected), atol=0, rtol=1e-6)
        scoring.note(Tokens(tokens))
        said = [said[row] | {tokens[row]} for row in (0, 1)]
        if step == 1:
            scoring.reorder(torch.tensor([1, 0]))
            said = said[::-1]


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0], ids=["flat", "usual", "peaked"])
@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.95])
def test_a_large_vocabulary_is_narrowed_as_when_all_of_it_is_sorted(spread, top_p):
    """The fewest most likely tokens that hold top_p, by a sort in float64, whether a few hundred hold it or not."""
    logits = torch.randn(3, 1000, generator=torch.Generator().manual_seed(4)) * torch.tensor([[1.0], [0.5], [2.0]]) * spread
    kept = narrow(logits, Settings(temperature=1.0, top_p=top_p)) > float("-inf")
    for row in range(3):
        shares, order = logits[row].double().softmax(-1).sort(descending=True)
        before = shares.cumsum(-1) - shares
        near = (before - top_p).abs() < 1e-5  # what rounding decides
        assert kept[row, order[0]]
        assert (kept[row, order] == (before < top_p))[~near][1:].all()


@pytest.mark.parametrize(
    ("rule", "warper", "values"),
    [
        ("min_p", hf.MinPLogitsWarper, (0.02, 0.3)), ("typical_p", hf.TypicalLogitsWarper, (0.2, 0.9)),
        ("top_h", hf.TopHLogitsWarper, (0.1, 0.7)),
        ("epsilon_cutoff", hf.EpsilonLogitsWarper, (0.001, 0.2)), ("eta_cutoff", hf.EtaLogitsWarper, (0.001, 0.3)),
    ],
)  # fmt: skip
def test_what_may_be_drawn_is_what_transformers_leaves(rule, warper, values):
    """The same logits, each rule by itself, with numbers that keep many tokens and few."""
    logits = 3 * torch.randn(5, 211, generator=torch.Generator().manual_seed(8))
    for value in values:
        kept = narrow(logits, Settings(temperature=1.0, **{rule: value}))
        assert torch.equal(kept, warper(value)(None, logits)), value


def test_all_narrowing_rules_together_apply_in_the_order_of_transformers():
    """Each looks at what those before it left over."""
    logits = 2 * torch.randn(4, 157, generator=torch.Generator().manual_seed(9))
    rules = {"top_h": 0.9, "top_k": 60, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9, "epsilon_cutoff": 0.005, "eta_cutoff": 0.03}
    warpers = [
        hf.TopHLogitsWarper(0.9), hf.TopKLogitsWarper(60), hf.TopPLogitsWarper(0.95), hf.MinPLogitsWarper(0.01),
        hf.TypicalLogitsWarper(0.9), hf.EpsilonLogitsWarper(0.005), hf.EtaLogitsWarper(0.03),
    ]  # fmt: skip
    expected = logits
    for warper in warpers:
        expected = warper(None, expected)
    assert torch.equal(narrow(logits, Settings(temperature=1.0, **rules)), expected)
