"""Drawings of graphs in graphs, folded and open; of runs; and as pictures."""

from __future__ import annotations

import io
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.tools.draw import clusters, fold, picture
from modelgraft.tools.draw.folding import MOST_STATES, ancestors, states
from modelgraft.tools.draw.scene import Scene
from support import toys

SVG = "{http://www.w3.org/2000/svg}"
REGISTRY = toys.registry()


def nested() -> mg.Graph:
    """`loud` holds `both/upper` and `both/upper_2`; `words` holds `loud`; both stand in the whole."""
    both = mg.Graph("both", registry=REGISTRY)
    text = both.input("text", "text")
    both.output("one", both.node("toy/upper", text=text))
    both.output("two", both.node("toy/upper", text=both.node("toy/upper", name="mid", text=text)))
    words = mg.Graph("words", registry=REGISTRY)
    parts = words.node("toy/split", text=words.input("text", "text"))
    inner = words.node(graph=both, text=parts.left)
    words.output("joined", words.node("toy/join", left=inner.one, right=parts.right))
    words.output("rest", inner.two)
    whole = mg.Graph("whole", registry=REGISTRY, doc="Words in words.")
    first = whole.node(graph=words, text=whole.input("text", "text"))
    second = whole.node(graph=both, name="again", text=first.joined)
    whole.output("a", second.one)
    whole.output("b", whole.node("toy/join", name="end", left=second.two, right=first.rest))
    return whole


def plan() -> mg.Plan:
    return mg.plan(nested())


def rect(group: ElementTree.Element) -> tuple[float, float, float, float]:
    one = group.find(f"{SVG}rect").attrib
    x, y, width, height = (float(one[name]) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def groups(svg: str, key: str) -> dict[str, tuple[float, float, float, float]]:
    return {g.attrib[key]: rect(g) for g in ElementTree.fromstring(svg).iter(f"{SVG}g") if key in g.attrib and "data-fold" not in g.attrib}


def inside(inner: tuple[float, ...], outer: tuple[float, ...]) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_inner_graphs_are_frames_around_their_own_boxes_alone():
    """Whatever lies in a graph is in its frame, and nothing else touches it."""
    svg = mg.show(plan()).text("svg")
    frames, boxes = groups(svg, "data-cluster"), groups(svg, "data-id")
    assert set(frames) == {"words", "words/both", "again"}
    for name, frame in frames.items():
        for id, box in boxes.items():
            assert (inside if id.startswith(f"{name}/") else apart)(box, frame), (id, name)
    assert inside(frames["words/both"], frames["words"])
    assert apart(frames["words"], frames["again"])


def test_wires_run_from_box_to_box_without_a_gap():
    """Through the gates of the graphs on their way: they begin below the giver, end above the taker, and never jump."""
    drawn = picture(plan())
    scene = Scene(drawn)
    for arrow in drawn.arrows:
        path = scene.wire(arrow)
        assert path.count("M") == 1
        points = [tuple(map(float, pair)) for pair in re.findall(r"(-?[\d.]+) (-?[\d.]+)(?= [A-Z]|$)", path)]
        x, top, shape = scene.box(arrow.giver)
        assert points[0][1] == pytest.approx(top + shape.height, abs=0.1)
        x, top, shape = scene.box(arrow.taker)
        assert points[-1][1] == pytest.approx(top - 1, abs=0.1)
        assert abs(points[-1][0] - x) <= shape.width / 2
        assert all(lower[1] >= upper[1] for upper, lower in pairwise(points))


def test_a_folded_graph_is_one_box():
    """With the names of its outputs, the sum of its parameters, and each wire once."""
    drawn = picture(plan())
    folded = fold(drawn, {"words", "again"})
    boxes = {box.id: box for box in folded.boxes}
    assert set(boxes) == {"inputs.text", "words", "again", "end", "outputs.a", "outputs.b"}
    assert boxes["words"].lines == ("graph of 5 nodes",)
    assert {(a.giver, a.taker, a.out) for a in folded.arrows if a.giver == "words"} == {
        ("words", "again", "joined"),
        ("words", "end", "rest"),
    }
    assert len(folded.arrows) == len({(a.giver, a.taker, a.out, a.into) for a in folded.arrows})


def test_folding_an_outer_graph_hides_the_inner_one():
    """And folding the inner one alone leaves the rest."""
    drawn = picture(plan())
    assert clusters(drawn) == ("again", "words", "words/both")
    assert {box.id for box in fold(drawn, {"words/both"}).boxes} > {"words/both", "words/join", "again/upper"}
    assert clusters(fold(drawn, {"words"})) == ("again",)


def test_a_page_carries_a_drawing_for_every_state():
    """Few inner graphs in all choices; many one at a time, so that the page stays small."""
    drawn = picture(plan())
    assert set(states(drawn)) == {
        (), ("again",), ("words",), ("words/both",), ("again", "words"), ("again", "words/both"), ("words", "words/both"),
        ("again", "words", "words/both"),
    }  # fmt: skip
    part = mg.Graph("part", registry=REGISTRY)
    part.output("loud", part.node("toy/upper", text=part.input("text", "text")))
    many = mg.Graph("many", registry=REGISTRY)
    text = many.input("text", "text")
    for _ in range(9):
        text = many.node(graph=part, text=text).loud
    many.output("text", text)
    found = states(picture(mg.plan(many)))
    assert len(found) == 11 <= MOST_STATES
    assert all(len(key) in (0, 8, 9) for key in found)
    assert set(states(replace(found[()], boxes=found[()].boxes * 200))) == {(), max(found, key=len)}


def read(page: str, id: str):
    return json.loads(re.search(rf'id="{id}">(.*?)</script>', page, re.DOTALL)[1])


def test_a_page_begins_with_the_graphs_own_text_and_totals():
    """Before a box is chosen: what it is for, what it costs, what it takes and gives, its nodes by what they cost."""
    assert '<p title="Words in words.">Words in words.</p>' in mg.show(plan()).text("html")
    whole = read(mg.show(toys.graph(toys.SIGHT)).text("html"), "whole")
    totals = {name: (value, note) for name, value, note in whole["totals"]}
    assert totals["nodes"][0] == "2"
    assert totals["parameters"] == ("14,400,084", "trained: 84")
    assert totals["gives media"] == ("float[batch 5 7]", "from bridge.y")
    assert [row[:2] for row in whole["nodes"]] == [["eye", "14.4 M"], ["bridge", "84"]]
    folded = [tuple(one["folded"]) for one in read(mg.show(plan()).text("html"), "states")["drawings"]]
    assert len(folded) == len(set(folded)) == 8


def test_text_drawings_group_inner_graphs():
    """As clusters of Graphviz and subgraphs of Mermaid, inner ones within outer ones."""
    dot, mermaid = (mg.show(plan()).text(form) for form in ("dot", "mermaid"))
    assert dot.count("subgraph cluster_") == mermaid.count("subgraph ") == 3
    assert dot.count("{") == dot.count("}")
    assert mermaid.count("\n  end") + mermaid.count("\n    end") == 3
    assert re.search(r'subgraph cluster_\d { label="words".*subgraph cluster_\d { label="both"', dot, re.DOTALL)


@pytest.mark.parametrize("form", ["svg", "html", "dot", "mermaid"])
def test_no_colour_has_an_opacity_inside(form):
    """Eight digits and rgba() fail in converters and in print: opacity is an attribute of its own."""
    with mg.open(toys.graph(toys.DIAMOND)) as pipeline:
        result = pipeline.run(text="abcd")
    for text in (
        mg.show(plan()).text(form),
        mg.show(toys.graph(toys.DIAMOND), run=result).text(form),
        mg.show(mg.plan(toys.graph(toys.SIGHT), wanted=["pooled"])).text(form),
    ):
        assert not re.search(r"#[0-9a-fA-F]{8}\b|#[0-9a-fA-F]{4}\b|rgba\(|hsla\(", text)


def test_a_run_is_laid_over():
    """Seconds and their share on the boxes; what came from the cache, and what did not run, is told apart."""
    with mg.open(toys.graph(toys.DIAMOND), cache_bytes=0) as pipeline:
        result = pipeline.run(text="abcd")
    svg = mg.show(toys.graph(toys.DIAMOND), run=result).text("svg")
    assert len(re.findall(r'class="time"', svg)) == 4
    assert re.search(r">run: [\d.]+ [µm]?s in 4 calls<", svg)


def written(tmp_path, **changes: object):
    path = tmp_path / "result.json"
    document = {"ok": True, "graph": "toy", "outputs": {}, "timings": {"one+two": 0.5, "whole": 1.5}, "cached": ["parts"], **changes}
    path.write_text(json.dumps(document))
    return path


def test_a_run_is_read_from_what_the_command_printed(tmp_path):
    """Nodes that ran as one call share their time; the cache hits are marked."""
    drawing = mg.show(toys.graph(toys.DIAMOND), run=written(tmp_path))
    boxes = {box.id: box for box in drawing._whole.boxes}
    assert {id: boxes[id].time for id in ("parts", "one", "two", "whole")} == {
        "parts": "from the cache",
        "one": "500 ms · 25% with 1 more",
        "two": "with one",
        "whole": "1.50 s · 75%",
    }
    assert drawing._whole.run == "run: 2.00 s in 2 calls, 1 node from the cache"
    assert "from the cache" in drawing.text("mermaid")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"timings": {"eye": 1.0}}, r"is of another graph: it tells of eye, and toy has one, parts, two, whole"),
        ({"cached": ["eye"]}, "it tells of eye"),
        ({"timings": None}, "it has no `timings` by node"),
        ({"timings": {"one": "fast"}}, "it has no `timings` by node"),
        ({"timings": {"one": -1}}, "it has no `timings` by node"),
        ({"ok": False, "error": {}}, "tells of a run that failed"),
    ],
)
def test_a_file_that_is_no_run_of_this_graph_is_told(tmp_path, changes, said):
    """Nothing is drawn that was not there."""
    with pytest.raises(mg.InputError, match=said):
        mg.show(toys.graph(toys.DIAMOND), run=written(tmp_path, **changes))


@pytest.mark.parametrize(("content", "said"), [("[]", "it is no JSON object"), ("{", "is not JSON"), (None, "No such file")])
def test_a_file_that_cannot_be_read_is_told(tmp_path, content, said):
    """By its name."""
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(mg.InputError, match=said):
        mg.show(toys.graph(toys.DIAMOND), run=path)


def test_a_drawing_is_written_as_a_picture(tmp_path):
    """Twice the size of the SVG, with something on it."""
    drawing = mg.show(plan())
    drawing.save(tmp_path / "whole.png")
    found = Image.open(tmp_path / "whole.png")
    width, height = (float(value) for value in re.search(r'viewBox="0 0 (\d+) (\d+)"', drawing.text("svg")).groups())
    assert found.size == pytest.approx((2 * width, 2 * height), abs=2)
    assert len(found.convert("RGB").getcolors(1 << 20)) > 20
    assert found.convert("RGB").getpixel((3, 3)) == (255, 255, 255)


def test_a_picture_without_its_package_is_one_message(tmp_path, monkeypatch):
    """That names the extra; nothing is written."""
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(mg.InputError, match=r"pip install 'modelgraft\[png\]'"):
        mg.show(plan()).save(tmp_path / "whole.png")
    assert not (tmp_path / "whole.png").exists()


def test_the_ending_of_a_file_says_its_form(tmp_path):
    """And one that says nothing is told with those that do."""
    drawing = mg.show(plan())
    for ending, start in {".svg": "<svg", ".html": "<!doctype", ".mmd": "flowchart", ".dot": "digraph"}.items():
        drawing.save(tmp_path / f"a{ending}")
        assert (tmp_path / f"a{ending}").read_text().startswith(start)
    with pytest.raises(mg.InputError, match=r"ends in \.svg, \.html, \.png, \.mmd, \.dot"):
        drawing.save(tmp_path / "a.pdf")


def test_notebooks_show_drawings_and_graphs():
    """And in place of the drawing of a graph with problems, the problems."""
    assert repr(mg.show(plan())) == "<Drawing whole: 9 nodes>"
    assert "<svg" in mg.show(plan())._repr_html_()
    assert "<svg" in nested()._repr_html_()
    broken = mg.Graph("broken", registry=REGISTRY)
    broken.output("text", broken.node("toy/uper", text=broken.input("text", "text")))
    shown = broken._repr_html_()
    assert "has problems" in shown
    assert "Did you mean &#x27;toy/upper&#x27;?" in shown


def test_the_command_draws_runs_folds_and_pictures(tmp_path, capfd):
    """`show GRAPH --run FILE --fold --out FILE`; a picture needs a file."""
    assert main(["show", "vit", "--out", str(tmp_path / "vit.png")]) == 0
    assert Image.open(io.BytesIO((tmp_path / "vit.png").read_bytes())).format == "PNG"
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"timings": {"pixels": 0.25, "vision": 0.75}, "cached": ["head"]}))
    assert main(["show", "vit", "--run", str(run), "--format", "svg", "--fold"]) == 0
    assert "750 ms · 75%" in capfd.readouterr().out
    assert main(["show", "clip", "--run", str(run)]) == 1
    assert "is of another graph: it tells of head" in capfd.readouterr().err
    assert main(["show", "vit", "--format", "png"]) == 2


@pytest.mark.parametrize("form", ["mermaid", "dot", "svg", "html"])
def test_names_and_texts_of_a_graph_cannot_break_out(form):
    """Its heading, the texts of its inputs and its settings stay text in every form."""
    graph = mg.Graph("x</script><b>", registry=REGISTRY, doc="</script><script>alert(1)</script>")
    text = graph.input("text", "text", doc='"</script><b>')
    graph.output("text", graph.node("toy/join", left=text, right=text, separator='"</script><b>&"'))
    drawn = mg.show(graph).text(form)
    assert "<script>alert(1)" not in drawn
    assert "</script><b>" not in drawn or form == "dot"  # which is no markup, and quotes it


def test_every_box_of_an_inner_graph_knows_where_it_lies():
    """Outer before inner."""
    boxes = {box.id: box for box in picture(plan()).boxes}
    assert ancestors(boxes["words/both/mid"]) == ("words", "words/both")
    assert ancestors(boxes["inputs.text"]) == ()
    assert boxes["words/both/mid"].name == "mid"


def test_what_run_prints_is_what_show_reads(tmp_path, capfd):
    """The document of `run --json`, kept in a file, is drawn over the graph that it ran."""
    graph = mg.Graph("first", doc="The first of some texts.")
    graph.output("text", graph.node("text/first", texts=graph.input("texts", "list[text]")))
    graph.save(tmp_path / "first.yaml")
    assert main(["run", str(tmp_path / "first.yaml"), "--input", "texts=a,b", "--json"]) == 0
    (tmp_path / "result.json").write_text(capfd.readouterr().out)
    assert main(["show", str(tmp_path / "first.yaml"), "--run", str(tmp_path / "result.json"), "--format", "svg"]) == 0
    assert re.search(r">run: [\d.]+ [µm]?s in 1 call<", capfd.readouterr().out)


def test_types_on_wires_have_room_beside_each_other():
    """The plates below a box do not touch, however long the types are."""
    for name in ("read", "clip", "blip2"):
        drawn = picture(mg.plan(name))
        plates = re.findall(r'<rect class="plate [^"]*" x="([-\d.]+)" y="([-\d.]+)" width="([-\d.]+)"', mg.show(name).text("svg"))
        places = sorted((float(y), float(x), float(width)) for x, y, width in plates)
        assert len(places) >= len(drawn.boxes) // 2
        for (y, x, width), (lower, other, _) in pairwise(places):
            assert y != lower or x + width < other, name
