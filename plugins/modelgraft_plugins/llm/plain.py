"""Decoder-only models of the plainest kind, in torch alone: LLaMA and its nearest relatives, see `plain_kinds.py`.

What transformers builds for them does the same, but importing it takes longer than all else of a start, and its code for every kind of
attention, cache and device takes a share of every token. So a model whose config says nothing beyond the tables there is built here;
any key that is not in them, and whatever is to change or export the model, has transformers build it: see `causal.py`.

Sources: Touvron et al. 2023 (arXiv 2302.13971), Ainslie et al. 2023 (arXiv 2305.13245, grouped queries), Su et al. 2021 (arXiv 2104.09864,
rotary positions). Names of modules are those of the published files. Checked against transformers in tests/plugins/test_llm_plain.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError, Places, picked
from modelgraft_plugins.llm.plain_kinds import BIASED, NORMED, Facts, frequencies, head_size


class Model(nn.Module):
    """A whole model: embeddings, layers and head, under the names of its files."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.facts, self.model = dict(facts), Body(facts)
        self.lm_head = nn.Linear(facts["hidden_size"], facts["vocab_size"], bias=False)
        if facts["tie_word_embeddings"]:
            self.lm_head.weight = self.model.embed_tokens.weight
        spread = facts.get("initializer_range") or 0.02  # as transformers draws new weights
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=spread)

    def get_input_embeddings(self) -> nn.Embedding:
        """As models of transformers call it."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """As models of transformers call it."""
        return self.lm_head

    def tie(self) -> None:
        """Make the head the embedding table where the config says so; a file that holds another for it has its way."""
        one, other = self.lm_head.weight, self.model.embed_tokens.weight
        if self.facts["tie_word_embeddings"] and one is not other and (one.data_ptr() == other.data_ptr() or torch.equal(one, other)):
            self.lm_head.weight = other


class Body(nn.Module):
    """All but the head."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(facts["vocab_size"], facts["hidden_size"])
        self.layers = nn.ModuleList(Layer(facts) for _ in range(facts["num_hidden_layers"]))
        self.norm = Norm(facts["hidden_size"], facts["rms_norm_eps"])
        self.facts, self.head_size = dict(facts), head_size(facts)

    def turns(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angles of some positions, int64[rows tokens] -> dtype[rows 1 tokens head_size] each."""
        angles = positions[:, None, :, None].float() * frequencies(self.facts, positions.device)
        angles = torch.cat((angles, angles), -1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


class Layer(nn.Module):
    """Attention, then the gated feed-forward, each behind a norm and added to what it reads."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        width, epsilon = facts["hidden_size"], facts["rms_norm_eps"]
        self.self_attn = Attention(facts)
        self.mlp = FeedForward(width, facts["intermediate_size"])
        self.input_layernorm, self.post_attention_layernorm = Norm(width, epsilon), Norm(width, epsilon)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], remember: Remember, mask: Tensor | None) -> Tensor:
        """Read float[batch tokens width]."""
        x = x + self.self_attn(self.input_layernorm(x), turns, remember, mask)
        fed: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + fed


# Takes the keys and values of new positions, float[batch pairs tokens head_size]; gives those of all positions that may be read.
Remember = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Grouped queries: several heads read the same keys and values."""

    def __init__(self, facts: Facts) -> None:
        super().__init__()
        width, heads, bias = facts["hidden_size"], facts["num_attention_heads"], BIASED[facts["model_type"]]
        pairs, self.head_size = facts.get("num_key_value_heads") or heads, head_size(facts)
        self.group = heads // pairs
        self.q_proj = nn.Linear(width, heads * self.head_size, bias=bias)
        self.k_proj = nn.Linear(width, pairs * self.head_size, bias=bias)
        self.v_proj = nn.Linear(width, pairs * self.head_size, bias=bias)
        self.o_proj = nn.Linear(heads * self.head_size, width, bias=False)
        if facts["model_type"] in NORMED:
            self.q_norm, self.k_norm = (Norm(self.head_size, facts["rms_norm_eps"]) for _ in range(2))
        self.is_normed = facts["model_type"] in NORMED

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor], remember: Remember, mask: Tensor | None) -> Tensor:
        """Attend from new positions to all that are remembered.

        mask  bool[batch 1 tokens keys], True where a token may read; None: each reads all that are not behind it
        """
        split = (*x.shape[:2], -1, self.head_size)
        query, key, value = (part(x).view(split).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj))
        if self.is_normed:
            query, key = self.q_norm(query), self.k_norm(key)
        keys, values = remember(turned(key, turns), value)
        mixed = self._mixed(turned(query, turns), keys, values, mask)  # [batch heads tokens head_size]
        joined: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))
        return joined

    def _mixed(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Call the operator in the ways in which transformers does, so that both give the same bits."""
        attend = functional.scaled_dot_product_attention
        if mask is None:
            return attend(query, keys, values, is_causal=query.shape[2] > 1, enable_gqa=self.group > 1)
        if query.shape[2] > 1:
            keys, values = (part.repeat_interleave(self.group, 1) if self.group > 1 else part for part in (keys, values))
            return attend(query, keys, values, attn_mask=mask)
        grouped = query.reshape(query.shape[0], keys.shape[1], self.group, self.head_size)  # the heads of a group stand where tokens do
        return attend(grouped, keys, values, attn_mask=mask).reshape(query.shape)


def turned(x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate each pair (i, i + half) of a head by the angle of its position."""
    first, second = x.chunk(2, -1)
    return x * turns[0] + torch.cat((-second, first), -1) * turns[1]


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to float[batch tokens width]."""
        down: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return down


class Norm(nn.Module):
    """RMS norm, computed in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Apply it along the last axis."""
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)).to(x.dtype)


# -- reading files, and the token loop ------------------------------------------------------------------------------------


def read(state: Mapping[str, Tensor], facts: Facts) -> dict[str, Tensor] | None:
    """The tensors of a file that has the names of `Model`; None for any other layout, which transformers may know."""
    found = {name: tensor for name, tensor in state.items() if not name.endswith("rotary_emb.inv_freq")}  # old files hold the angles
    if facts["tie_word_embeddings"] and "model.embed_tokens.weight" in found:
        found.setdefault("lm_head.weight", found["model.embed_tokens.weight"])
    with torch.device("meta"):
        wanted = Layer(facts).state_dict().keys()
    names = {f"model.layers.{layer}.{name}" for layer in range(facts["num_hidden_layers"]) for name in wanted}
    return found if found.keys() == names | {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} else None


class Decoder:
    """A model in the token loop: see modelgraft.plugin.Decoder. Shorter prompts are padded on the left."""

    def __init__(self, model: Model, *, layers: Sequence[int] = ()) -> None:
        """layers: whose hidden states `states` gives: 0 for the embeddings, -1 for what the head reads."""
        self.model, self.layers = model, tuple(layers)

    def start(
        self,
        prompts: Sequence[Tensor],
        *,
        conditions: Any = None,  # noqa: ARG002 there are none
        room: int,
        states: bool = False,
        places: Places | None = None,
    ) -> Session:
        """See Decoder."""
        return Session(self, prompts, room=room, states=states, places=places)

    def alike(self, one: Any, other: Any, tokens: int) -> bool:  # noqa: ARG002 there are no conditions
        """See Remembered."""
        return True


class Session:
    """What was read: see modelgraft.plugin.Session. Its memory is laid out once, for the prompts and `room` tokens behind them."""

    logits: Tensor
    states: Tensor | None = None

    def __init__(self, decoder: Decoder, prompts: Sequence[Tensor], *, room: int, states: bool, places: Places | None = None) -> None:
        self.decoder, self.model, self.length, self.gives_states = decoder, decoder.model, 0, states
        longest = max(map(len, prompts))
        capacity, first = longest + max(room, 1), prompts[0]
        embedded = first.new_zeros((len(prompts), longest, first.shape[1]))
        for row, prompt in enumerate(prompts):
            embedded[row, longest - len(prompt) :] = prompt
        slots = torch.arange(capacity, device=first.device)[None]
        padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=first.device)[:, None]
        is_padded = bool((padding > 0).any())
        self.mask: Tensor | None = slots >= padding if is_padded else None  # bool[batch capacity]: what may be read
        self.positions = (slots - padding).clamp_(min=0) if is_padded else slots  # int64[1 or batch, capacity]
        self.slabs = self._empty(len(prompts), capacity, first)  # keys and values of each layer, float[batch pairs capacity head_size]
        self._read(embedded, places, [longest - len(prompt) for prompt in prompts])

    @property
    def bytes(self) -> int:
        """See Continuable."""
        return sum(keys.nbytes + values.nbytes for keys, values in self.slabs)

    @property
    def device(self) -> torch.device:
        """See Continuable."""
        return self.positions.device

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        return self._read(self.model.model.embed_tokens(tokens[:, None]))

    @property
    def looks(self) -> bool:
        """See LooksAhead."""
        return True

    def look(self, tokens: Tensor) -> Tensor:
        """See LooksAhead."""
        return self._read(self.model.model.embed_tokens(tokens), every=True)

    def extend(self, prompt: Tensor, *, conditions: Any, room: int, states: bool, places: Places | None = None) -> None:  # noqa: ARG002 there are none
        """See Continuable."""
        self._make_room(self.length + len(prompt) + max(room, 1))
        self.gives_states, self.states = states, None
        self._read(prompt[None], places, [-self.length])

    def go_on(self, rows: Tensor, places: Places) -> None:
        """See teaching.GoesOn."""
        self._read(rows, places, [-self.length] * len(rows))

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        self.slabs = [(keys[rows], values[rows]) for keys, values in self.slabs]
        if self.mask is not None:
            self.mask, self.positions = self.mask[rows], self.positions[rows]

    def fork(self, rows: Tensor) -> Session:
        """See Session."""
        other = copy.copy(self)
        other.reorder(rows)
        return other

    def rewind(self, tokens: int) -> None:
        """See Session."""
        if tokens > self.length:
            raise InputError(f"{tokens} tokens cannot be taken back of {self.length} that were read")
        self.length -= tokens

    def close(self) -> None:
        """See Session."""
        self.slabs = []

    def discard(self) -> None:
        """See Continuable."""
        self.close()

    def _make_room(self, capacity: int) -> None:
        """Let a single row go on to so many tokens."""
        keys, _ = self.slabs[0]
        if capacity <= keys.shape[2]:
            return
        old, self.slabs = self.slabs, self._empty(1, capacity, keys)
        for (keys, values), (held, held_values) in zip(self.slabs, old, strict=True):
            keys[:, :, : self.length], values[:, :, : self.length] = held[:, :, : self.length], held_values[:, :, : self.length]
        self.positions = torch.arange(capacity, device=keys.device)[None]

    def _read(self, x: Tensor, places: Places | None = None, offsets: Sequence[int] = (), *, every: bool = False) -> Tensor:
        """Read new positions, float[batch tokens width]; the logits after the last, or after every one. offsets: see Places.index."""
        body, start, end = self.model.model, self.length, self.length + x.shape[1]
        turns, mask = body.turns(self.positions[:, start:end], x.dtype), self._mask(start, end)
        look = self._looking(x, places, offsets)
        seen = [look(x)] if look is not None else []
        for index, layer in enumerate(body.layers):
            x = layer(x, turns, self._remembering(index, start, end), mask)
            if look is not None:
                seen.append(look(x))
        self.length = end
        normed = body.norm(x)
        read = normed if every else normed[:, -1:]  # a slice of what is normed: transformers' own bits
        if read.dtype is torch.bfloat16:  # of which a slice has torch copy the whole head, and multiply 20 times as slowly (2.13)
            read = read.clone(memory_format=torch.contiguous_format)
        if look is not None:
            seen[-1] = look(normed)
            found = torch.stack([seen[layer] for layer in self.decoder.layers], 1)  # [batch layers places width]
            self.states = found[:, :, -1] if places is None else places.take(found)
        logits: Tensor = self.model.lm_head(read)
        self.logits = logits[:, -1]
        return logits if every else self.logits

    def _looking(self, x: Tensor, places: Places | None, offsets: Sequence[int]) -> Callable[[Tensor], Tensor] | None:
        """What picks the positions whose states are given: places of the prompt, and the last one; None where nobody asks."""
        if places is not None:
            index = places.index([x.shape[1] - 1] * len(x), x.device, offsets=offsets)
            return lambda states: picked(states, index)
        return (lambda states: states[:, -1:]) if self.gives_states else None

    def _mask(self, start: int, end: int) -> Tensor | None:
        if self.mask is None and (start == 0 or end - start == 1):
            return None
        tokens, keys = (
            torch.arange(start, end, device=self.positions.device)[:, None],
            torch.arange(end, device=self.positions.device)[None],
        )
        if self.mask is None:
            return (keys <= tokens)[None, None]
        seen = self.mask[:, None, None, :end]  # [batch 1 1 keys]
        if end - start == 1:
            return seen
        return (seen & (keys <= tokens)) | (keys == tokens)  # padding reads itself, or it would read nothing

    def _remembering(self, index: int, start: int, end: int) -> Remember:
        def remember(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
            all_keys, all_values = self.slabs[index]
            all_keys[:, :, start:end], all_values[:, :, start:end] = keys, values
            return (keys, values) if start == 0 else (all_keys[:, :, :end], all_values[:, :, :end])

        return remember

    def _empty(self, batch: int, capacity: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        facts = self.model.facts
        pairs = facts.get("num_key_value_heads") or facts["num_attention_heads"]
        shape = (batch, pairs, capacity, self.model.model.head_size)
        return [(like.new_empty(shape), like.new_empty(shape)) for _ in self.model.model.layers]
