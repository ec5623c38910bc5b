"""llm/seq2seq: encoder-decoder models of transformers, whole or their decoder alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modelgraft.plugin import Weights
from modelgraft_plugins import huggingface
from modelgraft_plugins.llm import Seq2SeqConfig
from modelgraft_plugins.llm.decoders import CrossDecoder
from modelgraft_plugins.llm.language_model import LanguageModel, read_state

if TYPE_CHECKING:
    from modelgraft_plugins.onnx.decoders import DecoderGraph


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
        state = read_state(self.model, named, extra=len(config.extra_tokens))
        return {name: tensor for name, tensor in state.items() if not _is_encoder(name)} if config.encoder == "none" else state

    def torch_decoder(self) -> CrossDecoder:
        """The decoder in torch, with the encoder where there is one."""
        encoder = None if self.config.encoder == "none" else self.model.get_encoder()
        return CrossDecoder(self.model, start=(0,), encoder=encoder)  # its loop says what answers begin with

    def export_decoder(self, folder: Path, *, half: bool) -> DecoderGraph:
        """Write encoder, keys and values of the memory, and decoder as ONNX graphs. Raises ExportError."""
        from modelgraft_plugins.llm import growing_export
        from modelgraft_plugins.onnx.decoders import DecoderGraph

        encoder = None if self.config.encoder == "none" else self.model.get_encoder()
        layout = growing_export.export_crossing(self.model, folder, half=half, encoder=encoder, start=0)
        return DecoderGraph("crossing", layout)


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
