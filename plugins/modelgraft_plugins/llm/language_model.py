"""What the modules of llm/causal and llm/seq2seq share: a model of transformers, and its decoder as the part of a loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import Decoder, Remembering, Traced, Tracer
from modelgraft_plugins.llm.config import LanguageConfig
from modelgraft_plugins.llm.styles import EMBEDDINGS
from modelgraft_plugins.llm.teaching import Batch, Beginning, Found, Reading, both, found_in, scaled, state_of, states_at


class LanguageModel(Traced):
    """A language model of transformers under `model`."""

    reading: Reading | None = None  # of the last batch that it was taught
    beginning: Beginning | None = None  # what such batches begin with, once one was read

    def __init__(self, config: LanguageConfig, model: Any) -> None:  # Any: a model of transformers
        super().__init__()
        self.config, self.model = config, model

    def parts(self, names: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002 they are not declared, because no port says what a decoder is
        """Those of a Writer."""
        return {"decoder": self.torch_decoder(), "embed": self.embed, "teach": self.teach}

    @property
    def optional_keys(self) -> tuple[str, ...]:
        """Tensors that a checkpoint may leave out."""
        from modelgraft_plugins import huggingface

        return huggingface.optional_keys(self.model, prefix="model.")

    def after_load(self) -> None:
        """Tie what the checkpoint ties."""
        from modelgraft_plugins import huggingface

        huggingface.tie(self.model)

    def facts(self) -> dict[str, Any]:
        """What a writer must know of the model beside its config, as plain values."""
        config = self.model.config
        text = config.get_text_config(decoder=True)
        ends = text.eos_token_id
        start = getattr(config, "decoder_start_token_id", None)
        return {
            "vocabulary": text.vocab_size,
            "state_width": getattr(text, "word_embed_proj_dim", None) or text.hidden_size,
            "end_ids": list(ends) if isinstance(ends, list) else [] if ends is None else [ends],
            "start_id": start if start is not None else getattr(config, "pad_token_id", None),
        }

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings of some tokens, int64[n] -> float[n width]."""
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def teach(self, batch: Batch, own: Sequence[Sequence[int]] | None = None) -> Found:
        """The logits in front of the tokens of answers, with gradients; what all prompts begin with a frozen model reads once.

        own  of each record the places whose states, of the layers of the config, are wanted too
        """
        decoder = self.torch_decoder()
        can_share = (
            batch.conditions is None and isinstance(decoder, Remembering) and not any(one.requires_grad for one in self.parameters())
        )
        self.reading = Reading(batch.shared, can_share, sum(map(len, batch.prompts)), len(batch.prompts))
        wanted = own or [()] * len(batch.lessons)
        places = [both(one, ours) for one, ours in zip(batch.lessons, wanted, strict=True)]
        layers = (*(() if own is None else self.config.states.layers), -1)
        shared = batch.shared if can_share else 0
        self.beginning = self.beginning or Beginning()
        of = state_of(self) if shared else None
        states = states_at(decoder, batch.prompts, places, batch.conditions, shared=shared, layers=layers, beginning=self.beginning, of=of)
        read, stood = found_in(states, wanted, batch.lessons)
        logits = self.head(torch.cat(read)).split_with_sizes([len(one) for one in read])  # at once: the head is gone through once
        return Found(logits, () if own is None else stood)

    def told_of_training(self) -> str:
        """See training: what of the last batch was read once; "" for nothing, or where nothing was read."""
        return "" if self.reading is None else self.reading.told()

    def head(self, states: Tensor) -> Tensor:
        """float[n width] of what the head reads -> its logits, float[n vocabulary]."""
        config = self.model.config.get_text_config(decoder=True)
        return scaled(self.model.get_output_embeddings()(states), config.to_dict())

    def layers_for(self, tracer: Tracer) -> tuple[int, ...]:
        """The layers whose hidden states the graphs of a variant give; none for the plain one."""
        return self.config.states.layers if tracer.variant else ()

    def keep_embeddings(self, tracer: Tracer) -> None:
        """Keep the input embeddings beside the graphs, as their loop reads them."""
        size = self.facts()["vocabulary"]
        with torch.no_grad():
            table = self._table()
            tracer.keep(EMBEDDINGS, table[:size] if table is not None and len(table) >= size else self.embed(torch.arange(size)))

    def _table(self) -> Tensor | None:
        """What `embed` looks up in, where it does nothing else: no copy of it is made."""
        model: Any = self._modules["model"]
        module = model.get_input_embeddings()
        is_lookup = (
            type(module) is torch.nn.Embedding and module.max_norm is None and not module._forward_hooks and "forward" not in vars(module)
        )
        return module.weight.detach() if is_lookup else None

    @abstractmethod
    def torch_decoder(self) -> Decoder:
        """The decoder in torch."""
        ...


def read_state(model: Any, state: Mapping[str, Tensor], *, extra: int = 0) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names that a LanguageModel has for them; `model`: what says those names.

    extra  tokens that the model has and the checkpoint lacks: their rows of embeddings and head are the mean of the others, or those that
           fill the tables of the checkpoint up
    """
    from modelgraft_plugins import huggingface

    found = huggingface.convert(state, model, prefix="model.")
    return with_rows(found, model, extra)


def with_rows(state: dict[str, Tensor], model: Any, extra: int) -> dict[str, Tensor]:  # Any: as for read_state, or a plain one
    """The same with rows for added tokens in embeddings and head, where they lack them: the mean of the others.

    Tables that are filled up beyond the tokens there are, as those of OPT, are cut behind the added ones, which take the rows that fill up.
    """
    if not extra:
        return state
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = [parameter for end in ends if end is not None for parameter in end.parameters(recurse=False)]
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tensor = state.get(f"model.{name}")
        if tensor is None or not any(parameter is table for table in tables):
            continue
        if len(tensor) > len(parameter):
            state[f"model.{name}"] = tensor[: len(parameter)]
        elif len(tensor) + extra == len(parameter):
            mean = tensor.float().mean(0, keepdim=True).to(tensor.dtype)
            state[f"model.{name}"] = torch.cat([tensor, mean.expand(extra, *mean.shape[1:])])
    return state
