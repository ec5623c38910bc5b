"""llm/causal: decoder-only models of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from modelgraft.checkpoints.weights import Weights
from modelgraft_plugins import huggingface
from modelgraft_plugins.llm import CausalConfig, idefics
from modelgraft_plugins.llm.decoders import CausalDecoder
from modelgraft_plugins.llm.language_model import LanguageModel, read_state
from modelgraft_plugins.llm.writer import CausalWriter

if TYPE_CHECKING:
    from modelgraft.backends.onnx.decoders import DecoderGraph

ARCHITECTURE = "AutoModelForCausalLM"


class Causal(LanguageModel):
    """A decoder-only language model."""

    writer_kind = CausalWriter

    def __init__(self, config: CausalConfig) -> None:
        super().__init__(config, huggingface.build(config.facts(), ARCHITECTURE))

    @staticmethod
    def from_checkpoint(config: CausalConfig, weights: Weights) -> dict[str, Tensor]:
        """Translate the tensors of a checkpoint, in any layout that transformers reads."""
        state = weights.state()
        if weights.view.root.get("model_type") == idefics.MODEL_TYPE:
            state = idefics.language_state(state)
        return read_state(huggingface.blueprint(config.facts(), ARCHITECTURE), state, extra=len(config.extra_tokens))

    def torch_decoder(self) -> CausalDecoder:
        """The decoder in torch."""
        return CausalDecoder(self.model)

    def export_decoder(self, folder: Path, *, half: bool) -> DecoderGraph:
        """Write the decoder as an ONNX graph: with GroupQueryAttention where it can serve, otherwise with a growing cache.

        Raises ExportError for a model that can be exported in neither way.
        """
        from modelgraft.backends.onnx.decoders import DecoderGraph
        from modelgraft.backends.onnx.keys import ExportError
        from modelgraft_plugins.llm import grouped_query, growing_export

        path = folder / "model.onnx"
        try:
            return DecoderGraph("grouped", grouped_query.export(self.model, path, half=half))
        except ExportError as error:
            remark = f"GroupQueryAttention cannot serve this model ({error}): its cache grows, and long answers slow down"
        return DecoderGraph("growing", growing_export.export_decoder(self.model, path, half=half), remark)
