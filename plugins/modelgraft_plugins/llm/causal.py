"""llm/causal: decoder-only models. The plainest are built in `plain.py`, the others by transformers, which is imported for them alone."""

from __future__ import annotations

import importlib.util
from typing import Any

from torch import Tensor

from modelgraft.plugin import Decoder, ExportError, Remembering, Tracer, Weights
from modelgraft_plugins.llm import CausalConfig, known, plain, plain_kinds, styles
from modelgraft_plugins.llm.language_model import LanguageModel, read_state, with_rows

ARCHITECTURE = "AutoModelForCausalLM"


class Causal(LanguageModel):
    """A decoder-only language model."""

    def __init__(self, config: CausalConfig) -> None:
        facts = config.facts()
        super().__init__(config, plain.Model(facts) if plain_kinds.serves(facts) else _by_transformers(facts))

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """Translate the tensors of a checkpoint, in any layout that transformers reads."""
        state, plainest, extra = weights.state(), self._plain, len(self.config.added)
        if (made := known.whole_of(weights.view).language_state) is not None:
            state = made(state)
        if plainest is None:
            return read_state(self.model, state, extra=extra)
        if (found := plain.read(state, plainest.facts)) is not None:
            return with_rows({f"model.{name}": tensor for name, tensor in found.items()}, plainest, extra)
        from modelgraft_plugins import huggingface

        return read_state(huggingface.blueprint(plainest.facts, ARCHITECTURE), state, extra=extra)  # a layout that transformers knows

    @property
    def model(self) -> Any:  # Any: a model of transformers, which is only partly annotated
        """The model of transformers, whose layers adapters and exports know; made of the plain one, when asked for."""
        plainest = self._plain
        if plainest is not None:
            from modelgraft_plugins import huggingface

            model = huggingface.blueprint(plainest.facts, ARCHITECTURE)
            model.load_state_dict(plainest.state_dict(), assign=True)
            huggingface.tie(model)
            self.model = model.requires_grad_(requires_grad=False).eval()
        return self._modules["model"]

    @model.setter
    def model(self, _model: Any) -> None:
        """Never called: torch.nn.Module takes modules before properties hear of them. It says that they may be set."""

    @property
    def _plain(self) -> plain.Model | None:
        """The model where it is a plain one, still."""
        found = self._modules["model"]
        return found if isinstance(found, plain.Model) else None

    @property
    def optional_keys(self) -> tuple[str, ...]:
        """See LanguageModel.optional_keys."""
        return () if self._plain is not None else super().optional_keys

    def after_load(self) -> None:
        """See LanguageModel.after_load."""
        if self._plain is not None:
            self._plain.tie()
        else:
            super().after_load()

    @property
    def keeps_stored(self) -> bool:
        """See KeepsStored: what is put together is read from the file tensor by tensor; tracing wants one dtype."""
        return self._is_plainly_read and self._known() is not None

    def facts(self) -> dict[str, Any]:
        """See LanguageModel.facts."""
        if self._plain is None:
            return super().facts()
        facts = self._plain.facts
        ends = facts["eos_token_id"]
        end_ids = list(ends) if isinstance(ends, list) else [ends]
        return {
            "vocabulary": facts["vocab_size"],
            "state_width": facts["hidden_size"],
            "end_ids": end_ids,
            "start_id": facts.get("pad_token_id"),
        }

    def embed(self, ids: Tensor) -> Tensor:
        """See LanguageModel.embed."""
        if self._plain is None:
            return super().embed(ids)
        embedded: Tensor = self._plain.model.embed_tokens(ids)
        return embedded

    def head(self, states: Tensor) -> Tensor:
        """See LanguageModel.head."""
        if self._plain is None:
            return super().head(states)
        logits: Tensor = self._plain.lm_head(states)
        return logits

    def for_adapters(self) -> Causal:
        """The same with the model of transformers, whose layers adapters look for by their names and classes."""
        _ = self.model
        return self

    def torch_decoder(self) -> Decoder:
        """The decoder in torch."""
        if self._plain is not None and self.config.reads == "onward":
            return Remembering(plain.Decoder(self._plain, layers=self.config.states.layers), self.embed)
        from modelgraft_plugins.llm.decoders import CausalDecoder

        decoder = CausalDecoder(self.model, reads=self.config.reads, layers=self.config.states.layers)
        return Remembering(decoder, self.embed) if decoder.continues else decoder

    def trace(self, tracer: Tracer) -> dict[str, Any]:
        """Write the decoder as a graph: put together where its shape is known, otherwise traced; with GroupQueryAttention where it can
        serve, otherwise with a growing cache.

        Raises ExportError for a model that can be exported in neither way, and for one that hears inner layers of an eye
        and cannot have GroupQueryAttention.
        """
        deep = self.config.deep if self.config.hears else 0
        if deep and self.config.reads != "onward":
            raise ExportError("its first layers hear inner layers of an eye, and its prompts are read in both directions: not both")
        self.keep_embeddings(tracer)
        if self._is_plainly_read and (known := self._known()) is not None:
            from modelgraft_plugins.llm import built

            return styles.noted("grouped", built.export(known, tracer, layers=self.layers_for(tracer)))
        return self._traced(tracer, deep)

    @property
    def _is_plainly_read(self) -> bool:
        """Whether each token sees those before it, and nothing is added to what they are."""
        return self.config.reads == "onward" and not (self.config.hears and self.config.deep)

    def _traced(self, tracer: Tracer, deep: int) -> dict[str, Any]:
        """Trace the decoder. Raises ExportError as `trace` does."""
        from modelgraft_plugins.llm import grouped_query, growing_export

        if (reads := self.config.reads) != "onward":
            remark = "tokens of its prompts see each other in both directions: its cache grows, and long answers slow down"
            layout = growing_export.export_decoder(self.model, tracer, layers=self.layers_for(tracer), reads=reads)
            return styles.noted("growing", layout, remark=remark)
        try:
            return styles.noted("grouped", grouped_query.export(self.model, tracer, layers=self.layers_for(tracer), deep=deep))
        except ExportError as error:
            if deep:  # a cache that grows knows nothing of them
                raise ExportError(f"its first layers hear inner layers of an eye, and {error}") from error
            remark = f"GroupQueryAttention cannot serve this model ({error}): its cache grows, and long answers slow down"
        return styles.noted("growing", growing_export.export_decoder(self.model, tracer, layers=self.layers_for(tracer)), remark=remark)

    def _known(self) -> Any:
        """The model as `built.py` puts its graph together; None where it must be traced."""
        if importlib.util.find_spec("onnx_ir") is None:
            return None  # tracing says what is missing
        from modelgraft_plugins.llm import built

        return built.known_of(self._modules["model"], self.config.max_position_embeddings)


def _by_transformers(facts: dict[str, Any]) -> Any:  # Any: a model of transformers, which is only partly annotated
    from modelgraft_plugins.llm import headed

    return headed.build(facts)
