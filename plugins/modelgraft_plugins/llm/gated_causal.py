"""llm/causal with gated cross-attention grafted into it, in torch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import (
    Decoder,
    ExportError,
    LoadContext,
    Places,
    Problem,
    Remembering,
    SourceError,
    Tracer,
    as_tensor,
    choices,
    parameters_without_memory,
    seeded,
)
from modelgraft_plugins.llm import styles
from modelgraft_plugins.llm.causal import Causal
from modelgraft_plugins.llm.decoders import CausalDecoder, CausalSession
from modelgraft_plugins.llm.gated import BLOCK, IDEFICS_BLOCK, OWN_BLOCK, GatedCrossAttention
from modelgraft_plugins.llm.gated_blocks import GatedLayers
from modelgraft_plugins.llm.shown import Shown

EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight")  # how the input embeddings of the families are called


class GatedCausal(Causal):
    """A decoder-only language model whose words look at media. Shares the model of the host that it was made of."""

    def __init__(self, host: Causal, gated: GatedLayers) -> None:
        nn.Module.__init__(self)
        self.config, self.model, self.gated = host.config, host.model, gated
        gated.attach(self.model)

    def facts(self) -> dict[str, Any]:
        """See LanguageModel.facts; beside it the width of media, what of them is seen, and `media_ends`: behind these tokens nothing is."""
        found = super().facts()
        return {
            **found,
            "media_size": self.gated.config.media_size,
            "media_attends": self.gated.config.attends,
            "media_ends": found["end_ids"] if self.gated.config.family == "idefics" else [],
        }

    def torch_decoder(self) -> Decoder:
        """The decoder in torch."""
        decoder = GatedDecoder(self.model, self.gated, layers=self.config.states.layers)
        return Remembering(decoder, self.embed) if decoder.continues else decoder

    def trace(self, tracer: Tracer) -> dict[str, Any]:
        """Write the decoder, and the keys and values of media, as graphs. Raises ExportError as `Causal.trace` does."""
        from modelgraft_plugins.llm import gated_export

        self.keep_embeddings(tracer)
        layers, attends = self.layers_for(tracer), self.gated.config.attends
        try:
            return styles.noted("gated", gated_export.export(self.model, self.gated, tracer, layers=layers), attends=attends)
        except ExportError as error:
            remark = f"GroupQueryAttention cannot serve this model ({error}): its cache grows, and long answers slow down"
        grown = gated_export.export_growing(self.model, self.gated, tracer, layers=layers)
        return styles.noted("gated-growing", grown, remark=remark, attends=attends)


class GatedDecoder(CausalDecoder):
    """See CausalDecoder; its conditions say what a prompt sees. Keys and values of media are made once per prompt."""

    def __init__(self, model: Any, gated: GatedLayers, *, layers: Sequence[int] = ()) -> None:  # Any: a model of transformers
        super().__init__(model, layers=layers)
        self.gated = gated

    def start(
        self,
        prompts: Sequence[Tensor],
        *,
        conditions: Shown | None = None,
        room: int,
        states: bool = False,
        places: Places | None = None,
    ) -> GatedSession:
        """See Decoder."""
        assert conditions is not None
        return GatedSession(self, prompts, conditions, room=room, states=states, places=places)

    def alike(self, one: Shown, other: Shown, tokens: int) -> bool:
        """See Remembered."""
        return self.continues and one.is_like(other, tokens)


class GatedSession(CausalSession):
    """See CausalSession."""

    decoder: GatedDecoder

    def __init__(
        self, decoder: GatedDecoder, prompts: Sequence[Tensor], shown: Shown, *, room: int, states: bool, places: Places | None = None
    ) -> None:
        media, gated = as_tensor(shown.media), decoder.gated
        batch, images, latents = media.shape[:3]
        self.pairs = gated.keys_values(media.flatten(1, 2))  # keys and values of the blocks by turns
        self.medium = torch.arange(1, images + 1, device=media.device).repeat_interleave(latents).expand(batch, -1)
        rows = [as_tensor(row).to(media.device) for row in shown.seen]
        self.last = as_tensor(shown.new).to(media.device)  # what new tokens see, per row
        longest = max(map(len, rows))
        seen = torch.stack([nn.functional.pad(row, (longest - len(row), 0)) for row in rows])  # padding sees nothing
        with gated.looking(self.pairs, seen, self.medium):
            super().__init__(decoder, prompts, room=room, states=states, places=places)

    @property
    def looks(self) -> bool:
        """See LooksAhead: what several new tokens see is not told to its layers."""
        return False

    def step(self, tokens: Tensor) -> Tensor:
        """See Session."""
        with self.decoder.gated.looking(self.pairs, self.last[:, None], self.medium):
            return super().step(tokens)

    def extend(self, prompt: Tensor, *, conditions: Shown, room: int, states: bool, places: Places | None = None) -> None:
        """See Continuable."""
        seen = as_tensor(conditions.seen[0]).to(prompt.device)
        self.last = as_tensor(conditions.new).to(prompt.device)
        with self.decoder.gated.looking(self.pairs, seen[None, -len(prompt) :], self.medium):
            super().extend(prompt, conditions=None, room=room, states=states, places=places)

    def reorder(self, rows: Tensor) -> None:
        """See Session."""
        super().reorder(rows)
        self._pick(rows)

    def fork(self, rows: Tensor) -> GatedSession:
        """See Session."""
        other = super().fork(rows)
        assert isinstance(other, GatedSession)
        other._pick(rows)
        return other

    def _pick(self, rows: Tensor) -> None:
        self.pairs = [tensor.index_select(0, rows) for tensor in self.pairs]
        self.medium, self.last = self.medium[rows], self.last[rows]


def graft(config: GatedCrossAttention, context: LoadContext) -> Callable[[nn.Module], nn.Module]:
    """Give the function that puts the blocks into llm/causal.

    New blocks have seeded random numbers and closed gates. Those of a source were trained here, or are in the layout of OpenFlamingo or
    IDEFICS.
    Of what else its part holds, the host's input embeddings are taken over where it is an OpenFlamingo: they were trained.
    """

    def add(host: nn.Module) -> nn.Module:
        if not isinstance(host, Causal):
            found = f"{context.node.name} ({context.node.component.id}) has no layers that its adapter could stand before"
            raise SourceError(Problem("adapter-misplaced", found, context.node.place, "graft it into llm/causal", node=context.node.name))
        return GatedCausal(host, _layers(config, context, host).requires_grad_(not config.frozen))

    return add


def _layers(config: GatedCrossAttention, context: LoadContext, host: Causal) -> GatedLayers:
    if context.weights is None:
        with seeded(context.seed + zlib.crc32(context.node.name.encode())):
            return GatedLayers(config)
    with parameters_without_memory():
        gated = GatedLayers(config)
    files = context.weights.state()
    gated.load_state_dict(_state(config, files, gated, context), assign=True)
    if config.family == "flamingo":
        _take_embeddings(host, files, context)
    return gated


def _take_embeddings(host: Causal, files: Mapping[str, Tensor], context: LoadContext) -> None:
    """Give the host the input embeddings of a file, if it holds any; a head that was tied to them stays so.

    Raises SourceError for embeddings of another number of tokens, or of another width.
    """
    table = next((tensor for key, tensor in files.items() if key.endswith(EMBEDDINGS)), None)
    if table is None:
        return
    inner, head = host.model.get_input_embeddings(), host.model.get_output_embeddings()
    if table.shape != inner.weight.shape:
        node, (tokens, width), (known, own) = context.node, table.shape, inner.weight.shape
        found = f"its adapter's source holds embeddings of {tokens:,} tokens, {width:,} wide; {node.name} has {known:,}, {own:,} wide"
        hint = f"name the tokens that were added in {node.name}.extra_tokens, in their order"
        raise SourceError(Problem("weights-do-not-fit", found, node.place, hint, node=node.name))
    is_tied = head is not None and head.weight is inner.weight
    inner.weight = nn.Parameter(table.to(inner.weight.dtype), requires_grad=False)
    if is_tied:
        head.weight = inner.weight


def _state(config: GatedCrossAttention, files: Mapping[str, Tensor], gated: GatedLayers, context: LoadContext) -> dict[str, Tensor]:
    """The tensors of the blocks under their names here. Raises SourceError with what is missing, over, or of another shape."""
    found = dict[str, Tensor]()
    for key, tensor in files.items():
        if match := OWN_BLOCK.search(key):
            found[f"blocks.{match[1]}.{match[2]}"] = tensor
        elif config.family == "idefics":
            if (match := IDEFICS_BLOCK.search(key)) and int(match[1]) < len(config.layers):
                found[f"blocks.{config.layers[int(match[1])]}.layer.{match[2]}"] = tensor
        elif match := BLOCK.search(key):
            found[f"blocks.{match[1]}.{match[2]}"] = tensor
    wanted = gated.state_dict()
    wrong = [
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(f"{name} is left over" for name in sorted(found.keys() - wanted.keys())),
        *(
            f"{name} is {list(found[name].shape)}, wanted {list(wanted[name].shape)}"
            for name in sorted(wanted.keys() & found.keys())
            if found[name].shape != wanted[name].shape
        ),
        *(
            f"{name} is {found[name].dtype}, wanted floats"
            for name in sorted(wanted.keys() & found.keys())
            if not found[name].is_floating_point()
        ),
    ]
    if wrong:
        node = context.node
        text = f"the tensors of its adapter's source do not fit the blocks of {node.name}: {choices(wrong, most=4)}"
        hint = "the config of the adapter (every, num_heads, head_dim) and its weights belong to different models"
        raise SourceError(Problem("weights-do-not-fit", text, node.place, hint, node=node.name))
    return found
