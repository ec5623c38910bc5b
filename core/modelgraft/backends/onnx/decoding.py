"""A decoder on ONNX Runtime: one graph reads prompts and writes tokens, its cache updated in place.

The graph takes, for a batch of right-padded rows,
    inputs_embeds  float[batch tokens width]     position_ids  int64[batch tokens]
    seqlens_k      int32[batch]                  tokens that each row holds after this call, minus one
    total          int32[1]                      the longest of them
    last           int64[batch]                  which position of each row the head reads
    past.key.i, past.value.i  float[batch kv_heads capacity head_width]
and gives logits float[batch vocab] and present.key.i, present.value.i, which are bound to the memory of the past: the
GroupQueryAttention operator then writes new keys and values where they belong and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

TYPES = {torch.float32: "float32", torch.float16: "float16", torch.int64: "int64", torch.int32: "int32"}
SHORTEST_REUSE = 8  # tokens of a common beginning below which reading them again costs nothing
ROUND = 64  # capacities are multiples of this, so that runs of nearly the same length use the same memory


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes of a decoder graph. `dtype` is that of its cache and of what goes in and out."""

    layers: int
    kv_heads: int
    head_width: int
    width: int
    vocab: int
    dtype: torch.dtype = torch.float32


class OnnxDecoder:
    """A `generation.Decoder` over a session on such a graph. Rows are padded on the right.

    A single prompt that begins as the one before it (the same picture with another question, the next turn of a chat) is
    read from where they part: `reused` says how many tokens were kept. Batches are always read whole, because the operator
    takes several new tokens after a past for one row only.
    """

    def __init__(self, session: Any, layout: Layout, embed: Callable[[Tensor], Tensor], *, device: str) -> None:
        """embed: int64[n] -> float[n width], the model's input embeddings, which stay on the host."""
        self.session, self.layout, self.embed = session, layout, embed
        self.device = torch.device(device)
        self.names = [f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value")]
        self.cache: list[Tensor] = []
        self.lengths = torch.zeros(0, dtype=torch.int64)
        self.step_inputs: dict[str, Tensor] = {}
        self.logits = torch.zeros(0)
        self.binding: Any = None
        self.held: list[Tensor] = []  # what the cache holds of a single row, as embeddings in pieces
        self.reused = 0
        self.longest = 0  # tokens in the longest row of the cache

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:
        """See Decoder.prefill."""
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest, batch = int(lengths.max()), len(prompts)
        has_kept = self._make_room(batch, longest + max(room, 1))
        start = self.reused = self._common(prompts[0]) if has_kept and batch == 1 else 0
        embeds = torch.zeros(batch, longest - start, self.layout.width, dtype=self.layout.dtype, device=self.device)
        for row, prompt in enumerate(prompts):
            embeds[row, : len(prompt) - start] = prompt[start:]
        self.lengths = lengths.to(self.device)
        self.binding = None  # of the steps of the run before: its sizes may be other ones
        self.held, self.longest = [], longest
        inputs = {
            "inputs_embeds": embeds,
            "position_ids": torch.arange(start, longest, device=self.device).expand(batch, longest - start).contiguous(),
            "seqlens_k": (self.lengths - 1).to(torch.int32),
            "total": torch.tensor([longest], dtype=torch.int32),
            "last": self.lengths - 1 - start,
        }
        logits = self._run(self._bind(inputs)).clone()
        self.held = [prompts[0].to(self.layout.dtype)] if batch == 1 else []  # after the run: one that failed holds nothing
        return logits

    def _common(self, prompt: Tensor) -> int:
        """How many tokens at the beginning of a prompt the cache holds; at least one is always read anew."""
        if not self.held:
            return 0
        held = torch.cat(self.held)
        most = min(len(held), len(prompt) - 1)
        same = (held[:most] == prompt[:most].to(held.dtype)).all(-1)
        kept = int(same.long().cumprod(0).sum())
        return kept if kept >= SHORTEST_REUSE else 0

    def step(self, tokens: Tensor) -> Tensor:
        """See Decoder.step. The logits are valid until the next step."""
        batch, self.longest = len(tokens), self.longest + 1
        assert self.longest <= self.cache[0].shape[2], "more tokens than prefill made room for"  # the operator does not look
        if self.binding is None:
            inputs = {
                "inputs_embeds": torch.empty(batch, 1, self.layout.width, dtype=self.layout.dtype, device=self.device),
                "position_ids": self.lengths[:, None].clone(),
                "seqlens_k": self.lengths.to(torch.int32),
                "total": (self.lengths.max() + 1).to(torch.int32).reshape(1).cpu(),
                "last": torch.zeros(batch, dtype=torch.int64, device=self.device),
            }
            self.step_inputs, self.binding = inputs, self._bind(inputs)
        else:
            for name in ("position_ids", "seqlens_k", "total"):
                self.step_inputs[name] += 1
        embedded = self.embed(tokens.cpu())
        self.step_inputs["inputs_embeds"].copy_(embedded[:, None])
        self.lengths += 1
        held, self.held = self.held, []
        logits = self._run(self.binding)
        if held:
            held.append(embedded.to(self.layout.dtype))
        self.held = held
        return logits

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        self.lengths, self.held = self.lengths[rows], []
        if len(rows) == len(self.cache[0]):
            for slab in self.cache:
                slab.copy_(slab.index_select(0, rows))
        else:
            self.cache = [slab.index_select(0, rows) for slab in self.cache]
        self.binding = None

    def _make_room(self, batch: int, tokens: int) -> bool:
        """Lay out the cache, or keep the one there is: what it holds is overwritten before it is read. Gives whether it was kept."""
        capacity = -(-tokens // ROUND) * ROUND
        if self.cache and len(self.cache[0]) == batch and capacity <= self.cache[0].shape[2] <= 2 * capacity:
            return True
        self.cache = []  # free the old memory before the new is taken
        shape = (batch, self.layout.kv_heads, capacity, self.layout.head_width)
        self.cache = [torch.zeros(shape, dtype=self.layout.dtype, device=self.device) for _ in self.names]
        return False

    def _bind(self, inputs: dict[str, Tensor]) -> Any:
        binding = self.session.io_binding()
        batch = len(inputs["last"])
        if len(self.logits) != batch:
            self.logits = torch.empty(batch, self.layout.vocab, dtype=self.layout.dtype, device=self.device)
        for name, tensor in inputs.items():
            _bind_one(binding.bind_input, name, tensor)
        for name, slab in zip(self.names, self.cache, strict=True):
            _bind_one(binding.bind_input, f"past.{name}", slab)
            _bind_one(binding.bind_output, f"present.{name}", slab)
        _bind_one(binding.bind_output, "logits", self.logits)
        self.kept = inputs  # the binding holds addresses only
        return binding

    def _run(self, binding: Any) -> Tensor:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()  # the session has a stream of its own, which does not wait for torch's
        self.session.run_with_iobinding(binding)
        return self.logits


def _bind_one(bind: Callable[..., None], name: str, tensor: Tensor) -> None:
    """Bind a tensor's own memory; onnxruntime does not look whether it is contiguous, so we do."""
    assert tensor.is_contiguous(), name
    bind(name, tensor.device.type, tensor.device.index or 0, TYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
