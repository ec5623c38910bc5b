"""A decoder on ONNX Runtime: one graph reads prompts and writes tokens, its cache updated in place.

The graph takes, for a batch of right-padded rows,
    inputs_embeds  float[batch tokens width]     position_ids  int64[batch tokens]
    seqlens_k      int32[batch]                  tokens that each row holds after this call, minus one
    total          int32[1], on the host         the longest of them
    last           int64[batch]                  which position of each row the head reads
    past.key.i, past.value.i  float[batch kv_heads capacity head_width]
and gives logits float[batch vocab] and present.key.i, present.value.i, which are bound to the memory of the past: the
GroupQueryAttention operator then writes new keys and values where they belong and copies nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError
from modelgraft_plugins.onnx.calling import bind
from modelgraft_plugins.onnx.capturing import can_capture
from modelgraft_plugins.onnx.stepping import Lookup, Step
from modelgraft_plugins.onnx.streams import Order, order_of, unordered

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

    def cache_bytes(self, batch: int, capacity: int) -> int:
        """What the keys and values of so many rows and tokens take."""
        return 2 * self.layers * batch * self.kv_heads * capacity * self.head_width * self.dtype.itemsize


class OnnxDecoder:
    """A `generation.Decoder` over a session on such a graph. Rows are padded on the right.

    A single prompt that begins as the one before it (the same picture with another question, the next turn of a chat) is
    read from where they part: `reused` says how many tokens were kept. Batches are always read whole, because the operator
    takes several new tokens after a past for one row only.
    """

    def __init__(self, session: Any, layout: Layout, embed: Callable[[Tensor], Tensor], *, device: str, order: Order | None = None) -> None:
        """embed: int64[n] -> float[n width], the model's input embeddings on the host; see `Lookup` for what makes it fast.

        order  who waits for whom on the device; None: as `streams.order_of` says

        Raises InputError for a float32 graph on CUDA, where the operator takes half precision only.
        """
        if device != "cpu" and layout.dtype is torch.float32:
            raise InputError(
                f"this decoder is float32, and onnxruntime's GroupQueryAttention takes float16 on {device}: "
                f"run the node with precision float16, or on device cpu"
            )
        self.session, self.layout, self.embed = session, layout, embed
        self.device = torch.device(device)
        self.order = order or order_of(device)
        self.lookup = Lookup(embed, layout.dtype, self.device, by_numpy=self.order is None)
        self.names = [f"{kind}.{layer}" for layer in range(layout.layers) for kind in ("key", "value")]
        self.cache: list[Tensor] = []
        self.logits = torch.zeros(0)
        self.one: Step | None = None  # what reads one token per row, bound to the cache
        self.captures = self.order is not None and can_capture(session)
        self.graphs = count(1)  # ids of captured steps: one is never used for other addresses
        self.lengths: list[int] = []  # tokens of each row when the last prompt or reordering was over
        self.longest, self.capacity = 0, 0  # tokens in the longest row of the cache; how many there is room for
        self.prompt: Tensor | None = None  # of a single row, if what the cache holds is known
        self.said: list[Tensor] = []  # the tokens after it
        self.reused = 0

    def prefill(self, prompts: Sequence[Tensor], *, room: int) -> Tensor:
        """See Decoder.prefill. Raises InputError when there is not enough memory for the cache."""
        if self.order is None:
            return self._read(prompts, room)
        with self.order(*prompts):
            logits = self._read(prompts, room)
        self.order.hand_over([logits])
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """See Decoder.step. The logits are valid until the next step; the tokens must not be changed afterwards.

        Raises InputError for more tokens than `prefill` made room for, or another number than there are rows.
        """
        if self.longest >= self.capacity or len(tokens) != len(self.lengths):
            raise self._refusal(tokens)  # the operator does not look, and would write beyond the end of the cache
        prompt, self.prompt = self.prompt, None  # what the cache holds after a call that failed is not known
        if self.order is None:
            self._advance(tokens)
        else:
            with self.order(tokens):
                self._advance(tokens)
        self.longest += 1
        if prompt is not None:
            self.prompt = prompt
            self.said.append(tokens)
        return self.logits

    def reorder(self, rows: Tensor) -> None:
        """See Decoder.reorder."""
        steps = self.longest - max(self.lengths)
        self.lengths = [self.lengths[row] + steps for row in rows.tolist()]
        self.longest, self.prompt = max(self.lengths), None
        with (self.order or unordered)(rows):
            picked = rows.to(self.device)
            if len(rows) == len(self.cache[0]):
                for slab in self.cache:
                    slab.copy_(slab.index_select(0, picked))
                self._start_again()
            else:
                self._let_go()
                self.cache = [slab.index_select(0, picked) for slab in self.cache]

    def _read(self, prompts: Sequence[Tensor], room: int) -> Tensor:
        lengths = [len(prompt) for prompt in prompts]
        longest, batch = max(lengths), len(prompts)
        has_kept = self._make_room(batch, longest + max(room, 1))
        start = self.reused = self._common(prompts[0]) if has_kept and batch == 1 else 0
        self.prompt, self.said = None, []
        self.lengths, self.longest = lengths, longest
        held = torch.tensor(lengths)
        inputs = {
            "inputs_embeds": self._padded(prompts, start, longest),
            "position_ids": torch.arange(start, longest, device=self.device).expand(batch, longest - start).contiguous(),
            "seqlens_k": (held - 1).to(self.device, torch.int32),
            "total": torch.tensor([longest], dtype=torch.int32),
            "last": (held - 1 - start).to(self.device),
        }
        binding = self._bind(inputs)
        self.session.run_with_iobinding(binding, self.order.options if self.order is not None else None)
        self._start_again()
        self.prompt = prompts[0].to(self.layout.dtype) if batch == 1 else None  # after the run: one that failed holds nothing
        return self.logits.clone()

    def _advance(self, tokens: Tensor) -> None:
        if self.one is None:
            self.one = self._bind_step()
        self.one.run(tokens)

    def _padded(self, prompts: Sequence[Tensor], start: int, longest: int) -> Tensor:
        embeds = torch.zeros(len(prompts), longest - start, self.layout.width, dtype=self.layout.dtype, device=self.device)
        for row, prompt in enumerate(prompts):
            embeds[row, : len(prompt) - start] = prompt[start:]
        return embeds

    def _common(self, prompt: Tensor) -> int:
        """How many tokens at the beginning of a prompt the cache holds; at least one is always read anew."""
        if self.prompt is None:
            return 0
        held = self.prompt
        if self.said:
            held = torch.cat([held, self.embed(torch.cat(self.said).cpu()).to(held)])
        most = min(len(held), len(prompt) - 1)
        same = (held[:most] == prompt[:most].to(held)).all(-1)
        kept = int(same.long().cumprod(0).sum())
        return kept if kept >= SHORTEST_REUSE else 0

    def _make_room(self, batch: int, tokens: int) -> bool:
        """Lay out the cache, or keep the one there is: what it holds is overwritten before it is read. Gives whether it was kept."""
        capacity = -(-tokens // ROUND) * ROUND
        if self.cache and len(self.cache[0]) == batch and capacity <= self.capacity <= 2 * capacity:
            return True
        self._let_go()
        self.cache, self.capacity = [], 0  # free the old memory before the new is taken
        shape = (batch, self.layout.kv_heads, capacity, self.layout.head_width)
        try:
            cache = [torch.zeros(shape, dtype=self.layout.dtype, device=self.device) for _ in self.names]
        except (RuntimeError, MemoryError) as error:  # torch has no class of its own for the memory of the host
            size = self.layout.cache_bytes(batch, capacity) / 2**30
            found = f"the cache of {batch} rows of {capacity:,} tokens takes {size:,.1f} GiB, and {self.device} has no room for it"
            raise InputError(f"{found}: take fewer records at once, a shorter prompt, or a smaller max_new_tokens") from error
        self.cache, self.capacity = cache, capacity
        return False

    def _start_again(self) -> None:
        """Let the step go on from other lengths."""
        if self.one is not None:
            self.one.start(self.lengths)

    def _let_go(self) -> None:
        """Drop the step, whose memory is about to go."""
        if self.one is not None:
            self.captures = self.one.release()
        self.one = None

    def _bind_step(self) -> Step:
        batch = len(self.lengths)
        inputs = {
            "inputs_embeds": torch.empty(batch, 1, self.layout.width, dtype=self.layout.dtype, device=self.device),
            "position_ids": torch.empty(batch, 1, dtype=torch.int64, device=self.device),
            "seqlens_k": torch.empty(batch, dtype=torch.int32, device=self.device),
            "total": torch.empty(1, dtype=torch.int32),
            "last": torch.zeros(batch, dtype=torch.int64, device=self.device),
        }
        binding = self._bind(inputs)
        step = Step(
            self.session,
            binding,
            inputs,
            self.logits,
            capacity=self.capacity,
            lookup=self.lookup,
            order=self.order,
            graph=next(self.graphs) if self.captures else None,
        )
        step.start([length + self.longest - max(self.lengths) for length in self.lengths])
        return step

    def _bind(self, inputs: dict[str, Tensor]) -> Any:
        """Bind the cache and these inputs; those of a subclass must stay where they are as long as the step does, or `_let_go` of it."""
        binding, batch = self.session.io_binding(), len(inputs["last"])
        if len(self.logits) != batch:
            self.logits = torch.empty(batch, self.layout.vocab, dtype=self.layout.dtype, device=self.device)
        for name, tensor in inputs.items():
            bind(binding.bind_input, name, tensor)
        for name, slab in zip(self.names, self.cache, strict=True):
            bind(binding.bind_input, f"past.{name}", slab)
            bind(binding.bind_output, f"present.{name}", slab)
        bind(binding.bind_output, "logits", self.logits)
        binding.kept = inputs  # it holds addresses only
        return binding

    def _refusal(self, tokens: Tensor) -> InputError:
        if len(tokens) != len(self.lengths):
            return InputError(f"{len(tokens)} tokens came for {len(self.lengths)} rows; wanted: one for each row that was read")
        return InputError(f"more tokens than there is room for: the cache was made for {self.capacity:,}; give prefill a larger room")
