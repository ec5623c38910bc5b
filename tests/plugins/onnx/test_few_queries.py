"""Few queries that attend to a long memory: the heads become queries, and the numbers stay."""

from __future__ import annotations

import subprocess

import numpy
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from modelgraft.engine.modules.signatures import Signature
from modelgraft.kernel.words.ports import port
from modelgraft_plugins.onnx import tuning
from modelgraft_plugins.onnx.exporting import export, flat
from modelgraft_plugins.onnx.few_queries import laid_out
from modelgraft_plugins.onnx.runtime import open_on_host, options_of
from modelgraft_plugins.onnx.sessions import open_session

BATCH, QUERIES, VECTORS, WIDE, HEADS, EACH = 2, 3, 17, 7, 5, 4


def attending(path, *, queries=QUERIES, vectors=VECTORS, biases=True, mask=False, causal=0, read=False):
    """Write a graph that attends to keys and values made of a memory; gives what it is made of."""
    draw = numpy.random.default_rng(0)
    held = {name: draw.standard_normal((WIDE, HEADS * EACH), numpy.float32) for name in ("keys", "values")}
    held |= {f"{name}.bias": draw.standard_normal(HEADS * EACH, numpy.float32) for name in ("keys", "values")}
    nodes = []
    for name in ("keys", "values"):
        nodes.append(helper.make_node("MatMul", ["memory", name], [f"{name}.plain"]))
        if biases:
            nodes.append(helper.make_node("Add", [f"{name}.plain", f"{name}.bias"], [f"{name}.all"]))
    given = ["x", *(f"{name}.{'all' if biases else 'plain'}" for name in ("keys", "values")), *(["mask"] if mask else [])]
    nodes.append(helper.make_node("Attention", given, ["y"], q_num_heads=HEADS, kv_num_heads=HEADS, is_causal=causal))
    outputs = ["y", *([given[1]] if read else [])]
    shapes = {"x": ("batch", queries, HEADS * EACH), "memory": ("batch", vectors, WIDE), "mask": (queries, vectors)}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in ("x", "memory", *(["mask"] if mask else []))]
    graph = helper.make_graph(
        nodes, "attending", inputs, [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 23)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return held


def by_loops(x, memory, held, *, biases):
    """What each query of each head finds, one by one, in float64."""
    found = numpy.zeros(x.shape)
    keys, values = (memory.astype(float) @ held[name] + (held[f"{name}.bias"] if biases else 0.0) for name in ("keys", "values"))
    for record, query, head in numpy.ndindex(len(x), x.shape[1], HEADS):
        some = slice(head * EACH, (head + 1) * EACH)
        scores = keys[record, :, some] @ x[record, query, some].astype(float) / EACH**0.5
        parts = numpy.exp(scores - scores.max())
        found[record, query, some] = parts / parts.sum() @ values[record, :, some]
    return found


@pytest.mark.parametrize("biases", [False, True])
def test_heads_that_become_queries_find_what_they_found(biases, tmp_path):
    """With biases of keys, which softmax does not see, and of values."""
    held = attending(tmp_path / "model.onnx", biases=biases)
    changed = laid_out(tmp_path / "model.onnx")
    assert changed is not None
    (one,) = [node for node in onnx.load_from_string(changed).graph.node if node.op_type == "Attention"]
    assert helper.get_node_attr_value(one, "q_num_heads") == 1
    draw = numpy.random.default_rng(1)
    feed = {"x": draw.standard_normal((BATCH, QUERIES, HEADS * EACH), numpy.float32)}
    feed["memory"] = draw.standard_normal((BATCH, VECTORS, WIDE), numpy.float32)
    (found,) = open_on_host(changed, options_of()).run(None, feed)
    wanted = by_loops(feed["x"], feed["memory"], held, biases=biases)
    assert numpy.abs(found - wanted).max() <= 1e-5 * numpy.abs(wanted).max()


@pytest.mark.parametrize(
    "unlike", [{"queries": 16}, {"vectors": "vectors"}, {"queries": "tokens"}, {"mask": True}, {"causal": 1}, {"read": True}], ids=str
)
def test_what_takes_as_many_products_or_is_more_than_that_stays(unlike, tmp_path):
    """As many queries as vectors, numbers of them that are not known, a mask, what is causal, keys that something else reads."""
    attending(tmp_path / "model.onnx", **unlike)
    assert laid_out(tmp_path / "model.onnx") is None


class Looks(torch.nn.Module):
    """Four queries that look at 65 vectors by six heads, as a Q-Former's do."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(192, 192) for _ in range(4))

    def forward(self, queries, memory):
        """[batch 4 192], [batch 65 192] -> [batch 4 192]."""
        made = ((self.query, queries), (self.key, memory), (self.value, memory))
        query, key, value = (part(x).view(*x.shape[:2], 6, 32).transpose(1, 2) for part, x in made)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(queries.shape))


@pytest.mark.slow  # it exports
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_traced_graph_is_tuned_so_and_gives_what_torch_gives(tmp_path, monkeypatch):
    """The matrices that onnxruntime makes of those of the export are in the tuned file, and none is left as it was."""
    monkeypatch.setattr(tuning, "subprocess", subprocess)  # tried as users have it tried: in a new interpreter, see pace.py
    torch.manual_seed(0)
    module, ports = Looks().eval(), {"queries": port("float[batch 4 192]"), "memory": port("float[batch 65 192]")}
    signature = Signature(tuple(ports.items()), (("y", port("float[batch 4 192]")),))
    export(flat(module, ports=list(ports), wired=list(ports), outputs=["y"]), signature, tmp_path / "model.onnx")
    (tmp_path / "tuned").mkdir()
    assert tuning.tune(tmp_path / "model.onnx", tmp_path / "tuned" / "model.onnx") == ""
    graph = onnx.load(tmp_path / "tuned" / "model.onnx", load_external_data=False).graph
    held = {tuple(tensor.dims) for tensor in graph.initializer}
    assert {(6, 32, 192), (6, 192, 32)} <= held
    assert not any(node.op_type == "MatMul" and node.input[0] == "memory" for node in graph.node)
    given = [torch.randn(2, 4, 192), torch.randn(2, 65, 192)]
    (found,) = open_session(tmp_path / "tuned" / "model.onnx", device="cpu", optimised=True).run(
        None, {name: tensor.numpy() for name, tensor in zip(ports, given, strict=True)}
    )
    with torch.no_grad():
        assert numpy.abs(found - module(*given).numpy()).max() <= 1e-5
