"""Phrases and boxes as Shikra has them: fractions of the padded picture, in plain text."""

from __future__ import annotations

import random
from typing import Any

import pytest
from PIL import Image

from modelgraft.engine.run import NodeRuntime
from modelgraft.testing import run_node
from modelgraft_plugins.grounding import Parse, Write
from modelgraft_plugins.grounding.answering import Parser
from modelgraft_plugins.zoo import Square

WIDTH, HEIGHT = 1000, 500  # padded to 1000 x 1000: 250 above, 250 below
PICTURE = Image.new("RGB", (WIDTH, HEIGHT))


def parse(text: str) -> tuple[dict[str, Any], list[str]]:
    """What is read of one answer, and what is told."""
    told: list[str] = []
    parser = Parser(Parse(format="shikra"), "found")
    parser.bind(NodeRuntime("found", emit=lambda _kind, text: told.append(text)))
    return {name: given[0] for name, given in parser([text], [PICTURE]).items()}, told


def corners(box: dict[str, Any]) -> tuple[float, ...]:
    return tuple(round(box[name], 6) for name in ("x0", "y0", "x1", "y1"))


def test_phrases_and_their_boxes_are_read():
    """Several boxes joined by semicolons, in pixels of the picture without its edges; a point is no box; the text is without them."""
    got, told = parse(
        "Look, two dogs[0.100,0.300,0.400,0.500;0.5,0.26,0.9,0.74] near a tree [0.200,0.250,0.300,0.750]. It points[0.5,0.5] up."
    )
    assert told == []
    assert got["text"] == "Look, two dogs near a tree. It points up."
    assert [(one["text"], [corners(box) for box in one["boxes"]]) for one in got["entities"]] == [
        ("two dogs", [(100, 50, 400, 250), (500, 10, 900, 490)]),
        ("near a tree", [(200, 0, 300, 500)]),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a cat[0.5,0.3,0.2,0.6]", "the wrong way round"),
        ("a cat[0.5,0.3,1.2,0.6]", "outside of the picture"),
        ("a cat[0.5,0.3,0.6]", "it has 3 numbers, wanted 4"),
    ],
)
def test_what_is_no_box_is_told_and_left_out(text: str, told: str):
    got, said = parse(text)
    assert (got["text"], got["boxes"]) == ("a cat", [])
    assert told in " ".join(said)


@pytest.mark.parametrize("text", ["a list [of words]", "[]", "[,]", "a[b", "1,2]", "see [1a]"])
def test_other_brackets_stay_as_they_are(text: str):
    got, told = parse(text)
    assert (got["text"], got["boxes"], told) == (text, [], [])


def test_what_is_written_is_read_again():
    """Boxes of any place, to a thousandth of the longer side."""
    draw = random.Random(3)
    for _ in range(50):
        x0, y0 = draw.uniform(0, WIDTH - 20), draw.uniform(0, HEIGHT - 20)
        box = {"x0": x0, "y0": y0, "x1": draw.uniform(x0 + 5, WIDTH), "y1": draw.uniform(y0 + 5, HEIGHT), "text": "the bird"}
        (text,) = run_node(Write, {"format": "shikra"}, text=["Who is the bird on the left?"], image=[PICTURE], boxes=[[box]])["text"]
        got, told = parse(text)
        assert told == []
        (entity,) = got["entities"]
        assert all(
            abs(one - box[name]) <= WIDTH / 2000 + 1e-6
            for one, name in zip(corners(entity["boxes"][0]), ("x0", "y0", "x1", "y1"), strict=True)
        )


@pytest.mark.parametrize(("size", "place"), [((5, 2), (0, 1)), ((2, 5), (1, 0)), ((4, 4), (0, 0))])
def test_a_picture_stands_in_the_middle_of_its_square(size: tuple[int, int], place: tuple[int, int]):
    """As `expand2square` of its code puts it; one that is a square is given as it is."""
    picture = Image.new("RGB", size, (1, 2, 3))
    (found,) = run_node(Square, {"colour": (9, 8, 7)}, image=[picture])["image"]
    side = max(size)
    whole = Image.new("RGB", (side, side), (9, 8, 7))
    whole.paste(picture, place)
    assert found.tobytes() == whole.tobytes()
