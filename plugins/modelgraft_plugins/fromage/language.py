"""An OPT that is given its answers, as FROMAGe is trained. Source: `FromageModel.forward` of its code.

Places of a record: picture, prefix, caption up to [RET], and what fills up. Nothing tells what fills up from what is there: no place
before it sees it, and positions count it, as published.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modelgraft.plugin import InputError, LoadContext, NodeRuntime, Problem, SourceError
from modelgraft_plugins import huggingface, kept_tokenizers
from modelgraft_plugins.fromage.grafting import rescale

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.fromage import LanguageConfig

NOTHING = -100  # the label of a place where no token is to be written
TABLES = ("model.model.decoder.embed_tokens.weight", "model.lm_head.weight")


class Language(nn.Module):
    """Captions, and for `task: caption` pictures, to logits, labels and targets; for `task: match` to states at [RET] too.

    ids      int64[batch caption_tokens];  mask  bool of the same shape, True where there is a token; None: where it is not what fills up
    image    float[batch image_tokens text_width], for `task: caption`
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.model: Any = huggingface.build(config.facts(), "OPTForCausalLM")  # Any: a model of transformers
        self.ret: nn.Parameter | None
        self.register_parameter("ret", None)  # the row of [RET], once it is grafted
        self.pad_id = config.model.get("pad_token_id", 1)
        self.prefix: tuple[int, ...] = ()
        self.runtime, self.node = NodeRuntime("fromage/language"), ""

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors in the names of transformers' memory, with as many rows as there are tokens."""
        state = huggingface.convert(weights.state(), self.model, prefix="model.")
        for name in TABLES:
            if name in state:
                state[name] = resized(state[name], self.config.vocab_size, self.config.added)
        return state

    def after_load(self) -> None:
        """Tie the head to the table."""
        huggingface.tie(self.model)

    def prepare(self, context: LoadContext) -> None:
        """Cut the prefix into tokens. Raises SourceError where there is one and no tokenizer."""
        self.node = context.node.name
        if not self.config.prefix:
            return
        if context.weights is None:
            found = f"{self.node} has the prefix {self.config.prefix!r} and no tokenizer, because its weights are drawn"
            raise SourceError(Problem("no-tokenizer", found, context.node.place, 'name a checkpoint, or set prefix: ""', node=self.node))
        inner = kept_tokenizers.open_tokenizer(context.weights.home)
        self.prefix = tuple(inner(self.config.prefix, add_special_tokens=False).input_ids)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed of a run."""
        self.runtime = runtime

    def after_step(self) -> None:
        """Bring the row of [RET], where it is trained, to the mean length of the others, as published."""
        if self.ret is not None and self.ret.requires_grad:
            rescale(self.ret, self.model.get_input_embeddings().weight, self.config.ret)

    def forward(self, ids: Tensor, mask: Tensor | None = None, image: Tensor | None = None) -> dict[str, Tensor]:
        """Lay the places out, read them, and say what stands there."""
        there = ids != self.pad_id if mask is None else mask
        before = self.embed(ids.new_tensor(self.prefix)).expand(ids.shape[0], -1, -1)  # [batch prefix width]
        first = [before] if image is None else [image.to(before.dtype), before]
        embedded = torch.cat([*first, self.embed(ids)], 1)
        lead = embedded.shape[1] - ids.shape[1]
        is_written = there if image is None else (there & (ids != self.config.ret)).int().cummin(1).values.bool()
        labels = functional.pad(ids.masked_fill(~is_written, NOTHING), (lead, 0), value=NOTHING)
        hidden = self._read(embedded, lead + is_written.sum(1)) if self._is_folded(ids.shape[0]) else self._states(embedded)
        targets = functional.pad(labels[:, 1:], (0, 1), value=NOTHING)
        found = {"logits": self._logits(hidden[-1]), "labels": labels, "targets": targets}
        if image is not None:
            return found
        last = (lead + there.sum(1) - 1)[:, None, None].expand(-1, 1, hidden[-1].shape[-1])
        return {**found, "states": torch.stack([state.gather(1, last) for state in hidden], 1)}

    def embed(self, ids: Tensor) -> Tensor:
        """The embeddings of tokens, that of [RET] from the row that is trained."""
        embedded: Tensor = self.model.get_input_embeddings()(ids)
        return embedded if self.ret is None else torch.where((ids == self.config.ret)[..., None], self.ret[0], embedded)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(hidden)
        if self.ret is None or self.model.lm_head.weight is not self.model.get_input_embeddings().weight:
            return logits
        token = self.config.ret
        return torch.cat([logits[..., :token], hidden @ self.ret.T, logits[..., token + 1 :]], -1)

    def _states(self, embedded: Tensor) -> list[Tensor]:
        """What each layer that is asked for gives, and last what the head reads: float[rows places width] each."""
        layers = self.config.layers if self.config.task == "match" else (-1,)
        is_deep = any(layer != -1 for layer in layers)
        given = self.model.model(inputs_embeds=embedded, output_hidden_states=is_deep, use_cache=False)
        return [given.last_hidden_state if layer == -1 else given.hidden_states[layer] for layer in layers]

    # -- folding ------------------------------------------------------------------------------------------------------

    def _is_folded(self, count: int) -> bool:
        """Draw whether the captions of this batch are folded. Raises InputError for a batch without partners."""
        if not self.config.concat or self.config.task == "match":
            return False
        if count % 2:
            found = f"{self.node or 'fromage/language'}: a batch of {count} cannot be folded, two captions to a row (concat)"
            raise InputError(f"{found}: give an even number of records, or set concat: 0")
        generator = torch.Generator().manual_seed(self.runtime.seed + zlib.crc32(self.node.encode()))
        return float(torch.rand((), generator=generator)) < self.config.concat

    def _read(self, embedded: Tensor, lengths: Tensor) -> list[Tensor]:
        """Read records in pairs, and take them apart again; lengths int64[batch]: places up to the first that is not written."""
        order = folded(lengths, embedded.shape[1])  # [batch/2 2*places]
        wide = order[..., None].expand(-1, -1, embedded.shape[-1])
        rows = embedded.reshape(order.shape[0], -1, embedded.shape[-1]).gather(1, wide)
        (states,) = self._states(rows)
        back = order.argsort(1)[..., None].expand(-1, -1, states.shape[-1])
        return [states.gather(1, back).reshape(embedded.shape[0], -1, states.shape[-1])]


def folded(lengths: Tensor, places: int) -> Tensor:
    """Which places of two records stand where in the row of both: int64[batch/2 2*places].

    What is there of the first, then of the second, so that the second sees the first; behind both what fills up, of the first and of
    the second.

    lengths  int64[batch]: what is there of each record;  places  of a record
    """
    own = torch.arange(2 * places, device=lengths.device)
    is_over = own % places >= lengths.view(-1, 2).repeat_interleave(places, 1)  # [batch/2 2*places]
    return (own + is_over * 2 * places).argsort(1)


def resized(table: Tensor, known: int, added: int) -> Tensor:
    """A table of embeddings, float[rows width], with a row for each token.

    Rows that fill a table up are taken for tokens that are added, as `resize_token_embeddings` does, and cut behind them; where they
    do not reach, further rows are the mean of those of the known tokens.
    """
    wanted = known + added
    if len(table) >= wanted:
        return table[:wanted]
    mean = table[:known].float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(wanted - len(table), -1)])
