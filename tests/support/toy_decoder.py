"""A decoder graph of one layer, written by hand, and what it computes, in loops without a cache."""

from __future__ import annotations

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from modelgraft_plugins.llm.sizes import Caches

LAYOUT = Caches(layers=1, kv_heads=1, head_width=8, width=16, vocab=11)
PLACES = 200  # positions that have an embedding
INT64, INT32 = TensorProto.INT64, TensorProto.INT32


def weights() -> dict[str, torch.Tensor]:
    """The same every time, float32."""
    draw = torch.Generator().manual_seed(5)
    shapes = {"place": (PLACES, 16), "q": (16, 16), "k": (16, 8), "v": (16, 8), "head": (16, 11), "table": (11, 16)}
    return {name: torch.randn(shape, generator=draw) * 0.6 for name, shape in shapes.items()}


def write_graph(path, *, half: bool = False, several: bool = True) -> None:
    """In float32 or float16, with the inputs and outputs of llm/grouped.py; several: the head reads several positions of a row.

    It adds positions, attends with two heads to one key by GroupQueryAttention, adds that, and picks what the head reads.
    """
    real = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    cache = ["batch", 1, "capacity", 8]
    inputs = [
        helper.make_tensor_value_info("inputs_embeds", real, ["batch", "tokens", 16]),
        helper.make_tensor_value_info("position_ids", INT64, ["batch", "tokens"]),
        helper.make_tensor_value_info("seqlens_k", INT32, ["batch"]),
        helper.make_tensor_value_info("total", INT32, [1]),
        helper.make_tensor_value_info("last", INT64, ["batch", "read"] if several else ["batch"]),
        helper.make_tensor_value_info("past.key.0", real, cache),
        helper.make_tensor_value_info("past.value.0", real, cache),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", real, ["batch", "read", 11] if several else ["batch", 11]),
        helper.make_tensor_value_info("present.key.0", real, cache),
        helper.make_tensor_value_info("present.value.0", real, cache),
    ]
    attended = ["query", "key", "value", "past.key.0", "past.value.0", "seqlens_k", "total"]
    nodes = [
        helper.make_node("Gather", ["place", "position_ids"], ["places"]),
        helper.make_node("Add", ["inputs_embeds", "places"], ["states"]),
        *(helper.make_node("MatMul", ["states", name], [long]) for name, long in (("q", "query"), ("k", "key"), ("v", "value"))),
        helper.make_node(
            "GroupQueryAttention",
            attended,
            ["mixed", "present.key.0", "present.value.0"],
            domain="com.microsoft",
            num_heads=2,
            kv_num_heads=1,
        ),
        helper.make_node("Add", ["states", "mixed"], ["all"]),
        helper.make_node("Unsqueeze", ["last", "axes"], ["row"]),
        helper.make_node("Expand", ["row", "wide"], ["rows"]),
        helper.make_node("GatherElements", ["all", "rows"], ["one"], axis=1),
        *([] if several else [helper.make_node("Squeeze", ["one", "axis"], ["flat"])]),
        helper.make_node("MatMul", ["one" if several else "flat", "head"], ["logits"]),
    ]
    numbers = {"axes": [2] if several else [1, 2], "axis": [1], "wide": [1, 1, 16]}
    kept = {name: value.half() if half else value for name, value in weights().items() if name != "table"}
    constants = [numpy_helper.from_array(value.numpy(), name) for name, value in kept.items()]
    constants += [numpy_helper.from_array(torch.tensor(value).numpy(), name) for name, value in numbers.items()]
    graph = helper.make_graph(nodes, "toy", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)])
    model.ir_version = 10
    onnx.save(model, path)


def oracle(embeds: torch.Tensor) -> torch.Tensor:
    """The logits after float[tokens 16], token by token and head by head, in float64."""
    part = {name: value.double() for name, value in weights().items()}
    states = embeds.double() + part["place"][: len(embeds)]
    keys, values = states @ part["k"], states @ part["v"]
    query = states[-1] @ part["q"]
    mixed = []
    for head in range(2):
        scores = torch.stack([query[head * 8 : head * 8 + 8] @ key / 8**0.5 for key in keys])
        mixed.append(sum(share * value for share, value in zip(scores.softmax(0), values, strict=True)))
    return ((states[-1] + torch.cat(mixed)) @ part["head"]).float()
