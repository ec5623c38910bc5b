"""A plugin of graphs that answer questions with options: one that knows the right ones, and others that do not."""

from __future__ import annotations

import re
from typing import Any, Literal

from modelgraft import component, hookimpl
from support.mmbench_mini import QUESTIONS

RIGHT = {question: next(one for one in options if one.startswith("*"))[1:] for _, _, question, options, _ in QUESTIONS}
GRAPH = """modelgraft: 1
inputs: {{image: image, question: text}}
nodes:
  see: {{use: quiz/see, in: {{image: inputs.image}}}}
  say: {{use: quiz/answer, with: {{style: {style}}}, in: {{seen: see, question: inputs.question}}}}
outputs: {{text: say}}
"""
JUDGE = """modelgraft: 1
inputs: {prompt: text}
nodes: {say: {use: quiz/judge, in: {prompt: inputs.prompt}}}
outputs: {text: say}
"""


@component("quiz/see", kind="encoder", inputs={"image": "image"}, outputs={"size": "text"})
def see(image: list[Any]) -> list[str]:
    """Look at pictures."""
    return [f"{one.width}x{one.height}" for one in image]


@component("quiz/answer", kind="llm", inputs={"seen": "text", "question": "text"}, outputs={"text": "text"})
def answer(seen: list[str], question: list[str], *, style: Literal["letter", "wording", "first", "vague", "odd"] = "letter") -> list[str]:
    """Answer by the letter, in words, always with A, with something that no rule reads, or now and then so or wrong."""
    assert all(re.fullmatch(r"\d+x\d+", one) for one in seen)
    return [_answer(one, style) for one in question]


def _answer(prompt: str, style: str) -> str:
    right = next(answer for question, answer in RIGHT.items() if question in prompt)
    letter = re.search(rf"^([A-Z])\. {re.escape(right)}$", prompt, re.MULTILINE)[1]
    if style == "odd" and letter in "BC":
        return "the third one I suppose, if I may" if letter == "C" else "BA"[len(right) % 2]  # B is right, A is wrong
    return {"letter": letter, "odd": f"The answer is ({letter}).", "wording": f"It is {right}!", "first": "A"}.get(
        style, f"it is >{letter}<, of course"
    )


@component("quiz/judge", kind="llm", inputs={"prompt": "text"}, outputs={"text": "text"})
def judge(prompt: list[str]) -> list[str]:
    """Read the letter out of an answer in marks."""
    return [found[1] if (found := re.search(r"Answer: it is >([A-Z])<", one)) else "hm" for one in prompt]


@hookimpl
def register_components(register: Any) -> None:
    for subject in (see, answer, judge):
        register(subject)
