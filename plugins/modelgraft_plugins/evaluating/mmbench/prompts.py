"""How a question is put to a graph: templates by name, as the toolkits of MMBench and of the models have them.

default       VLMEvalKit, for every model without a template of its own
llava         LLaVA's `model_vqa_mmbench.py` with `--single-pred-prompt`
qwen_vl       Qwen-VL's `evaluate_multiple_choice_mmbench.py`; the graph places the picture before it
openflamingo  VLMEvalKit: the default, continued by the answer
kosmos2       VLMEvalKit: a grounded question; the graph places the picture before it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Template = Literal["default", "llava", "qwen_vl", "openflamingo", "kosmos2"]
TEMPLATES: tuple[str, ...] = get_args(Template)
_CHINESE = re.compile("[\u4e00-\u9fff]")
_BY_WORD = {
    "llava": "llava",
    "qwen-vl": "qwen_vl",
    "qwen_vl": "qwen_vl",
    "flamingo": "openflamingo",
    "kosmos-2": "kosmos2",
    "kosmos2": "kosmos2",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its options by letter; hint  "" when there is none."""

    text: str
    options: Mapping[str, str]
    hint: str = ""


def is_chinese(text: str) -> bool:
    """Whether Chinese letters stand in it."""
    return _CHINESE.search(text) is not None


def option_lines(options: Mapping[str, str]) -> str:
    """A line for each option."""
    return "\n".join(f"{letter}. {option}" for letter, option in options.items())


def prompt_of(template: str, question: Question) -> str:
    """A question as a template puts it."""
    return _WRITERS[template](question)


def suggested(words: Iterable[str]) -> str:
    """The template for a graph, by its name and those of its sources."""
    named = " ".join(words).lower()
    return next((template for word, template in _BY_WORD.items() if word in named), "default")


def _default(question: Question) -> str:
    hint = f"Hint: {question.hint}\n" if question.hint else ""
    told = "Please select the correct answer from the options above. \n"
    return "".join([hint, f"Question: {question.text}\n", f"Options:\n{option_lines(question.options)}\n", told])


def _llava(question: Question) -> str:
    lines = [*([question.hint] if question.hint else []), question.text, option_lines(question.options)]
    asked = "\n".join(lines)
    told = "请直接回答选项字母。" if is_chinese(asked) else "Answer with the option's letter from the given choices directly."
    return f"{asked}\n{told}"


def _qwen_vl(question: Question) -> str:
    return f"Context: {question.hint or 'N/A'}\nQuestion: {question.text}\nOptions: {option_lines(question.options)}\nAnswer:"


def _openflamingo(question: Question) -> str:
    return f"{_default(question)}Answer: "


def _kosmos2(question: Question) -> str:
    hint = f"Hint: {question.hint}\n" if question.hint else ""
    told = "Answer with the option’s letter from the given choices directly. "
    return f"<grounding> Question: {hint}{question.text}\n{option_lines(question.options)}\n\n{told}Answer: "


_WRITERS: Mapping[str, Callable[[Question], str]] = {
    "default": _default,
    "llava": _llava,
    "qwen_vl": _qwen_vl,
    "openflamingo": _openflamingo,
    "kosmos2": _kosmos2,
}
