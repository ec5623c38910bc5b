"""Decoders of known shapes as graphs, put together from a config and its tensors: without tracing.

A decoder of the LLaMA line is the same layer many times: what tracing it finds out is known before. So its graph is written down here, in
the operators that onnxruntime has for it, and each matrix is read from the checkpoint when it is written to disk. What the graph takes and
gives is told in `grouped.py`; the gate compares it with torch as it does any other. A config of another kind, or with anything that is not
among what is read here, is traced: see `grouped_query.py`.

Sources of the shapes: Touvron et al. 2023 (arXiv 2302.13971, LLaMA), Jiang et al. 2023 (arXiv 2310.06825, windows), Qwen team 2024 and 2025
(arXiv 2407.10671, biases; 2505.09388, norms of queries and keys). Operators: GroupQueryAttention, SkipSimplifiedLayerNormalization and
SimplifiedLayerNormalization, as onnxruntime's page of contrib operators has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import Tracer
from modelgraft_plugins.graph_writing import CONTRIB, GraphWriting, Published, Value
from modelgraft_plugins.llm import plain, plain_kinds
from modelgraft_plugins.llm.sizes import Caches, named

HEAD_NORMS = {"llama": False, "mistral": False, "qwen2": False, "qwen3": True}  # kinds -> queries and keys are normed head by head
STEADY = ("default", "linear", "llama3", "yarn")  # kinds of rotary positions whose angles do not depend on how long a text is
PARTS = ("Linear", "Embedding", "ModuleList", "SiLU", "SiLUActivation")  # classes of their modules, beside those of their kinds
TURNED_STEP = 16  # GroupQueryAttention turns no other widths of heads than multiples of this
MOST = 1 << 20  # positions whose angles a graph holds; beyond, the table would outweigh small models

Model = Any  # a model of transformers, which is only partly annotated


@dataclass(frozen=True, slots=True)
class Known:
    """A decoder that is built here.

    tensors      by the names of the published files
    frequencies  float32[head_width/2]: angle per position of each pair;  scaling  of their cosines and sines
    most         positions that are told apart;  window  how many tokens back one sees; 0: all
    """

    tensors: Mapping[str, Tensor]
    layout: Caches
    heads: int
    epsilon: float
    frequencies: Tensor
    most: int
    scaling: float = 1.0
    window: int = 0
    head_norms: bool = False


def known_of(model: Any, most: int | None) -> Known | None:
    """A model as it is built here; None where it is to be traced.

    model  a `plain.Model`, or one of transformers;  most  the longest context, None: there is no limit
    """
    if most is None or most > MOST or any(map(_is_changed, model.modules())):
        return None
    found = _of_plain(model, most) if isinstance(model, plain.Model) else _of_transformers(model, most)
    return found if found is not None and found.tensors.keys() == _names(found) and found.layout.head_width % TURNED_STEP == 0 else None


def _is_changed(module: torch.nn.Module) -> bool:
    """Whether somebody has put something beside what a module of its class computes, which no tensor tells of.

    The hooks of transformers only note hidden states.
    """
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    return "forward" in vars(module) or any(not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks)


def _of_plain(model: plain.Model, most: int) -> Known:
    facts, width = model.facts, model.model.head_size
    heads = int(facts["num_attention_heads"])
    layout = Caches(
        layers=facts["num_hidden_layers"],
        kv_heads=facts.get("num_key_value_heads") or heads,
        head_width=width,
        width=facts["hidden_size"],
        vocab=len(model.lm_head.weight),
        dtype=named(model.lm_head.weight.dtype),
        most=most,
    )
    has_norms = facts["model_type"] in plain_kinds.NORMED
    return Known(model.state_dict(), layout, heads, facts["rms_norm_eps"], plain_kinds.frequencies(facts), most, head_norms=has_norms)


def _of_transformers(model: Model, most: int) -> Known | None:
    from modelgraft_plugins.llm import grouped_query

    config = model.config
    rotary: Any = getattr(getattr(model, "model", None), "rotary_emb", None)  # many call their body otherwise
    windows = getattr(config, "layer_types", None) or ["full_attention"]
    reads_windows = config.model_type != "llama"  # whose class has none, while caches are made by what the config says
    is_known = (
        config.model_type in HEAD_NORMS
        and config.hidden_act == "silu"
        and getattr(rotary, "rope_type", None) in STEADY
        and len(set(windows)) == 1
        and (reads_windows or not getattr(config, "sliding_window", None))
        and getattr(config, "pretraining_tp", 1) == 1
    )
    if not is_known:
        return None
    layout, slides = grouped_query.layout_of(model), windows[0] == "sliding_attention" or config.model_type == "mistral"
    if len(rotary.inv_freq) * 2 != layout.head_width or layout.axes or not _is_as_published(model, layout):
        return None
    return Known(
        model.state_dict(),
        replace(layout, most=most),
        config.num_attention_heads,
        config.rms_norm_eps,
        rotary.inv_freq.float(),
        most,
        scaling=float(rotary.attention_scaling),
        window=int(getattr(config, "sliding_window", None) or 0) if slides else 0,
        head_norms=HEAD_NORMS[config.model_type],
    )


def _is_as_published(model: Model, layout: Caches) -> bool:
    """Whether all modules are of the classes that its kind has, and compute with what the config says."""
    home, told = f"transformers.models.{model.config.model_type}.", {"variance_epsilon": model.config.rms_norm_eps}
    told["scaling"] = layout.head_width**-0.5
    return all(
        (type(part).__module__.startswith(home) or type(part).__name__ in PARTS)
        and all(getattr(part, name, value) == value for name, value in told.items())
        for part in model.modules()
    )


def _names(known: Known) -> set[str]:
    """The tensors that such a model has, with the biases that it holds."""
    norms = ["input_layernorm", "post_attention_layernorm", *(["self_attn.q_norm", "self_attn.k_norm"] if known.head_norms else [])]
    linears = [f"self_attn.{kind}_proj" for kind in "qkvo"] + [f"mlp.{kind}_proj" for kind in ("gate", "up", "down")]
    names = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    for layer in range(known.layout.layers):
        names |= {f"model.layers.{layer}.{name}.weight" for name in (*norms, *linears)}
        biased = {each for each in linears if f"model.layers.{layer}.{each}.bias" in known.tensors}
        biased |= set(linears[:3]) if biased.intersection(linears[:3]) else set()  # which are one matrix: all of them or none
        names |= {f"model.layers.{layer}.{each}.bias" for each in biased}
    return names


def export(known: Known, tracer: Tracer, *, layers: Sequence[int] = ()) -> Caches:
    """Write the graph of a decoder; gives its layout. layers: whose hidden states it gives as well."""
    layout = replace(known.layout, dtype="float16" if tracer.half else "float32")
    tracer.write(_Building(replace(known, layout=layout), layers, tracer.published).model(), "model")
    return layout


class _Building:
    """One graph.

    On a CPU the operator has two ways to read one token: one for plain attention, and the one that everything else takes. The second is
    twice as fast, or more behind a long text, where scores are not scaled, because products of a row by a transposed matrix
    have a kernel then (1.31, AVX and AVX-512). So it is asked for a sink of each head, of which exp(-inf) = 0 is added to a sum,
    and the scale stands in the angles. The second way holds all scores of a prompt at once: see `reading.py`.
    """

    def __init__(self, known: Known, layers: Sequence[int], published: Published) -> None:
        self.known, self.layout, self.layers = known, known.layout, tuple(layers)
        self.graph = GraphWriting(known.tensors, known.layout.in_torch, published)
        self.slab = ("batch", self.layout.kv_heads, "capacity", self.layout.head_width)
        self.is_quick = self.layout.dtype == "float32"

    def model(self) -> Any:
        """The graph, whose matrices are read when it is written."""
        layout, present = self.layout, dict[str, tuple[Value, Sequence[int | str]]]()
        x, given, added = self._inputs(), [], None
        for layer in range(layout.layers):
            place = f"model.layers.{layer}"
            x, normed = self._normed(x, added, f"{place}.input_layernorm")
            given.append(x)
            attended, *slabs = self._attended(normed, layer)
            present |= {f"present.{kind}.{layer}": (slab, self.slab) for kind, slab in zip(("key", "value"), slabs, strict=True)}
            x, normed = self._normed(x, attended, f"{place}.post_attention_layernorm")
            added = self._fed(normed, f"{place}.mlp")
        _, normed = self._normed(x, added, "model.norm")
        outputs: dict[str, tuple[Value, Sequence[int | str]]] = {"logits": (self._logits(normed), ("batch", "read", layout.vocab))}
        if self.layers:
            states = self._states([*given, normed])
            outputs["states"] = (states, ("batch", len(self.layers), "places", layout.width))
        return self.graph.model(outputs | present)

    def _inputs(self) -> Value:
        """All that `grouped.py` names; gives the embeddings. Positions are taken, and found from the lengths by the operator itself."""
        takes, dtype = self.graph.takes, self.layout.in_torch
        embeds = takes("inputs_embeds", dtype, ("batch", "tokens", self.layout.width))
        takes("position_ids", torch.int64, ("batch", "tokens"))
        takes("seqlens_k", torch.int32, ("batch",))
        takes("total", torch.int32, (1,))
        takes("last", torch.int64, ("batch", "read"))
        for layer in range(self.layout.layers):
            takes(f"past.key.{layer}", dtype, self.slab)
            takes(f"past.value.{layer}", dtype, self.slab)
        if self.layers:
            takes("places", torch.int64, ("batch", "places"))
        return embeds

    def _normed(self, x: Value, added: Value | None, name: str) -> tuple[Value, Value]:
        """The sum of two, and its norm."""
        weight, epsilon = self.graph.vector(f"{name}.weight"), self.known.epsilon
        if added is None:
            return x, self._norm(x, weight)
        made = self.graph.several("SkipSimplifiedLayerNormalization", [x, added, weight], 4, domain=CONTRIB, epsilon=epsilon)
        made[1].name = made[2].name = ""  # nobody reads its means and deviations
        return made[3], made[0]

    def _norm(self, x: Value, weight: Value) -> Value:
        return self.graph.node("SimplifiedLayerNormalization", [x, weight], axis=-1, epsilon=self.known.epsilon, stash_type=1)

    def _attended(self, x: Value, layer: int) -> tuple[Value, Value, Value]:
        """Queries, keys and values of a layer as one matrix; keys and values go where they belong in the cache."""
        graph, place, inputs = self.graph, f"model.layers.{layer}.self_attn", self.graph.inputs
        joined = graph.linear(x, *(f"{place}.{kind}_proj" for kind in "qkv"))
        given = self._normed_heads(joined, place) if self.known.head_norms else [joined, None, None]
        past = [inputs[f"past.key.{layer}"], inputs[f"past.value.{layer}"], inputs["seqlens_k"], inputs["total"]]
        facts: dict[str, Any] = {"local_window_size": self.known.window} if self.known.window else {}
        found = graph.several(
            "GroupQueryAttention",
            [*given, *past, *self._turns(), *self._sinks()],
            3,
            domain=CONTRIB,
            num_heads=self.known.heads,
            kv_num_heads=self.layout.kv_heads,
            scale=1.0 if self.is_quick else self.layout.head_width**-0.5,
            do_rotary=1,
            **facts,
        )
        return graph.linear(found[0], f"{place}.o_proj"), found[1], found[2]

    def _normed_heads(self, joined: Value, place: str) -> list[Value]:
        """Queries and keys normed head by head, and values as they are."""
        graph, width = self.graph, self.layout.head_width
        counts = [self.known.heads, self.layout.kv_heads, self.layout.kv_heads]
        query, key, value = graph.several("Split", [joined, graph.numbers(*(count * width for count in counts))], 3, axis=-1)
        found = []
        for states, kind, count in ((query, "q", counts[0]), (key, "k", counts[1])):
            normed = self._norm(graph.heads(states, count, width), graph.vector(f"{place}.{kind}_norm.weight"))
            found.append(graph.node("Reshape", [normed, graph.numbers(0, 0, count * width)]))
        return [*found, value]

    def _sinks(self) -> list[Value | None]:
        """What takes from the attention of each head without giving anything: nothing. See `is_quick`."""
        heads = self.known.heads
        return [None, None, self.graph.constant("sinks", (heads,), lambda: torch.full((heads,), -math.inf))] if self.is_quick else []

    def _turns(self) -> list[Value]:
        """Cosine and sine of the angles of all positions, float[most head_width/2] each (Su et al. 2021, arXiv 2104.09864).

        Where the operator scales nothing, both of queries and keys are turned to the root of their scale.
        """
        known, shape = self.known, (self.known.most, len(self.known.frequencies))
        scaling = known.scaling * self.layout.head_width**-0.25 if self.is_quick else known.scaling

        def angles() -> Tensor:
            return torch.arange(known.most, dtype=torch.float32)[:, None] * known.frequencies

        return [
            self.graph.constant("cosines", shape, lambda: (angles().cos() * scaling).to(self.layout.in_torch)),
            self.graph.constant("sines", shape, lambda: (angles().sin() * scaling).to(self.layout.in_torch)),
        ]

    def _fed(self, x: Value, place: str) -> Value:
        """SwiGLU."""
        graph = self.graph
        gate, up = graph.linear(x, f"{place}.gate_proj"), graph.linear(x, f"{place}.up_proj")
        opened = self._silu(gate)
        return graph.linear(graph.node("Mul", [opened, up]), f"{place}.down_proj")

    def _silu(self, x: Value) -> Value:
        """x * sigmoid(x); as one operator where it has a kernel on every device."""
        if self.layout.dtype == "float32":
            return self.graph.node("QuickGelu", [x], domain=CONTRIB, alpha=1.0)
        return self.graph.node("Mul", [x, self.graph.node("Sigmoid", [x])])

    def _logits(self, normed: Value) -> Value:
        """Of the positions of each row that `last` names."""
        return self.graph.linear(self._picked(normed, self.graph.inputs["last"]), "lm_head")

    def _picked(self, x: Value, places: Value) -> Value:
        """Positions of float[batch tokens width] by int64[batch places]; by elements, as in `grouped_query.py`."""
        graph = self.graph
        index = graph.node("Unsqueeze", [places, graph.numbers(2)])
        spread = graph.node("Expand", [index, graph.numbers(1, 1, self.layout.width)])
        return graph.node("GatherElements", [x, spread], axis=1)

    def _states(self, seen: Sequence[Value]) -> Value:
        """Of the layers asked for, float[batch layers places width]."""
        graph = self.graph
        picked = [self._picked(seen[layer], graph.inputs["places"]) for layer in self.layers]
        return graph.node("Concat", [graph.node("Unsqueeze", [states, graph.numbers(1)]) for states in picked], axis=1)
