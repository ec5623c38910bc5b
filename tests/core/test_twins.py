"""Weights that two nodes load are told, and `share` names nodes as references do, also inside a graph that stands as a node."""

from __future__ import annotations

import json
import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

import modelgraft as mg
from support.running import registry_of

NUMBERS = "float[batch tokens 3]"


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A linear part, and a checkpoint for it."""

    class Linear(torch.nn.Linear):
        def __init__(self, config):
            super().__init__(3, 3)

    module = ModuleType("toy_twins")
    module.Linear = Linear
    monkeypatch.setitem(sys.modules, "toy_twins", module)

    class Part(mg.Config):
        """Map."""

        scale: int = 1

        def parameters(self):
            return 12

    part = mg.component("toy/part", kind="projector", module="toy_twins:Linear", inputs={"x": NUMBERS}, outputs={"y": NUMBERS})(Part)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "toy"}))
    torch.manual_seed(0)
    save_file({"weight": torch.randn(3, 3), "bias": torch.randn(3)}, folder / "model.safetensors")
    hooks = {"register_backends": mg.hookimpl(lambda register: register("torch", "modelgraft_plugins.torch.backend:TorchBackend"))}
    (tmp_path / "eye.yaml").write_text(
        f"# An eye.\nmodelgraft: 1\ninputs: {{x: '{NUMBERS}'}}\nnodes:\n  part: {{use: toy/part, from: ./weights, in: {{x: inputs.x}}}}\n"
        "outputs: {y: part}\n"
    )
    return registry_of(part, **hooks)


def checked(tmp_path, registry, nodes, outputs):
    text = f"modelgraft: 1\ninputs: {{x: '{NUMBERS}'}}\nnodes:\n{nodes}\noutputs: {outputs}\n"
    (tmp_path / "toy.yaml").write_text(text)
    return mg.check(mg.load(tmp_path / "toy.yaml", registry=registry))


def test_two_nodes_that_load_the_same_weights_are_told_once(tmp_path, registry):
    """At the second in the file, with its line and the way out; not where they share, and not for other weights."""
    first = "  zebra: {use: toy/part, from: ./weights, in: {x: inputs.x}}\n"
    second = "  ant: {use: toy/part@1, from: ./weights, with: {scale: 2}, in: {x: zebra}}"
    [remark] = checked(tmp_path, registry, first + second, "{y: ant}").remarks
    assert str(remark).splitlines() == [
        "toy.yaml:5  same-weights  ant loads the same weights as zebra (./weights), and both are held",
        "    write share: zebra, and they are held once",
    ]
    shared = second.replace("from: ./weights", "share: zebra")
    assert not checked(tmp_path, registry, first + shared, "{y: ant}").remarks
    alone = second.replace("from: ./weights, ", "")
    assert not checked(tmp_path, registry, first + alone, "{y: ant}").remarks


@pytest.mark.parametrize("needs_eye", [True, False])
def test_a_node_shares_the_weights_of_one_inside_a_graph(tmp_path, registry, needs_eye):
    """By the name that a wire has for it, also where nothing else needs that graph; the answers are those of one set of weights."""
    nodes = "  eye: {use: 'graph:./eye.yaml', in: {x: inputs.x}}\n  again: {use: toy/part, share: eye/part, in: {x: inputs.x}}"
    solved = checked(tmp_path, registry, nodes, "{y: again, z: eye.y}" if needs_eye else "{y: again}")
    assert mg.plan(solved).totals.parameters == 12
    x = torch.randn(1, 2, 3)
    with mg.open(solved, device="cpu") as pipeline:
        found = pipeline.run(x=x)
        if needs_eye:
            torch.testing.assert_close(found["y"], found["z"])
    from safetensors.torch import load_file

    held = load_file(tmp_path / "weights" / "model.safetensors")
    torch.testing.assert_close(found["y"], x @ held["weight"].T + held["bias"])


@pytest.mark.parametrize(
    ("share", "message"),
    [
        ("eye", r"shares the weights of 'eye', which is a whole graph; name one of its nodes: eye/part\."),
        ("eye.part", r"which is no node; there are: again, eye/part\. Did you mean 'eye/part'\?"),
    ],
)
def test_a_share_that_names_no_node_says_which_there_are(tmp_path, registry, share, message):
    """A whole graph has no weights of its own to share."""
    nodes = f"  eye: {{use: 'graph:./eye.yaml', in: {{x: inputs.x}}}}\n  again: {{use: toy/part, share: {share}, in: {{x: eye.y}}}}"
    with pytest.raises(mg.GraphError, match=message):
        checked(tmp_path, registry, nodes, "{y: again}")
