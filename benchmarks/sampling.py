"""What choosing a token costs around the session, by rule: the token loop over logits that cost nothing.

    python -m benchmarks.sampling [--minutes 1] [--quick] [--json]

Both sides take the same logits of 49,152 tokens on one thread and choose from them by the same settings: ours is the whole loop with a
session that only hands out logits, transformers' side the processors and warpers of `generate`, the softmax and the draw alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measuring, tables
from benchmarks.measuring import Sample
from benchmarks.tables import Asked, Row, Table

VOCABULARY = 49_152  # of SmolLM2
TOKENS, TEXTS, ROUNDS = 200, 8, 21  # of an answer, kinds of logits in it, rounds
SPREAD, OUTSTANDING = 3.6, (19.6, 15.0, 12)  # as SmolLM2's logits in the middle of a text: most about so far below the likeliest of a few
GOAL_US = 40
T = {"temperature": 0.8}
RULES: Mapping[str, Mapping[str, Any]] = {
    "greedy": {},
    "temperature alone": T,
    "min_p 0.05": {**T, "min_p": 0.05},
    "top_k 50": {**T, "top_k": 50},
    "top_p 0.9": {**T, "top_p": 0.9},
    "top_k 50, top_p 0.9": {**T, "top_k": 50, "top_p": 0.9},
    "typical_p 0.9": {**T, "typical_p": 0.9},
    "epsilon_cutoff 3e-4": {**T, "epsilon_cutoff": 3e-4},
    "repetition_penalty 1.2": {"repetition_penalty": 1.2},
    "no_repeat_ngram_size 3": {"no_repeat_ngram_size": 3},
}


class Handing:
    """A session that gives one of some logits after the other, each float[1 vocab]."""

    states = None

    def __init__(self, texts: list[Any]) -> None:
        self.texts, self.count = texts, 0
        self.logits = texts[0]

    def step(self, tokens: Any) -> Any:  # noqa: ARG002 as sessions are asked
        self.count += 1
        self.logits = self.texts[self.count % len(self.texts)]
        return self.logits

    step_ids = step  # as exported sessions are asked

    def reorder(self, rows: Any) -> None:
        """Not asked."""

    fork = rewind = reorder

    def close(self) -> None:
        return None


class Deciding:
    """A decoder of such sessions."""

    def __init__(self, texts: list[Any]) -> None:
        self.texts = texts

    def start(self, prompts: Any, **_: Any) -> Handing:  # noqa: ARG002 as decoders are asked
        return Handing(self.texts)


def logits() -> list[Any]:
    """float32[1 vocab] each; the likeliest tokens stand out as in a text."""
    import torch

    generator = torch.Generator().manual_seed(0)
    texts = [torch.randn(1, VOCABULARY, generator=generator) * SPREAD for _ in range(TEXTS)]
    first, last, count = OUTSTANDING
    for text in texts:
        text[0, torch.randint(VOCABULARY, (count,), generator=generator)] = torch.linspace(first, last, count)
    return texts


def ours(texts: list[Any], rules: Mapping[str, Any]) -> Callable[[], Any]:
    """An answer of so many tokens."""
    from modelgraft.loops.loop import generate
    from modelgraft.loops.settings import Settings

    settings, decoder = Settings(max_new_tokens=TOKENS, **rules), Deciding(texts)
    return lambda: generate(decoder, [texts[0]], settings, decode=lambda _: "", said=[[1, 2, 3]])  # type: ignore[arg-type]


def theirs(texts: list[Any], rules: Mapping[str, Any]) -> Callable[[], Any]:
    """So many tokens by what transformers puts together for the same settings."""
    import torch
    import transformers as hf

    made: Mapping[str, Callable[[Any], Any]] = {
        "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor,
        "no_repeat_ngram_size": hf.NoRepeatNGramLogitsProcessor,
        "temperature": hf.TemperatureLogitsWarper,
        "top_k": hf.TopKLogitsWarper,
        "top_p": hf.TopPLogitsWarper,
        "min_p": hf.MinPLogitsWarper,
        "typical_p": lambda part: hf.TypicalLogitsWarper(mass=part),
        "epsilon_cutoff": hf.EpsilonLogitsWarper,
    }
    processors = hf.LogitsProcessorList(make(rules[name]) for name, make in made.items() if name in rules)

    def run() -> None:
        ids: Any = torch.tensor([[1, 2, 3]])
        for number in range(TOKENS):
            scores = processors(ids, texts[number % len(texts)])
            token = torch.multinomial(scores.softmax(-1), 1) if "temperature" in rules else scores.argmax(-1, keepdim=True)
            ids = torch.cat([ids, token], dim=-1)

    return run


def rows(asked: Asked) -> list[Row]:
    """A row of each rule."""
    import torch

    torch.set_num_threads(1)
    texts, found = logits(), list[Row]()
    for name, rules in list(RULES.items())[: 3 if asked.is_quick else None]:
        sides = {"ours": ours(texts, rules), "theirs": theirs(texts, rules)}
        calls: dict[str, Callable[[], Sample]] = {side: partial(measuring.timed, run) for side, run in sides.items()}
        samples = measuring.interleave(calls, 2 if asked.is_quick else ROUNDS, seconds=asked.share(0.9 / len(RULES)))
        us = {side: measuring.spread_of(samples[side], "wall", times=1e6 / TOKENS) for side in sides}
        found.append(
            {
                "rule": name,
                "us": us["ours"],
                "theirs": us["theirs"],
                "ratio": measuring.compared(samples["theirs"], samples["ours"], "wall"),
            }
        )
    return found


TABLE = Table(
    name="sampling",
    title="Choosing a token, around the session",
    says=f"Microseconds a token, one thread, a vocabulary of {VOCABULARY:,}, random logits of which a few stand out as in a text, "
    "temperature 0.8 where tokens are drawn. Ours is the whole loop with a session that costs nothing (goal: "
    f"{GOAL_US}), transformers' the processors, softmax and draw alone.",
    columns={"rule": "rule", "us": "ours, µs", "theirs": "transformers, µs", "ratio": "times faster"},
    rows=rows,
    minutes=1.0,
)

if __name__ == "__main__":
    tables.alone(TABLE)
