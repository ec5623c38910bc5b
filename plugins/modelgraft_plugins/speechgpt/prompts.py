"""What SpeechGPT reads, word for word as in its training.

Source: the four templates of arXiv 2305.11000, appendix; the dialogue of `cli_infer.py` of its authors for what is typed freely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from modelgraft.plugin import InputError, LoadContext

if TYPE_CHECKING:
    from modelgraft_plugins.speechgpt import OfUnits, Prompt

TURN = "[Human]: {question} <eoh>. [SpeechGPT]: "
PLACE = "{speech}"  # where units stand in what is typed
INPUT = "is input:"  # what the authors' prompts say before what is to be written down or read out
# (spoken or typed, how the answer should come) -> what a human says
STEPS = {
    (True, "speech"): (
        "This is a speech instruction: {given}. And your response should be speech. You can do it step by step. You can first transcribe "
        "the instruction and get the text Instruction. Then you can think about the instruction and get the text response. Last, you "
        "should speak the response aloud"
    ),
    (True, "text"): (
        "This is a speech instruction: {given}. And your response should be text. You can do it step by step. You can first transcribe "
        "the instruction and get the text instruction. Then you can think about the instruction and get the text response."
    ),
    (False, "speech"): (
        "This is a text instruction: {given}. And your response should be speech. You can do it step by step. You can think about the "
        "instruction and get the text response. Then you should speak the response aloud"
    ),
    (False, "text"): (
        "This is a text instruction: {given}. And your response should be text. You can think about the instruction and get the text "
        "response."
    ),
}


def load(config: Prompt, context: LoadContext) -> Callable[[list[str] | None, Tensor | None], list[str]]:
    """Make the function from texts and int64[batch runs] to prompts."""
    node = context.node.name

    def write(text: list[str] | None, units: Tensor | None) -> list[str]:
        count = len(text) if text is not None else 1 if units is None else len(units)  # 1: what lacks both is told
        return [
            written(config, node, None if text is None else text[row], None if units is None else units[row].tolist())
            for row in range(count)
        ]

    return write


def written(config: Prompt, node: str, text: str | None, units: Sequence[int] | None) -> str:
    """The prompt of one record.

    Raises InputError where there is nothing to ask, for a template that is given two instructions, and for a unit that there is none of.
    """
    speech = span(config, node, units) if units is not None and any(unit >= 0 for unit in units) else None
    if config.wants is None:
        question = freely(node, text, speech)
    elif (text is None) == (speech is None):
        found = "a text and speech" if text is not None else "neither a text nor speech"
        raise InputError(f"{node}: an instruction is one of both, typed or spoken, and this record has {found}; wants: null takes both")
    else:
        given = text if speech is None else speech
        assert given is not None, "one of both is there"
        question = STEPS[speech is not None, config.wants].replace("{given}", given.strip().removesuffix("."))
    return config.introduction + TURN.replace("{question}", question)


def freely(node: str, text: str | None, speech: str | None) -> str:
    """What was typed, with the units in their place. Raises InputError where there is nothing, or a place for units and none."""
    if text is None and speech is None:
        raise InputError(f"{node}: this record has neither a text nor speech")
    if text is None:
        return speech or ""
    if speech is None:
        if PLACE in text:
            raise InputError(f"{node}: {text!r} has a place for speech, {PLACE}, and this record has none")
        return text
    if PLACE in text:
        return text.replace(PLACE, speech)
    head = text.rstrip()
    return f"{head}{speech}" if head.lower().endswith(INPUT) else f"{head} This {INPUT}{speech}"


def span(config: OfUnits, node: str, units: Sequence[int]) -> str:
    """Units as the language model reads them: `<sosp><12><7><eosp>`. Raises InputError for one that is not among them."""
    there = [unit for unit in units if unit >= 0]
    if max(there) >= config.units:
        raise InputError(f"{node}: unit {max(there):,} is beyond the {config.units:,} that the language model knows: take its own centres")
    return f"<sosp>{''.join(f'<{unit}>' for unit in there)}<eosp>"
