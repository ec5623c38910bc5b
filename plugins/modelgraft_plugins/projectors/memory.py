"""A connector through a memory: what is seen recalls sentences, and their words become soft tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, component

if TYPE_CHECKING:
    from modelgraft.plugin import Source


@component("projector/memory", kind="projector", module="modelgraft_plugins.projectors.memory_modules:Memory", exportable=True)
class Memory(Config):
    """Make soft tokens of a vector: those of the sentences that it recalls, each in the share that its nearness gives it.

    A memory holds a vector of each sentence and its tokens, as rows of the embeddings of a language model; shorter sentences are filled
    up. The shares are softmax(scale * cosine), so a soft token is a mean of embeddings that the language model knows: what is seen
    clearly reads as one sentence, what is not as a blend of several. A memory may hold a number for each sentence that is added to its
    cosine (`priors`): what was never trained on lies farther from all that is seen, and would hardly be recalled without.
    Source: the projection onto a memory of texts is that of arXiv 2303.03032 (DeCap); soft tokens as means of embeddings, of arXiv
    2502.01341 (AlignVLM); priors for what was not trained on, of arXiv 1605.04253 (calibrated stacking).
    `python -m modelgraft_plugins.projectors.memory_file` writes one.
    """

    in_features: Dim = None
    out_features: Dim = None
    sentences: int = Field(1, gt=0, description="sentences that are remembered")
    slots: int = Field(8, gt=0, description="soft tokens; longer sentences are cut")
    rows: int = Field(1, gt=0, description="different tokens of all sentences together")
    priors: bool = Field(False, description="each sentence has a number that is added to its cosine")
    scale: float = Field(50.0, gt=0, description="factor of the cosines: the larger, the more the nearest sentence speaks alone")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of the tensors."""
        keys, places, rows = (source.shape(name) for name in ("keys", "places", "rows"))
        if keys is None or places is None or rows is None:
            return {}
        sizes = {"in_features": keys[1], "out_features": rows[1], "sentences": keys[0], "slots": places[1], "rows": rows[0]}
        return {**sizes, "priors": source.shape("priors") is not None}

    def ports(self) -> Ports:
        """A vector in, soft tokens out."""
        return Ports.of({"x": "float[batch in_features]"}, {"y": f"float[batch {self.slots} out_features]"})

    def parameters(self) -> int:
        """Count the vectors of the sentences, their priors and the embeddings; which token stands where is no parameter."""
        return self.sentences * ((self.in_features or 0) + self.priors) + self.rows * (self.out_features or 0)
