"""What llm/causal and llm/seq2seq share when they run: a model, its tokenizer, and the loop over both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from modelgraft.backends.base import LoadContext, NodeRuntime
from modelgraft.errors import InputError, SourceError
from modelgraft.generation.decoder import Decoder
from modelgraft.generation.loop import Answers, generate
from modelgraft_plugins import huggingface
from modelgraft_plugins.llm.config import LanguageConfig
from modelgraft_plugins.llm.prompts import PromptWriter
from modelgraft_plugins.llm.tokens import Tokenizer, open_tokenizer


class Writer(nn.Module):
    """A language model of transformers under `model`, and what it needs to answer. Subclasses give it its decoder and inputs."""

    def __init__(self, config: LanguageConfig, model: Any) -> None:  # Any: a model of transformers
        super().__init__()
        self.config, self.model = config, model
        self.runtime = NodeRuntime(node="llm")
        self.tokenizer: Tokenizer | SourceError | None = None
        self.decoder: Decoder | None = None  # another backend may put its own here

    @property
    def optional_keys(self) -> tuple[str, ...]:
        """Tensors that a checkpoint may leave out."""
        return huggingface.optional_keys(self.model, prefix="model.")

    def after_load(self) -> None:
        """Tie what the checkpoint ties."""
        huggingface.tie(self.model)

    def prepare(self, context: LoadContext) -> None:
        """Open the tokenizer; a missing one is an error only when text is wanted."""
        self.runtime.node, self.runtime.component = context.node.name, context.node.component.id
        try:
            self.tokenizer = open_tokenizer(
                context, placeholder=self.config.placeholder, vocabulary=self.model.config.get_text_config(decoder=True).vocab_size
            )
        except SourceError as error:
            self.tokenizer = error

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings of some tokens, int64[n] -> float[n width]."""
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded

    def release_decoder(self) -> None:
        """Free every parameter but the input embeddings; a tied head is one with them."""
        kept = {id(parameter) for parameter in self.model.get_input_embeddings().parameters()}
        for module in self.model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in kept:
                    setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=False))

    def tokens(self) -> Tokenizer:
        """The tokenizer. Raises SourceError `no-tokenizer` when the source has none."""
        if isinstance(self.tokenizer, SourceError):
            raise self.tokenizer
        if self.tokenizer is None:
            raise InputError(f"{self.runtime.node}: there is no tokenizer, because nothing called prepare() after loading")
        return self.tokenizer

    def answer(self, decoder: Decoder, prompts: Sequence[Tensor], said: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Generate, and hand each piece of text on as an event."""
        emit = self.runtime.emit
        answers: Answers = generate(
            self.decoder or decoder,
            prompts,
            self.config.settings(end_ids=self.end_ids()),
            decode=self.tokens().decode,
            said=said,
            seed=self.runtime.node_seed(),
            check=self.runtime.check,
            emit=lambda row, piece: emit("token", text=piece, record=row),
        )
        return {"text": answers.texts, "logits": answers.logits}

    def end_ids(self) -> tuple[int, ...]:
        """The end tokens of the model, for when the config names none."""
        found = self.model.config.get_text_config(decoder=True).eos_token_id
        return tuple(found) if isinstance(found, list) else () if found is None else (found,)

    def read(self, values: Sequence[Any]) -> tuple[list[Tensor], list[list[int]]]:
        """Embed the prompt of every record, and give their token ids.

        Raises InputError for records that do not fit the template.
        """
        names = [field.name for field in self.config.fields]
        self._check_sizes(dict(zip(names, values, strict=True)))
        writer = PromptWriter(self.config, self.tokens(), node=self.runtime.node)
        count = max((len(value) for value in values), default=1)
        prompts = [writer.write({name: value[row] for name, value in zip(names, values, strict=True)}) for row in range(count)]
        table = self.model.get_input_embeddings()
        embedded = [prompt.embed(table, table.weight.device) for prompt in prompts]
        return embedded, [prompt.said for prompt in prompts]

    def _check_sizes(self, values: Mapping[str, Any]) -> None:
        width = self.config.hidden_size
        for field in self.config.fields:
            value = values[field.name]
            if isinstance(value, Tensor) and (value.ndim != 3 or width not in (None, value.shape[2])):
                shape = " ".join(map(str, value.shape))
                raise InputError(f"{self.runtime.node}.{field.name} got float[{shape}], wanted float[batch tokens {width}]")
            if field.tokens is not None and not (isinstance(value, Tensor) and value.shape[1] == field.tokens):
                got = f"{value.shape[1]} embeddings" if isinstance(value, Tensor) else "a text"
                raise InputError(f"{self.runtime.node}.{field.name} takes {field.tokens} embeddings, but got {got}")


def read_state(model: Any, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the names that a Writer has for them; `model`: what says those names."""
    return huggingface.convert(state, model, prefix="model.")


def fits(prompts: Sequence[Tensor], *, limit: int | None, new: int, node: str, kind: str) -> None:
    """Raise InputError when a prompt and the longest answer do not fit into the context, with the numbers."""
    longest = max(map(len, prompts))
    if limit is not None and longest + new > limit:
        found = f"{node}: the prompt has {longest:,} tokens and max_new_tokens is {new:,}, together {longest + new:,}"
        raise InputError(
            f"{found}; {kind} has {limit:,} positions: shorten the prompt, or set max_new_tokens to at most {max(limit - longest, 0):,}"
        )
