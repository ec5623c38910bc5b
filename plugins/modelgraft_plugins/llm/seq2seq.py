"""llm/seq2seq: encoder-decoder models of transformers, whole or their decoder alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modelgraft.checkpoints.weights import Weights
from modelgraft.errors import InputError
from modelgraft_plugins import huggingface
from modelgraft_plugins.llm import Seq2SeqConfig
from modelgraft_plugins.llm.decoders import CrossDecoder
from modelgraft_plugins.llm.writer import Writer, read_state

if TYPE_CHECKING:
    from modelgraft.backends.onnx.decoders import DecoderGraph


class Seq2Seq(Writer):
    """An encoder-decoder language model, or its decoder."""

    config: Seq2SeqConfig

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__(config, _build(config))

    @staticmethod
    def from_checkpoint(config: Seq2SeqConfig, weights: Weights) -> dict[str, Tensor]:
        """Translate the tensors of a checkpoint; of one whose encoder is not wanted, leave the encoder's. `#decoder` is read too."""
        blueprint = huggingface.blueprint(config.facts(), _architecture(config))
        home = "model.decoder." if hasattr(blueprint, "model") else "decoder."
        is_decoder = weights.view.part.rpartition(".")[2] == "decoder"
        state = read_state(blueprint, {(home if is_decoder else "") + name: tensor for name, tensor in weights.state().items()})
        return {name: tensor for name, tensor in state.items() if not _is_encoder(name)} if config.encoder == "none" else state

    def forward(self, *values: Any) -> dict[str, Any]:
        """Answer each record.

        values   the fields of the template in order, or the memory float[batch frames width]
        returns  text: one string per record; logits: float[batch vocab]
        """
        prompts = list(values[0]) if self.config.encoder == "none" else self.read(values)[0]
        return self.answer(self.torch_decoder(), prompts, [self.start_ids()] * len(prompts))

    def torch_decoder(self) -> CrossDecoder:
        """The decoder in torch, with the encoder where there is one."""
        encoder = None if self.config.encoder == "none" else self.model.get_encoder()
        return CrossDecoder(self.model, start=self.start_ids(), encoder=encoder)

    def export_decoder(self, folder: Path, *, half: bool) -> DecoderGraph:
        """Write encoder, keys and values of the memory, and decoder as ONNX graphs. Raises ExportError."""
        from modelgraft.backends.onnx.decoders import DecoderGraph
        from modelgraft_plugins.llm import growing_export

        encoder = None if self.config.encoder == "none" else self.model.get_encoder()
        layout = growing_export.export_crossing(self.model, folder, half=half, encoder=encoder, start=self.start_ids()[0])
        return DecoderGraph("crossing", layout)

    def start_ids(self) -> tuple[int, ...]:
        """The tokens that every answer begins with. Raises InputError for one that the tokenizer does not know."""
        found = [(token, self.tokens().id_of(token)) for token in self.config.decoder_prompt]
        unknown = [token for token, number in found if number is None]
        if unknown:
            raise InputError(f"{self.runtime.node}.decoder_prompt: the tokenizer has no token {', '.join(map(repr, unknown))}")
        given = tuple(number for _, number in found if number is not None) or self.config.decoder_start_ids
        if given:
            return given
        config = self.model.config
        first = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.pad_token_id
        if first is None:
            raise InputError(f"{self.runtime.node}: {self.config.kind} names no decoder_start_token_id; set decoder_start_ids")
        return (int(first),)


def _architecture(config: Seq2SeqConfig) -> str:
    return "AutoModelForSpeechSeq2Seq" if config.kind == "whisper" else "AutoModelForSeq2SeqLM"


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
