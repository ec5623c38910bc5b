"""Drawings tell what the graph is, in four forms, without anything from outside."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modelgraft as mg
from modelgraft.tools import draw
from modelgraft.tools.draw.picture import family_of, picture
from modelgraft.tools.draw.places import GAP, place
from support import toys

SVG = "{http://www.w3.org/2000/svg}"


def rectangles(svg: str) -> dict[str, tuple[float, float, float, float]]:
    """The rectangle of each box by its id: left, top, right, bottom."""
    found = {}
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if "data-id" in group.attrib:
            rect = group.find(f"{SVG}rect").attrib
            x, y, width, height = (float(rect[name]) for name in ("x", "y", "width", "height"))
            found[group.attrib["data-id"]] = (x, y, x + width, y + height)
    return found


def test_a_box_says_what_a_node_is_and_what_it_costs():
    """Component, parameters and whether it is trained stand on the box."""
    boxes = {box.id: box for box in picture(mg.plan(toys.graph(toys.SIGHT))).boxes}
    assert boxes["eye"].lines == ("toy/eye", "14.4 M parameters")
    assert boxes["eye"].mark == "frozen"
    assert boxes["bridge"].lines == ("toy/linear", "84 parameters")
    assert boxes["bridge"].mark == "trained"
    assert ("parameters", "84", "trained: 84") in boxes["bridge"].facts
    assert boxes["inputs.image"].family == "image"


def test_a_node_without_weights_has_no_mark():
    """Only what has parameters can be frozen or trained."""
    assert {box.mark for box in picture(mg.check(toys.graph(toys.DIAMOND))).boxes} == {""}


def test_wires_carry_the_sizes_that_were_solved():
    """The width that nobody wrote stands on the wire."""
    arrows = {(arrow.giver, arrow.taker): arrow for arrow in picture(mg.check(toys.graph(toys.SIGHT))).arrows}
    assert arrows["eye", "bridge"].label == "float[batch 5 12]"
    assert arrows["bridge", "outputs.media"].label == "float[batch 5 7]"
    assert arrows["eye", "bridge"].out == "tokens"  # named, because the eye gives two things


def test_what_a_plan_leaves_out_is_drawn_pale():
    """With wanted outputs the pruned nodes stay visible."""
    plan = mg.plan(toys.graph(toys.SIGHT), wanted=["pooled"])
    assert {box.id for box in picture(plan).boxes if box.idle} == {"bridge"}
    assert 'class="box node trained idle"' in mg.show(plan).text("svg")


def test_mermaid_names_every_box_and_wire():
    """The text holds nodes with their marks, and the types on the wires."""
    text = mg.show(mg.check(toys.graph(toys.SIGHT))).text("mermaid")
    assert text.startswith("flowchart TB\n")
    assert '["❄ eye<br/>toy/eye<br/>14.4 M parameters"]:::frozen' in text
    assert '["✎ bridge<br/>toy/linear<br/>84 parameters"]:::trained' in text
    assert '-->|"tokens float[batch 5 12]"|' in text
    assert len(re.findall(r" -->", text)) == 4


def test_dot_names_every_box_and_wire():
    """The text is a digraph with one line per box and wire."""
    text = mg.show(mg.check(toys.graph(toys.SIGHT))).text("dot")
    assert text.startswith("digraph ")
    assert text.rstrip().endswith("}")
    assert '"eye" -> "bridge" [label="tokens float[batch 5 12]"];' in text
    assert text.count(" -> ") == 4


@pytest.mark.parametrize("form", draw.FORMATS)
def test_text_from_a_graph_cannot_break_out_of_a_drawing(form):
    """Quotes, angle brackets and script ends in descriptions stay text."""
    text = toys.DIAMOND.replace("whole: {use: toy/join,", """whole: {use: toy/join, with: {separator: '"</script><b>&"'},""")
    drawn = mg.show(toys.graph(f"# A </script><script>alert(1)</script> graph\n{text}")).text(form)
    assert "<script>alert(1)" not in drawn
    assert '"</script><b>' not in drawn


def test_the_svg_is_whole_and_refers_to_nothing_outside():
    """It is well-formed XML and names no address but that of its own language."""
    svg = mg.show(mg.check(toys.graph(toys.SIGHT))).text("svg")
    ElementTree.fromstring(svg)
    assert re.findall(r"https?://[^\"']*", svg) == ["http://www.w3.org/2000/svg"]


def test_the_page_holds_all_it_needs():
    """One file: no links, no scripts, styles or fonts from elsewhere; the facts can be read."""
    page = mg.show(mg.plan(toys.graph(toys.SIGHT))).text("html")
    assert set(re.findall(r"https?://[^\"'\\]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|src=|@import|url\((?!#)", page)
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page, re.DOTALL)[1])
    assert any(name == "with narrow" and value == "12" for name, value, _ in facts["bridge"]["facts"])
    assert "{{" not in page


@pytest.mark.parametrize("text", [toys.DIAMOND, toys.SIGHT])
def test_boxes_do_not_overlap_and_wires_lead_down(text):
    """Every box has a place of its own, and what feeds a box stands above it."""
    solved = mg.check(toys.graph(text))
    places = rectangles(mg.show(solved).text("svg"))
    assert set(places) == {box.id for box in picture(solved).boxes}
    for one, (left, top, right, bottom) in places.items():
        for other, (left2, top2, right2, bottom2) in places.items():
            assert one == other or right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
    for arrow in picture(solved).arrows:
        assert places[arrow.giver][3] < places[arrow.taker][1]


def test_a_diamond_is_drawn_without_a_crossing():
    """The branch whose wire leaves on the left stands on the left."""
    places = rectangles(mg.show(toys.graph(toys.DIAMOND)).text("svg"))
    middle = {name: (left + right) / 2 for name, (left, _, right, _) in places.items()}
    assert middle["one"] < middle["parts"] < middle["two"]
    assert middle["parts"] == pytest.approx(middle["whole"], abs=1.0)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=60), st.integers(1, 20))
def test_layers_and_places_of_any_graph(pairs, count):
    """For every acyclic graph: wires go down, and boxes of a layer keep their distance."""
    widths = {f"n{index}": 30.0 + 7 * index for index in range(count)}
    edges = [(f"n{min(pair)}", f"n{max(pair)}") for pair in pairs if pair[0] != pair[1] and max(pair) < count]
    placed = place(widths, edges)
    level = {name: row for row, layer in enumerate(placed.layers) for name in layer}
    assert sorted(name for name in level if name in widths) == sorted(widths)
    for giver, taker in edges:
        assert level[giver] < level[taker]
        assert [level[name] for name in placed.paths[giver, taker]] == list(range(level[giver], level[taker] + 1))
    for layer in placed.layers:
        for left, right in pairwise(layer):
            distance = (widths.get(left, 10.0) + widths.get(right, 10.0)) / 2 + GAP
            assert placed.x[right] - placed.x[left] >= distance - 1e-6


@pytest.mark.parametrize(
    ("port", "family"),
    [("image", "image"), ("list[text]", "text"), ("float[batch 3]", "tensor"), ("int64[batch tokens]", "tokens"), ("bool[batch]", "mask")],
)
def test_ports_of_one_meaning_share_a_colour(port, family):
    """Media go by their name, tensors by what their numbers mean."""
    assert family_of(mg.port(port)) == family
