"""The modules behind BLIP-2's first stage. The Q-Former and the embeddings of words are transformers' own.

Source: arXiv 2301.12597, section 3.2 and figure 2: which of queries and words may read which is all that its three uses differ in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Blip2QFormerConfig, Blip2QFormerModel
from transformers.activations import ACT2FN
from transformers.models.blip_2.modeling_blip_2 import Blip2TextEmbeddings

from modelgraft.plugin import Driven, InputError, NodeRuntime
from modelgraft_plugins.qformer.modules import EPSILON

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.qformer import pairs

UNLIKELY = 1e-4  # added to the likelihood of every wrong partner, in the published code


class Reader(nn.Module):
    """Queries, embeddings of words, and the Q-Former, under the names of transformers' Blip2ForImageTextRetrieval."""

    def __init__(self, config: pairs.PairSizes) -> None:
        super().__init__()
        self.first_id, self.pad_id = config.first_id, config.pad_token_id
        settings: Any = Blip2QFormerConfig(**config.facts())  # Any: it is not annotated
        settings._attn_implementation = "sdpa"
        self.query_tokens = nn.Parameter(torch.empty(1, config.num_query_tokens, settings.hidden_size))
        nn.init.normal_(self.query_tokens, std=0.02)
        embeddings: Any = Blip2TextEmbeddings  # Any: it is not annotated either
        self.embeddings = embeddings(settings)
        self.qformer: Any = Blip2QFormerModel(settings)
        self.ln_vision = nn.LayerNorm(settings.encoder_hidden_size, eps=EPSILON) if config.norms_memory else None

    def _run(self, embedded: Tensor, queries: int, mask: Tensor | None, memory: Tensor | None) -> Tensor:
        found = self.qformer(query_embeds=embedded, query_length=queries, attention_mask=mask, encoder_hidden_states=memory)
        return found.last_hidden_state  # type: ignore[no-any-return]

    def seen(self, memory: Tensor) -> Tensor:
        """What the eye gives, normed."""
        return memory if self.ln_vision is None else self.ln_vision(memory)

    def see(self, memory: Tensor) -> Tensor:
        """memory float[batch places width] -> float[batch queries hidden]."""
        queries = self.query_tokens.expand(memory.shape[0], -1, -1)
        return self._run(queries, queries.shape[1], None, self.seen(memory))

    def read(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        """ids int64[batch words], mask bool[batch words] -> float[batch words hidden]."""
        return self._run(self.embeddings(input_ids=ids), 0, mask, None)

    def fuse(self, memory: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Both -> the queries, float[batch queries hidden]."""
        queries = self.query_tokens.expand(memory.shape[0], -1, -1)
        count = queries.shape[1]
        if mask is not None:
            mask = torch.cat([mask.new_ones(mask.shape[0], count), mask], dim=1)
        return self._run(self.embeddings(input_ids=ids, query_embeds=queries), count, mask, self.seen(memory))[:, :count]

    def write(self, memory: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
        """Both -> the words, float[batch words hidden]: queries read queries, words read queries and the words up to themselves."""
        queries, (batch, words) = self.query_tokens.expand(memory.shape[0], -1, -1), ids.shape
        count = queries.shape[1]
        may = torch.ones(count + words, count + words, dtype=torch.bool, device=ids.device).tril()
        may[:count, :count] = True
        may = may.expand(batch, 1, -1, -1)
        if mask is not None:
            there = torch.cat([mask.new_ones(batch, count), mask], dim=1)
            may = may & there[:, None, None]
        return self._run(self.embeddings(input_ids=ids, query_embeds=queries), count, may, self.seen(memory))[:, count:]


class Pair(nn.Module):
    """See the declaration: which of picture and text is read, and how, says `reads`."""

    def __init__(self, config: pairs.Pair) -> None:
        super().__init__()
        self.config = config
        self.reader = Reader(config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take its own tensors out of the file of a whole."""
        return {f"reader.{name}": weights.tensor(name) for name in self.reader.state_dict()}

    def forward(self, *given: Any) -> Tensor | dict[str, Tensor]:  # Any: which of them there are follows from `reads`
        """Read."""
        match self.config.reads:
            case "image":
                return self.reader.see(*given)
            case "text":
                return self._text(*given)
            case "caption":
                return self._caption(*given)
        return self._both(*given)

    def _text(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        rows, lead = ids.flatten(0, -2), ids.shape[:-1]
        tokens = self.reader.read(rows, None if mask is None else mask.flatten(0, -2))
        tokens = tokens.reshape(*lead, *tokens.shape[1:])
        return {"tokens": tokens, "pooled": tokens[..., 0, :]}

    def _both(self, memory: Tensor, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        if not self.config.many:
            return self.reader.fuse(memory, ids, mask)
        lead = ids.shape[:-1]
        one_for_all = memory.ndim == ids.ndim
        each = memory[:, None].expand(-1, lead[1], -1, -1) if one_for_all else memory
        tokens = self.reader.fuse(each.flatten(0, 1), ids.flatten(0, 1), None if mask is None else mask.flatten(0, 1))
        return tokens.reshape(*lead, *tokens.shape[1:])

    def _caption(self, memory: Tensor, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        ids = torch.cat([torch.full_like(ids[:, :1], self.reader.first_id), ids[:, 1:]], dim=1)
        wanted = ids if mask is None else ids.masked_fill(~mask, -100)
        targets = torch.cat([wanted[:, 1:], torch.full_like(wanted[:, :1], -100)], dim=1)
        return {"tokens": self.reader.write(memory, ids, mask), "targets": targets}


class Match(nn.Linear):
    """tokens float[batch queries hidden], or with texts behind batch, to logits float[batch 2] and the second less the first."""

    def __init__(self, config: pairs.Match) -> None:
        super().__init__(config.hidden_size or 0, 2)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:  # type: ignore[override]  # what a part gives has names
        """The mean over the queries."""
        logits = super().forward(tokens).mean(-2)
        return {"logits": logits, "score": logits[..., 1] - logits[..., 0]}


class Words(nn.Module):
    """tokens float[batch words hidden] to logits float[batch words vocabulary]."""

    def __init__(self, config: pairs.Words | pairs.Writer) -> None:
        super().__init__()
        width = config.hidden_size or 0
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.act = ACT2FN[config.hidden_act]
        self.decoder = nn.Linear(width, config.vocab_size)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The bias stands in the files twice, in older ones once."""
        return words_of(weights, "predictions")

    def forward(self, tokens: Tensor) -> Tensor:
        """Map, norm, and compare with each word."""
        return self.decoder(self.norm(self.act(self.dense(tokens))))  # type: ignore[no-any-return]


def words_of(weights: Weights, before: str) -> dict[str, Tensor]:
    """The tensors of such a head, whose keys begin so."""
    names = {"dense": "transform.dense", "norm": "transform.LayerNorm", "decoder": "decoder"}
    found = {f"{mine}.{kind}": f"{before}.{theirs}.{kind}" for mine, theirs in names.items() for kind in ("weight", "bias")}
    if weights.shape(found["decoder.bias"]) is None:
        found["decoder.bias"] = f"{before}.bias"
    return {name: weights.tensor(key) for name, key in found.items()}


class Cosines(nn.Module):
    """What compares queries with texts, over a temperature."""

    def __init__(self, config: pairs.Temperature) -> None:
        super().__init__()
        self.fixed = config.temperature
        self.temp = nn.Parameter(torch.empty(())) if config.learned else None
        if self.temp is not None:
            nn.init.constant_(self.temp, config.temperature)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The temperature alone."""
        return {"temp": weights.tensor("temp").reshape(())} if self.temp is not None else {}

    def best(self, image: Tensor, text: Tensor, temperature: Tensor | None = None) -> Tensor:
        """image float[... queries width], text float[... width] -> float[...], the best query of each; temperature None: its own."""
        image, text = functional.normalize(image, dim=-1), functional.normalize(text, dim=-1)
        own = self.fixed if self.temp is None else self.temp
        return (image @ text[..., None])[..., 0].amax(-1) / (own if temperature is None else temperature)

    def all(self, image: Tensor, text: Tensor, temperature: Tensor | None = None) -> Tensor:
        """image float[batch queries width], text float[batch width] -> float[images texts]; see best."""
        return self.best(image[:, None], text[None], temperature)


class BestQuery(Cosines):
    """One picture and several texts, or one text, to a number for each text."""

    def __init__(self, config: pairs.BestQuery) -> None:
        super().__init__(config)
        self.over = config.over

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Compare."""
        return self.best(image[:, None] if self.over == "texts" else image, text)


class Contrast(Cosines):
    """image float[batch queries width], text float[batch width] to loss float[batch], whose mean is that of both directions, and what
    cosines are divided by."""

    def __init__(self, config: pairs.Contrast) -> None:
        super().__init__(config)
        self.smoothing = config.label_smoothing

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """Each pair against all others of the batch."""
        scores = self.all(image, text)
        own = text.new_tensor(self.fixed) if self.temp is None else self.temp.detach()
        return {"loss": (self._lost(scores) + self._lost(scores.T)) / 2, "temperature": own.expand(text.shape[0])}

    def _lost(self, scores: Tensor) -> Tensor:
        """Cross-entropy of each row with its own place, as torch's `label_smoothing` has it, for any number of rows."""
        said = scores.log_softmax(-1)
        return -(1 - self.smoothing) * said.diagonal() - self.smoothing * said.mean(-1)


class Negatives(Cosines):
    """See the declaration."""

    def __init__(self, config: pairs.Negatives) -> None:
        super().__init__(config)
        self.runtime = NodeRuntime(node="negatives")

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the seed of the run."""
        self.runtime = runtime

    def forward(self, image: Tensor, text: Tensor, memory: Tensor, *given: Any) -> dict[str, Tensor]:  # Any: see the declaration
        """Three pairs for each record. Raises InputError for a batch of one, which has no others."""
        ids, mask, neg_image, neg_text, temperature = given
        if len(ids) < 2:
            raise InputError(f"{self.runtime.node}: a batch of one record has no other pictures and texts: give at least two")
        scores = self.all(image, text, None if temperature is None else temperature[0]).detach()
        generator = torch.Generator(scores.device).manual_seed(self.runtime.node_seed())
        neg_image = _drawn(scores.T, generator) if neg_image is None else neg_image
        neg_text = _drawn(scores, generator) if neg_text is None else neg_text
        return {
            "memory": torch.stack([memory, memory[neg_image], memory], dim=1),
            "ids": torch.stack([ids, ids, ids[neg_text]], dim=1),
            "mask": torch.stack([mask, mask, mask[neg_text]], dim=1),
            "labels": torch.tensor([1, 0, 0], device=ids.device).expand(ids.shape[0], -1),
        }


def _drawn(scores: Tensor, generator: torch.Generator) -> Tensor:
    """scores float[batch batch] -> for each row another column than its own, int64[batch]."""
    likely = (scores.float().softmax(-1) + UNLIKELY).fill_diagonal_(0)
    return torch.multinomial(likely, 1, generator=generator)[:, 0]


class Read(nn.Module):
    """Ids so far and a place to logits: the Q-Former with its head."""

    def __init__(self, config: pairs.Writer) -> None:
        super().__init__()
        self.reader, self.words = Reader(config), Words(config)

    def forward(self, ids: Tensor, places: Tensor, memory: Tensor) -> Tensor:
        """ids int64[batch slots], places int64[batch], memory float[batch n width] -> float[batch vocabulary]."""
        tokens = self.reader.write(memory, ids, None)
        asked = tokens.gather(1, places[:, None, None].expand(-1, 1, tokens.shape[-1]))
        return self.words(asked)[:, 0]  # type: ignore[no-any-return]


class Writing(Driven):
    """What qformer/writer goes round."""

    def __init__(self, config: pairs.Writer) -> None:
        super().__init__()
        self.read = Read(config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Take both out of the file of a whole."""
        reader = {f"read.reader.{name}": weights.tensor(name) for name in self.read.reader.state_dict()}
        return {**reader, **{f"read.words.{name}": tensor for name, tensor in words_of(weights, "cls.predictions").items()}}
