"""A placement written into the text of a graph: the lines of `runtime` differ, and no others."""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path

import pytest

import modelgraft as mg
from modelgraft_plugins.benching.placing import places_of
from modelgraft_plugins.benching.placing_file import place, target_of
from modelgraft_plugins.benching.placing_text import Unwritable, beside_runtime, with_runtime

HEAD = """# What it is for.
modelgraft: 1
inputs: {x: "float[batch tokens 8]"}
nodes:
  eye: {use: projector/linear, with: {out_features: 8}, in: {x: inputs.x}}   # a remark
  say:
    use: "projector/linear"
    with: {out_features: 8}
    in: {x: eye}
outputs: {y: say}   # the last
"""
PLACEMENT = {"eye": {"backend": "compile"}, "say": {"backend": "onnx", "precision": "w8"}}
WHY = ["on a day", "because of figures"]
SAID = ["+# placed by modelgraft bench --choose on a day", "+#   because of figures"]
NEW = [*SAID, "+runtime:", "+  backend: {eye: compile, say: onnx}", "+  precision: {say: w8}"]
OWN = "outputs: {y: say}   # the last\n"

TEXTS = {  # by what it is: the text, and how its lines differ
    "nothing is said": (HEAD, NEW),
    "lines end as in another system": (HEAD.replace("\n", "\r\n"), NEW),
    "there is a mark of the byte order": ("\ufeff" + HEAD, NEW),
    "remarks follow": (HEAD + "\n# the end\n\n", NEW),
    "one value for all": (
        HEAD + "runtime: {backend: torch, device: cpu}   # a remark\n",
        [
            "-runtime: {backend: torch, device: cpu}   # a remark",
            *SAID,
            "+runtime: {backend: {default: torch, eye: compile, say: onnx}, device: cpu, precision: {say: w8}}   # a remark",
        ],
    ),
    "one value for all, in lines": (
        HEAD + "runtime:\n    # a remark\n    backend:   auto    # another\n    device: 'cpu'\n",
        [
            *SAID,
            "-    backend:   auto    # another",
            "+    backend:   {default: auto, eye: compile, say: onnx}    # another",
            "+    precision: {say: w8}",
        ],
    ),
    "values by node, in lines": (
        HEAD + "runtime:\n  backend:\n    say: 'torch'   # a remark\n  # a remark\n  keep: {eye: false}\n",
        [
            *SAID,
            "-    say: 'torch'   # a remark",
            "+    say: 'onnx'   # a remark",
            "+    eye: compile",
            "+  precision: {say: w8}",
        ],
    ),
    "an empty section": (
        HEAD + "runtime: {}\n",
        ["-runtime: {}", *SAID, "+runtime: {backend: {eye: compile, say: onnx}, precision: {say: w8}}"],
    ),
    "a section without a value": (
        HEAD + "runtime:\n",
        ["-runtime:", *SAID, "+runtime: {backend: {eye: compile, say: onnx}, precision: {say: w8}}"],
    ),
    "the node says it itself": (
        HEAD.replace("in: {x: eye}", "in: {x: eye}\n    runtime: {backend: torch, precision: float32}"),
        [
            "-    runtime: {backend: torch, precision: float32}",
            "+    runtime: {backend: onnx, precision: w8}",
            *SAID,
            "+runtime:",
            "+  backend: {eye: compile}",
        ],
    ),
    "dotted keys say it": (
        HEAD + "nodes.say.runtime.backend: torch\nnodes.eye.runtime: {backend: torch}\nruntime.precision: {say: float32}\n",
        [
            "-nodes.say.runtime.backend: torch",
            "-nodes.eye.runtime: {backend: torch}",
            "-runtime.precision: {say: float32}",
            *SAID,
            "+nodes.say.runtime.backend: onnx",
            "+nodes.eye.runtime: {backend: compile}",
            "+runtime.precision: {say: w8}",
        ],
    ),
    "an earlier placement": (
        HEAD + "# placed by modelgraft bench --choose long ago\n#   with other figures\nruntime:\n  backend: {say: compile}\n",
        [
            "-# placed by modelgraft bench --choose long ago",
            "-#   with other figures",
            *SAID,
            "-  backend: {say: compile}",
            "+  backend: {say: onnx, eye: compile}",
            "+  precision: {say: w8}",
        ],
    ),
    "a param": (
        HEAD.replace("inputs:", "params: {where: torch}\ninputs:", 1) + "runtime: {backend: '${where}'}\n",
        [
            "-runtime: {backend: '${where}'}",
            *SAID,
            "+runtime: {backend: {default: '${where}', eye: compile, say: onnx}, precision: {say: w8}}",
        ],
    ),
}  # fmt: skip


def changed(before, after):
    return [line.rstrip("\r\n") for line in difflib.ndiff(before.splitlines(keepends=True), after.splitlines(keepends=True))
            if line[:2] in ("+ ", "- ")]  # fmt: skip


def placed(path, **given):
    """Where the nodes of a graph run."""
    return {step.node.name: (step.backend, step.precision) for step in mg.plan(mg.load(path, **given)).steps}


def prover(placement, wanted=None):
    wanted = wanted or {name: (keys["backend"], keys.get("precision", "")) for name, keys in placement.items()}

    def prove(path):
        found = placed(path)
        return [name for name in wanted if found[name] != wanted[name]]

    return prove


@pytest.mark.parametrize(("text", "wanted"), TEXTS.values(), ids=TEXTS)
def test_only_the_lines_of_a_placement_differ(tmp_path, text, wanted):
    """Every other byte stays; what the graph then says is what was wanted, and saying it again changes nothing but the reason."""
    after = with_runtime(text, PLACEMENT, WHY)
    found = [line.replace("+ ", "+", 1).replace("- ", "-", 1) for line in changed(text, after)]
    assert sorted(found) == sorted(wanted)
    assert beside_runtime(after) == beside_runtime(text)
    path = tmp_path / "graph.yaml"
    path.write_bytes(after.encode())
    assert placed(path) == {"eye": ("compile", ""), "say": ("onnx", "w8")}
    assert with_runtime(after, PLACEMENT, ["later"]) == after.replace(" on a day", " later").replace(
        "#   because of figures" + ("\r\n" if "\r\n" in text else "\n"), ""
    )


def test_a_graph_in_brackets_stays_in_brackets():
    """The reason stands at the end, because what stands above a graph says what it is for."""
    text = "# What it is for.\n{modelgraft: 1, nodes: {eye: {use: a}}, outputs: {y: eye}}"
    after = with_runtime(text, {"eye": {"backend": "onnx"}}, ["x"])
    assert after == (
        "# What it is for.\n{modelgraft: 1, nodes: {eye: {use: a}}, outputs: {y: eye}, runtime: {backend: {eye: onnx}}}\n"
        "# placed by modelgraft bench --choose x\n"
    )


REFUSED = {
    "its runtime is no mapping": HEAD + "runtime: [torch]\n",
    "a key of its runtime is written elsewhere": HEAD + "params: {a: &a {say: torch}}\nruntime: {backend: *a}\n",
    "what its runtime says of say is written elsewhere": HEAD + "params: {a: &a torch}\nruntime: {backend: {say: *a}}\n",
}


@pytest.mark.parametrize(("message", "text"), REFUSED.items())
def test_what_a_small_edit_cannot_say_is_left_to_a_person(message, text):
    """Values that other places use as well are not changed for them."""
    with pytest.raises(Unwritable, match=message):
        with_runtime(text, PLACEMENT)


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path):
    """A link stays a link; nothing is left beside it."""
    path, link = tmp_path / "graph.yaml", tmp_path / "link.yaml"
    path.write_text(HEAD, encoding="utf-8")
    path.chmod(0o640)
    link.symlink_to(path)
    found = place(target_of(str(link), link, out=None), PLACEMENT, WHY, prove=prover(PLACEMENT))
    assert (found.path, found.why) == (link, "")
    assert path.read_text(encoding="utf-8") == HEAD + "\n".join(found.lines) + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(file.name for file in tmp_path.iterdir()) == ["graph.yaml", "link.yaml"]


def test_what_a_base_says_of_a_node_is_gone_over(tmp_path):
    """A node of a base that has a placement of its own is placed by its dotted key."""
    base = HEAD.replace("    in: {x: eye}", "    in: {x: eye}\n    runtime: {backend: torch}")
    (tmp_path / "base.yaml").write_text(base, encoding="utf-8")
    path = tmp_path / "graph.yaml"
    path.write_text("modelgraft: 1\nextends: ./base.yaml\n", encoding="utf-8")
    assert place(target_of(str(path), path, out=None), PLACEMENT, WHY, prove=prover(PLACEMENT)).path == path
    assert placed(path) == {"eye": ("compile", ""), "say": ("onnx", "w8")}
    assert "nodes.say.runtime.backend: onnx\n" in path.read_text(encoding="utf-8")


def test_what_does_not_place_as_it_should_is_not_written(tmp_path):
    """The text stays as it was, and what should be written is told."""
    path = tmp_path / "graph.yaml"
    path.write_text(HEAD, encoding="utf-8")
    found = place(target_of(str(path), path, out=None), PLACEMENT, WHY, prove=lambda _: ["say"])
    assert (found.path, found.why) == (None, f"{path} stays as it is: what it says elsewhere places say")
    assert path.read_text(encoding="utf-8") == HEAD
    assert list(tmp_path.iterdir()) == [path]


def test_what_somebody_else_has_written_meanwhile_stays(tmp_path):
    """A bench takes minutes, in which a person goes on writing."""
    path = tmp_path / "graph.yaml"
    path.write_text(HEAD, encoding="utf-8")
    target = target_of(str(path), path, out=None)
    path.write_text(HEAD + "# mine\n", encoding="utf-8")
    assert place(target, PLACEMENT, WHY, prove=prover(PLACEMENT)).why.endswith("somebody has written to it meanwhile")
    assert path.read_text(encoding="utf-8") == HEAD + "# mine\n"


def test_a_graph_that_ships_is_extended_elsewhere(tmp_path):
    """It is never written to; without a place for it the block is told."""
    path = mg.load("describe").spec.path
    placement = {"eye": {"backend": "onnx"}}
    found = place(target_of("describe", path, out=None), placement, WHY, prove=prover(placement))
    assert (found.path, list(found.lines[-2:])) == (None, ["runtime:", "  backend: {eye: onnx}"])
    assert found.why == "describe is a graph that ships: --choose-out FILE.yaml writes one that extends it"
    out = tmp_path / "mine.yaml"
    assert place(target_of("describe", path, out=out), placement, WHY, prove=prover(placement)).path == out
    assert placed(out)["eye"] == ("onnx", "")


def test_a_file_that_cannot_be_written_is_told_before(tmp_path, monkeypatch):
    """With the block, and where else it could go."""
    path = tmp_path / "graph.yaml"
    path.write_text(HEAD, encoding="utf-8")
    monkeypatch.setattr(os, "access", lambda *_: False)
    target = target_of(str(path), path, out=None)
    assert target.path is None
    assert target.why.endswith("no permission in '" + str(tmp_path) + "'; --choose-out FILE.yaml writes it elsewhere")


# -- what may be placed ---------------------------------------------------------------------------------------------------

PARTS = """
modelgraft: 1
inputs: {text: text, x: "float[batch tokens 8]"}
nodes:
  shout: {use: text/template, with: {template: "{text}!"}, in: {text: inputs.text}}
  one: {use: projector/linear, with: {out_features: 8}, in: {x: inputs.x}}
  two: {use: projector/linear, with: {out_features: 8}, in: {x: one}, runtime: {backend: onnx, precision: int8}}
  inner: {use: graph:./inner.yaml, in: {x: two}}
outputs: {y: inner.y, text: shout}
"""


def test_what_a_node_may_be_placed_on(tmp_path: Path):
    """Backends with their precisions; a graph that stands as a node is placed as one; plain code has no place."""
    (tmp_path / "inner.yaml").write_text(HEAD, encoding="utf-8")
    path = tmp_path / "graph.yaml"
    path.write_text(PARTS, encoding="utf-8")
    found = places_of(mg.plan(mg.load(path)), together=[("one", "two", "inner/eye", "inner/say")])
    assert found.plain == ["shout"]
    assert found.calls == [("one", "two", "inner")]
    assert {name: (unit.nodes, unit.start) for name, unit in found.units.items()} == {
        "one": (("one",), "torch"), "two": (("two",), "onnx int8"), "inner": (("inner/eye", "inner/say"), "torch"),
    }  # fmt: skip
    assert list(found.units["one"].options) == ["torch", "compile", "onnx float32", "onnx int8", "onnx w8"]
    assert found.keys_of({"one": "onnx w8", "two": "torch"}) == {
        "one": {"backend": "onnx", "precision": "w8"}, "two": {"backend": "torch", "precision": "float32"},
    }  # fmt: skip


def test_why_a_node_may_not_be_placed_somewhere():
    """What cannot be exported stays, and the reason is told."""
    units = places_of(mg.plan("describe")).units
    assert set(units) == {"eye", "sentence"}
    assert units["sentence"].refused == {}
