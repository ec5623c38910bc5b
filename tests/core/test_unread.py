"""A plan says what it leaves unread of a checkpoint that its graph takes apart."""

from __future__ import annotations

import json

import torch
from safetensors.torch import load_file, save_file

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.tools.unread import unread_parts

LINEAR = {"weight": (5, 3), "bias": (5,)}


def write(tmp_path, nodes, *beside):
    """A checkpoint of the linear layers `left`, `right` and a tower, with further tensors beside them, and a graph of it."""
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "toy"}')
    names = [f"{part}.{name}" for part in ("left", "right") for name in LINEAR]
    shapes = {name: LINEAR[name.partition(".")[2]] for name in names} | dict.fromkeys(("model.tower.a", "model.tower.b", *beside), (2,))
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    lines = "".join(f"  {name}: {{use: projector/linear, from: './model#{part}', in: {{x: inputs.x}}}}\n" for name, part in nodes.items())
    outputs = ", ".join(f"{name}: {name}" for name in nodes)
    path = tmp_path / "graph.yaml"
    path.write_text(f"modelgraft: 1\ninputs: {{x: 'float[batch tokens 3]'}}\nnodes:\n{lines}outputs: {{{outputs}}}\n")
    return path


def test_towers_and_tensors_that_no_node_reads_are_told(tmp_path, capsys):
    """A tower with the number of its tensors, a single tensor by its name; in the table and in the document."""
    path = write(tmp_path, {"a": "left", "b": "right"}, "scale")
    assert main(["plan", str(path)]) == 0
    assert "no node reads of ./model: scale, tower (2 tensors)\n" in capsys.readouterr().out
    assert main(["plan", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unread"] == {"./model": {"scale": 1, "tower": 2}}


def test_a_graph_that_takes_one_part_was_never_to_take_all(tmp_path):
    """A vision tower of CLIP alone is no mistake, also when two nodes use it."""
    assert unread_parts(mg.check(write(tmp_path, {"a": "left", "b": "left"}))) == {}


def test_a_checkpoint_that_is_read_whole_leaves_nothing(tmp_path, capsys):
    """Nothing is said where there is nothing to say; what one output leaves out is still read by the graph."""
    path = write(tmp_path, {"a": "left", "b": "right"})
    weights = tmp_path / "model" / "model.safetensors"
    save_file({key: tensor for key, tensor in load_file(weights).items() if "tower" not in key}, weights)
    assert main(["plan", str(path), "--output", "a"]) == 0
    assert "no node reads" not in capsys.readouterr().out
