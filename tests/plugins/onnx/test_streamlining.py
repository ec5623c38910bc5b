"""Traced graphs in fewer steps: heads taken flat, shapes that are undone dropped, short matrices of a decoder joined."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch.nn import functional

from modelgraft.engine.modules.signatures import Signature
from modelgraft.kernel.words.ports import port
from modelgraft.records.arrays import as_tensor
from modelgraft_plugins.onnx.calling import Exported
from modelgraft_plugins.onnx.exporting import export, flat, open_fresh, trace

pytestmark = [
    pytest.mark.slow,  # it exports
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

WIDTH, HEADS, EACH = 24, 3, 8


class Attends(torch.nn.Module):
    """Three heads of eight, in torch's own attention; `norm` makes each head's queries unlike what the matrix gave."""

    def __init__(self, *, norm=False):
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = torch.nn.LayerNorm(EACH) if norm else None

    def forward(self, x):
        """[batch tokens 24] -> the same."""
        query, key, value = (part(x).view(*x.shape[:2], HEADS, EACH).transpose(1, 2) for part in (self.query, self.key, self.value))
        if self.norm is not None:
            query = self.norm(query)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class Looks(Attends):
    """The heads are wanted apart as well."""

    def forward(self, x):
        """Add what each head gives at the first token."""
        query, key, value = (part(x).view(*x.shape[:2], HEADS, EACH).transpose(1, 2) for part in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(x.shape)) + mixed[:, :, :1].sum()


class Undone(torch.nn.Module):
    """Apart and together again, in between to another width."""

    def forward(self, x):
        """The first pair is undone, the second is not."""
        x = x.view(*x.shape[:2], HEADS, EACH).view(x.shape).relu()
        return x.reshape(x.shape[0], -1, EACH).reshape(x.shape[0], -1, WIDTH)


def graph_of(module, path):
    """Export a module of [batch tokens 24], compare it with torch on another size, and give its graph."""
    torch.manual_seed(0)
    whole = flat(module, ports=["x"], wired=["x"], outputs=["y"])
    axis = port(f"float[batch tokens {WIDTH}]")
    export(whole, Signature((("x", axis),), (("y", axis),)), path)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    x = torch.randn(3, 7, WIDTH)
    with torch.no_grad():
        difference = as_tensor(Exported(open_fresh(path), device="cpu")(x)[0]) - whole(x)[0]
    assert difference.abs().max() <= 1e-5
    return onnx.load(path).graph


def operators(graph):
    return [node.op_type for node in graph.node]


def test_attention_takes_its_heads_as_they_lie(tmp_path):
    """Nothing is turned, and the operator is told how many heads there are."""
    graph = graph_of(Attends(), tmp_path / "m.onnx")
    assert not {"Transpose", "Reshape"} & set(operators(graph))
    (attention,) = (node for node in graph.node if node.op_type == "Attention")
    facts = {entry.name: onnx.helper.get_attribute_value(entry) for entry in attention.attribute}
    assert (facts["q_num_heads"], facts["kv_num_heads"]) == (HEADS, HEADS)


@pytest.mark.parametrize("module", [Attends(norm=True), Looks()])
def test_heads_that_are_looked_at_apart_stay_apart(module, tmp_path):
    """By a norm before the operator, or by a sum after it."""
    assert "Transpose" in operators(graph_of(module, tmp_path / "m.onnx"))


def test_reshapes_that_are_undone_are_dropped(tmp_path):
    """A pair that ends in another shape than it began with stays."""
    assert operators(graph_of(Undone(), tmp_path / "m.onnx")).count("Reshape") == 2


class Decodes(torch.nn.Module):
    """One layer around GroupQueryAttention, as decoders are traced; keys and values have one head."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(WIDTH, size) for size in (WIDTH, EACH, EACH))

    def forward(self, x, past_key, past_value, seqlens_k, total):
        """Attend to an empty past."""
        given = (self.query(x), self.key(x), self.value(x), past_key, past_value, seqlens_k, total)
        output, key, value = torch.onnx.ops.symbolic_multi_out(
            "com.microsoft::GroupQueryAttention",
            given,
            {"num_heads": HEADS, "kv_num_heads": 1, "scale": EACH**-0.5, "do_rotary": 0},
            dtypes=(x.dtype,) * 3,
            shapes=(x.shape, past_key.shape, past_value.shape),
            version=1,
        )
        return output, key, value


def run_traced(module, x, path):
    """Trace a decoder behind an empty past, and give what its graph makes of the same."""
    past = torch.zeros(2, 1, 16, EACH)
    given = (x, past, past.clone(), torch.full((2,), 4, dtype=torch.int32), torch.tensor([5], dtype=torch.int32))
    names = ["x", "past_key", "past_value", "seqlens_k", "total"]
    trace(module, given, path, sizes=(None,) * 5, inputs=names, outputs=["y", "key", "value"])
    return torch.from_numpy(open_fresh(path).run(["y"], {name: value.numpy() for name, value in zip(names, given, strict=True)})[0])


def test_short_matrices_that_read_the_same_are_one(tmp_path):
    """Those of queries, keys and values, each with its own bias; the numbers are those of causal attention in torch."""
    torch.manual_seed(0)
    module, x = Decodes().eval(), torch.randn(2, 5, WIDTH)
    got = run_traced(module, x, tmp_path / "m.onnx")
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert sorted(operators(graph)) == ["Add", "GroupQueryAttention", "MatMul"]
    (attention,) = (node for node in graph.node if node.op_type == "GroupQueryAttention")
    assert [name != "" for name in attention.input] == [True, False, False, True, True, True, True]
    assert [list(entry.dims) for entry in graph.initializer if len(entry.dims) == 2] == [[WIDTH, WIDTH + 2 * EACH]]
    assert (got - attended(module, x)).abs().max() <= 1e-5


@torch.no_grad()
def attended(module, x):
    """What causal attention in torch makes of it."""
    query = module.query(x).view(2, 5, HEADS, EACH).transpose(1, 2)
    key, value = (part(x)[:, None].expand(-1, HEADS, -1, -1) for part in (module.key, module.value))
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).reshape(2, 5, WIDTH)


class Twice(torch.nn.Module):
    """Two layers that have the very same tensors: they are one in the graph, as the biases of zeros of a fresh model are."""

    def __init__(self):
        super().__init__()
        self.layer = Decodes()

    def forward(self, x, past_key, past_value, seqlens_k, total):
        """One behind the other."""
        first, key, value = self.layer(x, past_key, past_value, seqlens_k, total)
        return self.layer(first, past_key, past_value, seqlens_k, total)[0], key, value


def test_tensors_that_several_layers_share_are_joined_for_each(tmp_path):
    """Under names of their own."""
    torch.manual_seed(0)
    module, x = Twice().eval(), torch.randn(2, 5, WIDTH)
    got = run_traced(module, x, tmp_path / "m.onnx")
    assert (got - attended(module.layer, attended(module.layer, x))).abs().max() <= 1e-5


class Norms(Decodes):
    """The sum of what a layer reads and gives, normed, and read on as it is."""

    def __init__(self, *, wide):
        super().__init__()
        self.norm, self.wide = torch.nn.RMSNorm(WIDTH, eps=1e-3), wide

    def forward(self, x, past_key, past_value, seqlens_k, total):
        """wide: what is added is one row for all."""
        output, key, value = super().forward(x, past_key, past_value, seqlens_k, total)
        added = output + (x[:, :1] if self.wide else x)
        return self.norm(added) + 2 * added, key, value


@pytest.mark.parametrize("wide", [False, True], ids=["alike", "one row for all"])
def test_a_sum_and_its_norm_are_one(wide, tmp_path):
    """Where the two that are added are alike: the operator takes no others."""
    torch.manual_seed(0)
    module, x = Norms(wide=wide).eval(), torch.randn(2, 5, WIDTH)
    torch.nn.init.normal_(module.norm.weight)
    past = torch.zeros(2, 1, 16, EACH)
    given = (x, past, past.clone(), torch.full((2,), 4, dtype=torch.int32), torch.tensor([5], dtype=torch.int32))
    names = ["x", "past_key", "past_value", "seqlens_k", "total"]
    trace(module, given, tmp_path / "m.onnx", sizes=(None,) * 5, inputs=names, outputs=["y", "key", "value"])
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert ("SkipSimplifiedLayerNormalization" in operators(graph)) != wide
    assert ("RMSNormalization" in operators(graph)) == wide
    got = open_fresh(tmp_path / "m.onnx").run(["y"], {name: value.numpy() for name, value in zip(names, given, strict=True)})[0]
    with torch.no_grad():
        query = module.query(x).view(2, 5, HEADS, EACH).transpose(1, 2)
        key, value = (part(x)[:, None].expand(-1, HEADS, -1, -1) for part in (module.key, module.value))
        output = functional.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2).reshape(2, 5, WIDTH)
        added = output + (x[:, :1] if wide else x)
        expected = module.norm(added) + 2 * added
    assert (torch.from_numpy(got) - expected).abs().max() <= 1e-5
