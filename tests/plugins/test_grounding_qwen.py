"""Phrases and boxes as Qwen-VL has them: thousandths of a side, read, written and refused."""

from __future__ import annotations

import random
from typing import Any

import pytest
from PIL import Image

from modelgraft.engine.run import NodeRuntime
from modelgraft.kernel.words.errors import InputError
from modelgraft.testing import run_node
from modelgraft_plugins.grounding import Parse, Write
from modelgraft_plugins.grounding.answering import Parser

WIDTH, HEIGHT = 1000, 500
PICTURE = Image.new("RGB", (WIDTH, HEIGHT))


def parse(text: str, **config: Any) -> tuple[dict[str, Any], list[str]]:
    """What is read of one answer, and what is told."""
    told: list[str] = []
    parser = Parser(Parse(format="qwen", **config), "found")
    parser.bind(NodeRuntime("found", emit=lambda _kind, text: told.append(text)))
    return {name: given[0] for name, given in parser([text], [PICTURE]).items()}, told


def write(text: str, **inputs: Any) -> str:
    (written,) = run_node(Write, {"format": "qwen"}, text=[text], image=[PICTURE], **{name: [value] for name, value in inputs.items()})[
        "text"
    ]
    return written


def corners(box: dict[str, Any]) -> tuple[float, ...]:
    return tuple(box[name] for name in ("x0", "y0", "x1", "y1"))


def test_phrases_and_their_boxes_are_read():
    """Several boxes behind one phrase, a quad by the box around it, and a box without a phrase, in pixels of the picture."""
    text = "<ref> Two dogs</ref><box>(10,20),(300,400)</box><box>(500,0),(999,999)</box> near <quad>(1,5),(9,2),(8,7),(2,8)</quad> a tree."
    got, told = parse(f"{text}<|im_end|>")
    assert told == []
    assert got["text"] == "Two dogs near  a tree."
    assert [(one["text"], [corners(box) for box in one["boxes"]]) for one in got["entities"]] == [
        ("Two dogs", [(10, 10, 300, 200), (500, 0, 999, 499.5)]),
        ("", [(1, 1, 9, 4)]),
    ]
    assert got["text"][got["entities"][0]["start"] : got["entities"][0]["end"]] == "Two dogs"


def test_sides_can_be_counted_as_its_evaluation_does():
    """RefCOCO divides by 999, so that the last place is the edge itself."""
    assert corners(parse("<box>(0,0),(999,999)</box>", bins=999)[0]["boxes"][0]) == (0, 0, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("<box>(300,20),(10,400)</box>", "its corners are the wrong way round"),
        ("<box>(10,20),(1300,400)</box>", "a corner lies outside of the picture"),
        ("<box>(10,20),(30", "it does not end with </box>"),
        ("<box>(10,20)</box>", "it has not 2 corners"),
        ("<box>(1,2),(3,4),(5,6)</box>", "it has not 2 corners"),
        ("<box>somewhere</box>", "it has not 2 corners"),
        ("<quad>(1,2),(3,4)</quad>", "it has not 4 corners"),
        ("<box>(1,2),(3,4)</quad>", "it does not end with </box>"),
    ],
)
def test_a_box_that_is_none_is_told_or_refused(written: str, why: str):
    got, told = parse(f"<ref>a dog</ref>{written}")
    assert (got["text"], got["boxes"], len(told)) == ("a dog", [], 1)
    assert why in told[0]
    with pytest.raises(InputError, match="holds a box that is none") as caught:
        parse(f"<ref>a dog</ref>{written}", broken="error")
    assert why in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_written_is_read_again(seed: int):
    """Boxes come back to the thousandth that they begin in, as its code rounds them down: at most 999."""
    draw = random.Random(seed)
    x0, y0 = draw.uniform(0, WIDTH - 9), draw.uniform(0, HEIGHT - 9)
    box = {"x0": x0, "y0": y0, "x1": draw.uniform(x0 + 4, WIDTH), "y1": draw.uniform(y0 + 4, HEIGHT), "text": "dog"}
    sides = ((box["x0"], WIDTH), (box["y0"], HEIGHT), (box["x1"], WIDTH), (box["y1"], HEIGHT))
    numbers = [min(int(1000 * place / side), 999) for place, side in sides]
    text = write("Is the dog old?", boxes=[box])
    assert text == "Is the <ref>dog</ref><box>({},{}),({},{})</box> old?".format(*numbers)
    got, _ = parse(text)
    assert got["text"] == "Is the dog old?"
    assert corners(got["boxes"][0]) == tuple(number * side / 1000 for number, (_, side) in zip(numbers, sides, strict=True))


@pytest.mark.parametrize("mark", ["<box>", "</ref>", "<img>", "<imgpad>", "<|im_end|>", "<|extra_7|>"])
def test_nobody_writes_himself_a_box_or_a_picture(mark: str):
    with pytest.raises(InputError, match="which the model reads as a mark and not as words"):
        write(f"Where is{mark} the dog?")
