"""llm/seq2seq: encoder-decoder models of transformers, whole or their decoder alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import Tracer, Weights
from modelgraft_plugins import huggingface
from modelgraft_plugins.llm import Seq2SeqConfig, styles
from modelgraft_plugins.llm.decoders import CrossDecoder
from modelgraft_plugins.llm.language_model import LanguageModel, read_state
from modelgraft_plugins.llm.teaching import Batch, Found


class Seq2Seq(LanguageModel):
    """An encoder-decoder language model, or its decoder."""

    config: Seq2SeqConfig

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(config, _build(config))

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """Translate the tensors of a checkpoint; of one whose encoder is not wanted, leave the encoder's. `#decoder` is read too."""
        config, home = self.config, "model.decoder." if hasattr(self.model, "model") else "decoder."
        is_decoder = weights.view.part.rpartition(".")[2] == "decoder"
        named = {(home if is_decoder else "") + name: tensor for name, tensor in weights.state().items()}
        state = read_state(self.model, named, extra=len(config.added))
        return {name: tensor for name, tensor in state.items() if not _is_encoder(name)} if config.encoder == "none" else state

    def teach(self, batch: Batch, own: Sequence[Sequence[int]] | None = None) -> Found:
        """See LanguageModel.teach: the encoder reads what answers are about, and nothing is read once for several."""
        output = self.torch_decoder().read(batch.prompts, batch.conditions, states=own is not None)
        logits = [row[one.places] for row, one in zip(output.logits, batch.lessons, strict=True)]
        if own is None:
            return Found(logits)
        states = torch.stack([output.decoder_hidden_states[layer] for layer in self.config.states.layers], 1)
        return Found(logits, [row[:, places] for row, places in zip(states, own, strict=True)])

    def torch_decoder(self) -> CrossDecoder:
        """The decoder in torch, with the encoder where there is one."""
        return CrossDecoder(self.model, encoder=self._encoder(), layers=self.config.states.layers)

    def trace(self, tracer: Tracer) -> dict[str, Any]:
        """Write encoder, keys and values of the memory, and decoder as graphs. Raises ExportError."""
        from modelgraft_plugins.llm import growing_export

        encoder = self._encoder()
        layout = growing_export.export_crossing(self.model, tracer, encoder=encoder, layers=self.layers_for(tracer))
        if encoder is not None:
            self.keep_embeddings(tracer)
        return styles.noted("crossing", layout, encodes=encoder is not None)

    def facts(self) -> dict[str, Any]:
        """See LanguageModel.facts; beside it the width of what the encoder reads, or of the memory."""
        config = self.model.config
        return {**super().facts(), "width": getattr(config, "d_model", None) or config.hidden_size}

    def _encoder(self) -> Any:  # Any: of transformers
        return None if self.config.encoder == "none" else self.model.get_encoder()


def _architecture(config: Seq2SeqConfig) -> str:
    return str(config.family.more.get("architecture", "AutoModelForSeq2SeqLM"))


def _build(config: Seq2SeqConfig) -> Any:
    model = huggingface.build(config.facts(), _architecture(config))
    if config.tie_word_embeddings is False and model.get_output_embeddings() is not None:
        _untie(model)
    if config.encoder == "none":
        owner = model if hasattr(model, "encoder") else model.model
        del owner.encoder
    return model


def _untie(model: Any) -> None:
    """Give the head a table of its own: T5 of transformers 5 is built with a tied one, whatever its config says."""
    head = model.get_output_embeddings()
    own = nn.Linear(head.in_features, head.out_features, bias=head.bias is not None)
    model.set_output_embeddings(own)


def _is_encoder(name: str) -> bool:
    return name.startswith(("model.encoder.", "model.model.encoder."))
