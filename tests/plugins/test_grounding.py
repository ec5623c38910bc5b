"""Phrases and boxes: read, written and drawn; Kosmos-2 compared with the released code, on texts and boxes that are made up by chance."""

from __future__ import annotations

import itertools
import random
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

import modelgraft as mg
from modelgraft.engine.run import NodeRuntime
from modelgraft.testing import conform, run_node
from modelgraft_plugins.grounding import Draw, Parse, Write, kosmos2
from modelgraft_plugins.grounding.answering import Parser, joined
from modelgraft_plugins.grounding.boxes import FRAMES, fractions_of, pixels_of
from support.pictures import picture

WIDTH, HEIGHT = 310, 170
PICTURE = picture(WIDTH, HEIGHT, seed=3)
SNOWMAN = (
    "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming himself by"
    "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
)


def parse(text: str, shown: Image.Image = PICTURE, **config: Any) -> tuple[dict[str, Any], list[str]]:
    """What is read of one answer, and what is told."""
    told: list[str] = []
    parser = Parser(Parse(**config), "found")
    parser.bind(NodeRuntime("found", emit=lambda _kind, text: told.append(text)))
    return {name: given[0] for name, given in parser([text], [shown]).items()}, told


def write(text: str, **inputs: Any) -> str:
    """One prompt of Kosmos-2."""
    config = inputs.pop("config", {})
    (written,) = run_node(Write, config, text=[text], image=[PICTURE], **{name: [value] for name, value in inputs.items()})["text"]
    return written


def made_up(seed: int, bins: int) -> str:
    """An answer as Kosmos-2 writes them: words, phrases with and without boxes, boxes without phrases, several boxes."""
    draw = random.Random(seed)

    def pair() -> str:
        rows, columns = sorted(draw.choices(range(bins), k=2)), sorted(draw.choices(range(bins), k=2))
        return "".join(f"<patch_index_{row * bins + column:04d}>" for row, column in zip(rows, columns, strict=True))

    def boxes() -> str:
        return f"<object>{kosmos2.AGAIN.join(pair() for _ in range(draw.randint(1, 3)))}</object>"

    words = [" a dog", " in the snow", ", and", " two red hats "]
    kinds = [lambda: draw.choice([*words, "  "]), lambda: f"<phrase>{draw.choice(words)}x</phrase>{boxes()}", boxes,
             lambda: f"<phrase>{draw.choice(words)}</phrase>", lambda: "<grounding>"]  # fmt: skip
    return "".join(draw.choice(kinds)() for _ in range(draw.randint(1, 9)))


@pytest.mark.parametrize("bins", [3, 7, 32])
def test_answers_of_kosmos_2_are_read_as_by_the_released_code(bins):
    """Clean text, phrases, their places in it and their boxes, on eighty answers of a kind."""
    from transformers.models.kosmos2.processing_kosmos2 import clean_text_and_extract_entities_with_bboxes

    square = picture(bins * 10, bins * 10)
    for seed in range(80):
        text = made_up(seed, bins)
        wanted_text, wanted = clean_text_and_extract_entities_with_bboxes(text, bins)
        got, told = parse(text, square, bins=bins)
        assert (got["text"], told) == (wanted_text, []), text
        entities: list[tuple[str, tuple[int, int] | None, list[Any]]] = []
        for name, span, boxes in wanted:  # it names a box without a phrase after its corners, one by one
            entities += [("" if name.startswith("<patch") else name, None if name.startswith("<patch") else span, boxes)]
        flat = [(one["text"], (one["start"], one["end"]), box) for one in got["entities"] for box in one["boxes"]]
        flat_wanted = [(name, span, box) for name, span, boxes in entities for box in boxes]
        assert [one[0] for one in flat] == [one[0] for one in flat_wanted], text
        for (_, span, box), (_, wanted_span, wanted_box) in zip(flat, flat_wanted, strict=True):
            assert wanted_span is None or span == wanted_span, text
            np.testing.assert_allclose([box[name] / (bins * 10) for name in ("x0", "y0", "x1", "y1")], wanted_box, atol=1e-12)
        assert [box["text"] for box in got["boxes"]] == [one[0] for one in flat]


def test_the_published_example_is_read():
    """The one that stands in the paper's demo, in pixels of a picture that is no square."""
    got, _ = parse(SNOWMAN)
    assert got["text"] == "An image of a snowman warming himself by a fire."
    first, second = got["entities"]
    assert (first["text"], got["text"][first["start"] : first["end"]]) == ("a snowman", "a snowman")
    assert (second["text"], got["text"][second["start"] : second["end"]]) == ("a fire", "a fire")
    wanted = (0.390625 * WIDTH, 0.046875 * HEIGHT, 0.984375 * WIDTH, 0.828125 * HEIGHT)
    np.testing.assert_allclose([first["boxes"][0][name] for name in ("x0", "y0", "x1", "y1")], wanted)


@pytest.mark.parametrize("bins", [2, 3, 5, 32])
def test_cells_are_those_of_the_released_code_and_every_pair_comes_back(bins):
    """Of boxes to cells, of cells to boxes; the box of a pair lies in that pair."""
    from transformers.models.kosmos2.processing_kosmos2 import coordinate_to_patch_index, patch_index_to_coordinate

    draw = random.Random(bins)
    for _ in range(200):
        x0, y0 = draw.uniform(0, 0.99), draw.uniform(0, 0.99)
        box = (x0, y0, draw.uniform(x0 + 1e-3, 1), draw.uniform(y0 + 1e-3, 1))
        assert kosmos2.cells(box, bins) == coordinate_to_patch_index(box, bins)
    pairs = [(first, last) for first in range(bins**2) for last in range(first, bins**2) if first % bins <= last % bins]
    for first, last in draw.sample(pairs, min(len(pairs), 400)):
        np.testing.assert_allclose(kosmos2.box_of(first, last, bins), patch_index_to_coordinate(first, last, bins), atol=1e-12)
        assert kosmos2.cells(kosmos2.box_of(first, last, bins), bins) == (first, last)


BROKEN = {
    "<phrase> a dog</phrase><object><patch_index_0044></object>": "it has not two corners",
    "<phrase> a dog</phrase><object><patch_index_0044><patch_index_0863>": "it does not end with </object>",
    "<phrase> a dog</phrase><object><patch_index_0044><patch_index_1024></object>": "the last corner is 1023",
    "<phrase> a dog</phrase><object><patch_index_0863><patch_index_0044></object>": "its corners are the wrong way round",
    "<phrase> a dog</phrase><object></object>": "it has not two corners",
    " a dog<patch_index_0044>": "it stands outside of <object>",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_box_that_is_none_is_told_and_left_out(text):
    """The words of its phrase stay; where broken boxes are refused it is an error."""
    got, told = parse(text)
    assert (got["text"], got["boxes"]) == ("a dog", [])
    assert len(told) == 1
    assert told[0].startswith("found: record 1 of 1 holds a box that is none, ")
    assert f"{BROKEN[text]}; left out" in told[0]
    with pytest.raises(mg.InputError, match=r"let max_new_tokens be larger, or set broken: drop"):
        parse(text, broken="error")


def test_of_several_boxes_the_whole_ones_stay():
    """One that was cut costs itself alone."""
    pair, cut = "<patch_index_0044><patch_index_0863>", "<patch_index_0005>"
    got, told = parse(f"<phrase> dogs</phrase><object>{pair}{kosmos2.AGAIN}{cut}{kosmos2.AGAIN}{pair}</object> run")
    assert (got["text"], len(got["boxes"]), len(told)) == ("dogs run", 2, 1)


def test_answers_of_paligemma_are_read_and_written_again():
    """y before x, 1024ths, a name behind each box; a mask behind a box is left out."""
    text = "<loc0256><loc0128><loc0768><loc0512> cat ; <loc0000><loc0000><loc1023><loc1023><seg001><seg002> two dogs"
    square = picture(1024, 512)
    got, told = parse(text, square, format="paligemma")
    assert (got["text"], told) == ("cat ; two dogs", [])
    assert got["boxes"] == [
        {"x0": 128, "y0": 128, "x1": 512, "y1": 384, "text": "cat"}, {"x0": 0, "y0": 0, "x1": 1023, "y1": 511.5, "text": "two dogs"},
    ]  # fmt: skip
    assert [got["text"][one["start"] : one["end"]] for one in got["entities"]] == ["cat", "two dogs"]
    for box in got["boxes"]:
        fractions = fractions_of(box, width=1024, height=512, frame="whole")
        again, _ = parse(Parse(format="paligemma").written.write(box["text"], [fractions], 1024), square, format="paligemma")
        assert again["boxes"] == [box]
    cut, told = parse("<loc0256><loc0128><loc0768> cat", square, format="paligemma")
    assert (cut["boxes"], cut["text"]) == ([], "cat")
    assert "it has 3 numbers, wanted 4" in told[0]


def tight(prompt: str) -> str:
    """A prompt as its tokens are found: each mark takes in the white space before it (lstrip)."""
    return re.sub(r"\s+(?=<)", "", prompt)


def test_a_prompt_is_written_as_by_the_released_processor():
    """The same marks and cells, and so the same tokens, whether a space stands within or before a mark: they take it in."""
    from transformers.models.kosmos2.processing_kosmos2 import Kosmos2Processor

    class Marks:  # what _insert_patch_index_tokens needs of the processor
        num_patch_index_tokens = 1024
        _convert_bbox_to_patch_index_tokens = Kosmos2Processor._convert_bbox_to_patch_index_tokens

    boxes = [
        {"x0": 31.0, "y0": 17.0, "x1": 155.0, "y1": 170.0, "text": "a dog"},
        {"x0": 0.0, "y0": 0.0, "x1": 310.0, "y1": 34.0, "text": "the hats"},
        {"x0": 200.0, "y0": 50.0, "x1": 210.0, "y1": 60.0, "text": "the hats"},
    ]
    fractions = [tuple(box[name] / side for name, side in zip(("x0", "y0", "x1", "y1"), (WIDTH, HEIGHT) * 2, strict=True)) for box in boxes]
    marked = "<grounding>What is <phrase>a dog</phrase> doing near <phrase>the hats</phrase>?"
    wanted = Kosmos2Processor._insert_patch_index_tokens(Marks(), marked, [fractions[0], fractions[1:]])
    got = write("What is a dog doing near the hats?", boxes=boxes)
    assert tight(got) == tight(wanted)


def test_phrases_without_boxes_and_boxes_without_phrases_are_written():
    """The first are to be found; the second stand at the end."""
    assert write("a snowman", phrases=["a snowman"]) == "<grounding><phrase>a snowman</phrase>"
    box = {"x0": 0.0, "y0": 0.0, "x1": 310.0, "y1": 170.0}
    assert write("It is", boxes=[box | {"text": "It"}], config={"ask": False}) == (
        "<phrase>It</phrase><object><patch_index_0000><patch_index_1023></object> is"
    )
    assert write("What is this?", boxes=[box]) == "<grounding>What is this?<object><patch_index_0000><patch_index_1023></object>"
    assert write("no dog house and a dog", phrases=["dog", "dog house"]) == (
        "<grounding>no <phrase>dog house</phrase> and a <phrase>dog</phrase>"
    )
    assert write("Describe it.") == "<grounding>Describe it."


def test_boxes_without_a_name_may_stand_behind_a_phrase():
    """That of `unnamed`; those that have a name keep it."""
    box = {"x0": 0.0, "y0": 0.0, "x1": 310.0, "y1": 170.0}
    asked = write("It is near a dog", boxes=[box, box | {"text": "a dog"}], config={"unnamed": "It", "ask": False})
    place = "<object><patch_index_0000><patch_index_1023></object>"
    assert asked == f"<phrase>It</phrase>{place} is near <phrase>a dog</phrase>{place}"


JOINED = {
    "a word": ("An image of", "a cat", "An image of a cat"),
    "a mark": ("An image of", "<phrase> a cat</phrase>", "An image of<phrase> a cat</phrase>"),
    "a comma": ("a cat", ", and a dog", "a cat, and a dog"),
    "a space": ("a cat ", "runs", "a cat runs"),
    "behind a mark": ("<grounding><phrase>a cat</phrase>", "<object>", "<grounding><phrase>a cat</phrase><object>"),
    "nothing": ("a cat", "", "a cat"),
}


@pytest.mark.parametrize("name", JOINED)
def test_a_prompt_and_its_answer_are_one_text(name):
    """A space stands between them where two words would meet, and phrases of the prompt are read with the answer."""
    prompt, answer, whole = JOINED[name]
    assert joined(prompt, answer) == whole


def test_a_phrase_of_the_prompt_has_the_box_of_the_answer():
    """As where it was asked for."""
    place = "<object><patch_index_0000><patch_index_1023></object>"
    found = run_node(Parse, text=[f"{place} sits"], image=[PICTURE], prompt=["<grounding><phrase>a cat</phrase>"])
    assert found["text"] == ["a cat sits"]
    assert [box["text"] for box in found["boxes"][0]] == ["a cat"]


FAULTS = {
    "inverted": ({"x0": 9.0, "y0": 1.0, "x1": 3.0, "y1": 5.0, "text": "a dog"}, r"box 0: the box \(9, 1\) to \(3, 5\) has no area"),
    "outside": (
        {"x0": 9.0, "y0": 1.0, "x1": 400.0, "y1": 5.0, "text": "a dog"},
        r"lies outside of the picture, which is 310 x 170 pixels: cut it at the edges",
    ),
    "no number": ({"x0": 9.0, "y0": 1.0, "x1": float("nan"), "y1": 5.0, "text": "a dog"}, "has no area"),
    "not there": ({"x0": 1.0, "y0": 1.0, "x1": 4.0, "y1": 5.0, "text": "a cat"}, r"there is no 'a cat' in the text 'a dog runs'"),
    "a mark": (
        {"x0": 1.0, "y0": 1.0, "x1": 4.0, "y1": 5.0, "text": "<patch_index_0003>"},
        r"holds <patch_index_0003>, which the model reads as a mark",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_boxes_that_cannot_be_written_are_refused(fault):
    """With the record, the box, what is wrong and a way out."""
    box, said = FAULTS[fault]
    with pytest.raises(mg.InputError, match=said):
        write("a dog runs", boxes=[box])


@pytest.mark.parametrize("mark", ["<grounding>", "<image>", "</image>", "<object>", "<patch_index_0001>", "</phrase>", "<s>"])
def test_a_user_cannot_write_marks(mark):
    """Neither a place nor a picture comes of words."""
    with pytest.raises(mg.InputError, match=r"leave it out, and give places of the picture as boxes"):
        write(f"a {mark} dog")


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("size", [(310, 170), (170, 310), (64, 64)])
def test_pixels_and_fractions_are_each_others_way_back(frame, size):
    """A padded square has the picture in its middle, and a box beside it is cut."""
    width, height = size
    box = {"x0": 3.0, "y0": 5.0, "x1": width - 7.0, "y1": height - 2.0}
    there = fractions_of(box, width=width, height=height, frame=frame)
    assert pixels_of(there, width=width, height=height, frame=frame) == pytest.approx(box)
    if frame == "padded":
        assert there[2] - there[0] == pytest.approx((width - 10) / max(size))
    whole = pixels_of((0.0, 0.0, 1.0, 1.0), width=width, height=height, frame=frame)
    assert whole == {"x0": 0, "y0": 0, "x1": width, "y1": height}


def test_boxes_are_drawn_where_they_are_with_a_colour_for_each_name():
    """Edges in the colour of the name, the middle untouched; equal names share a colour."""
    white = Image.new("RGB", (400, 300), "white")
    boxes = [
        {"x0": 20, "y0": 60, "x1": 120, "y1": 160, "text": "dog"},
        {"x0": 220, "y0": 60, "x1": 320, "y1": 160, "text": "hat", "score": 0.5},
        {"x0": 20, "y0": 200, "x1": 120, "y1": 290, "text": "dog"},
    ]
    (drawn,) = run_node(Draw, {"letters": 12, "line": 3}, image=[white], boxes=[boxes])["image"]
    pixels = np.asarray(drawn)
    first, second, third = (tuple(pixels[box["y1"] - 2, (box["x0"] + box["x1"]) // 2]) for box in boxes)
    assert first == third != second
    assert (255, 255, 255) not in {first, second}
    for box in boxes:
        inner = pixels[box["y0"] + 30 : box["y1"] - 3, box["x0"] + 3 : box["x1"] - 3]
        assert (inner == 255).all()
        assert tuple(pixels[(box["y0"] + box["y1"]) // 2, box["x0"] + 1]) != (255, 255, 255)
    assert (pixels[60 - 10, 20:40] != 255).any(), "the name stands above its box"
    assert drawn.size == white.size
    assert (np.asarray(white) == 255).all()


def test_names_of_one_place_do_not_stand_upon_each_other(monkeypatch):
    """Four boxes in one place: four names, each readable."""
    from modelgraft_plugins.grounding import drawing

    placed: list[Any] = []
    write_name = drawing.Names.write

    def noted(self: Any, *given: Any) -> None:
        write_name(self, *given)
        placed.append(self.taken[-1])

    monkeypatch.setattr(drawing.Names, "write", noted)
    boxes = [{"x0": 50 + step, "y0": 60, "x1": 250, "y1": 260, "text": f"thing {step}"} for step in range(4)]
    run_node(Draw, image=[Image.new("RGB", (400, 300))], boxes=[boxes])
    pairs = itertools.combinations(placed, 2)
    assert len(placed) == 4
    assert not [1 for a, b in pairs if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
def test_every_kind_of_picture_is_drawn_on(mode):
    """Also at its edges, in a tiny picture, with a name of another script or none, and with no box at all."""
    boxes = [
        {"x0": -1.0, "y0": 0, "x1": 9, "y1": 8.5, "text": "éclair \N{CJK UNIFIED IDEOGRAPH-72D7}" * 30},
        {"x0": 3, "y0": 3, "x1": 3.5, "y1": 3.5},
    ]
    (drawn,) = run_node(Draw, image=[picture(9, 8, mode)], boxes=[boxes])["image"]
    assert (drawn.mode, drawn.size) == ("RGB", (9, 8))
    (same,) = run_node(Draw, image=[picture(9, 8)], boxes=[[]])["image"]
    assert same.tobytes() == picture(9, 8).tobytes()


def test_a_box_without_area_is_not_drawn():
    """An error names it."""
    with pytest.raises(mg.InputError, match=r"record 1 of 1, box 0: \(5, 1\) to \(2, 3\) has no area: x1 must be above x0"):
        run_node(Draw, image=[PICTURE], boxes=[[{"x0": 5, "y0": 1, "x1": 2, "y1": 3}]])


def test_an_unknown_format_names_the_nearest():
    """And those that there are."""
    with pytest.raises(ValidationError, match=r"there is no format 'kosmos'; there are: kosmos2, .*Did you mean 'kosmos2'\?"):
        Parse(format="kosmos")


def test_they_conform():
    """Batches are their records one by one, and nothing that is given is written to."""
    boxes = [[{"x0": 1.0, "y0": 2.0, "x1": 9.0, "y1": 8.0, "text": "a fire"}], []]
    images = [PICTURE, picture(33, 71, seed=4)]
    conform(Parse, None, text=[SNOWMAN, "nothing"], image=images)
    conform(Write, None, text=["by a fire", "by a dog"], image=images, boxes=boxes, phrases=[[], ["dog"]])
    conform(Draw, None, image=images, boxes=boxes)
