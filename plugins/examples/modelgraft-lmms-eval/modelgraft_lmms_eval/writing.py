"""How a task wants answers to be written, in the words of a language model of modelgraft. Imports nothing of lmms-eval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import modelgraft as mg
from modelgraft.plugin import SolvedGraph
from modelgraft_lmms_eval.fitting import Fit

SAME = (
    "max_new_tokens", "min_new_tokens", "repetition_penalty", "no_repeat_ngram_size", "length_penalty", "early_stopping", "typical_p",
)  # fmt: skip
DRAWING = ("top_p", "top_k", "min_p")  # which mean something where tokens are drawn
SPEED = ("use_cache", "image_aspect_ratio")  # which change no answer here: a picture is prepared as its checkpoint says


def settings(asked: Mapping[str, Any], solved: SolvedGraph, fit: Fit) -> tuple[dict[str, Any], list[str]]:
    """What is set of a graph for the `generation_kwargs` of a task, and what of them is not obeyed, in sentences.

    Raises InputError for a value that is none.
    """
    given = {name: value for name, value in asked.items() if value is not None and name not in SPEED}
    wanted, left = _in_our_words(given)
    if fit.writer:
        known = type(solved.nodes[fit.writer].config).model_fields
        left += [name for name in wanted if name not in known]
        return {f"nodes.{fit.writer}.with.{name}": value for name, value in wanted.items() if name in known}, _told(left, given, fit)
    params = {name: wanted.pop(name) for name in list(wanted) if name in solved.graph.params}
    idle = {"temperature": 0.0, "beams": 1}  # what anything does that writes no tokens
    return params, _told([*left, *(name for name in wanted if wanted[name] != idle.get(name, ...))], given, fit)


def _in_our_words(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings of a language model, and the names that are none."""
    found: dict[str, Any] = {name: given[name] for name in SAME if name in given}
    draws = bool(given.get("do_sample", (given.get("temperature") or 0) > 0))
    found["temperature"] = float(given.get("temperature", 1.0)) if draws else 0.0
    if draws:
        found |= {name: given[name] for name in DRAWING if name in given}
    if "num_beams" in given:
        found["beams"] = given["num_beams"]
    if "until" in given:
        found["stop"] = _stops(given["until"])
    known = {*SAME, *DRAWING, "do_sample", "temperature", "num_beams", "until"}
    return found, [name for name in given if name not in known]


def _stops(until: Any) -> list[str]:
    """The strings that end an answer; an empty one ends nothing."""
    stops = [until] if isinstance(until, str) else until
    if not isinstance(stops, list | tuple) or not all(isinstance(one, str) for one in stops):
        raise mg.InputError(f"the task states until: {until!r}; wanted: a string, or a list of strings")
    return [one for one in stops if one]


def _told(left: list[str], given: Mapping[str, Any], fit: Fit) -> list[str]:
    what = f"the node '{fit.writer}' has no such setting" if fit.writer else f"no node behind the output '{fit.output}' can be set so"
    return [f"{name}: {given.get(name)!r} of the task is not obeyed, because {what}" for name in dict.fromkeys(left)]
