"""llm/splice: embeddings of media between those of words, with the labels that a model is trained by (LLaVA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft.plugin import Config, Dim, Ports, component, port
from modelgraft_plugins.llm.config import NUMBERS, model_of
from modelgraft_plugins.llm.known import family_of

if TYPE_CHECKING:
    from modelgraft.plugin import Port, Source

IMAGE = -200  # the id that stands for a medium in LLaVA's code
IGNORED = -100  # the label of what is not to be written


@component("llm/splice", kind="projector", module="modelgraft_plugins.llm.splicing:Splice", keywords=("llava", "train", "labels"))
class SpliceConfig(Config):
    """Lay the embeddings of media between those of words, as LLaVA is trained: rows of unlike length, with mask, labels and positions.

    ids            of each row its tokens, `image_id` where a medium stands;  mask  where there is a token; without it everywhere
    labels         the token that is to be written at each place, -100 where none is; those of media are -100
    image          the embeddings of the media of each row, one medium behind the other
    image_lengths  how many of them each medium has; without it they have equally many, and a row without a place for one takes none
    positions      0, 1, ... in each row, 0 where it is filled up, where embeddings are 0 and labels -100
    targets        labels one place on: what is to be written behind each place
    A row that is longer than `max_length` is cut behind what was spliced in, which may cut a medium.
    Source: `prepare_inputs_labels_for_multimodal` of LLaVA's code.
    """

    hidden_size: Dim = Field(None, description="width of the embeddings")
    vocab_size: int = Field(gt=0, description="rows of the table of embeddings")
    image_id: int = Field(IMAGE, description="the id that stands for a medium, of no token")
    max_length: int | None = Field(None, gt=0, description="longest row, media counted; None: any")
    fill: Literal["right", "left"] = Field("right", description="where shorter rows are filled up: right to train, left to write")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the table of a language model. Raises ValueError as llm/causal does."""
        config = model_of(source)
        family = family_of(config["model_type"])
        return {name: family.read(config, name) for name in NUMBERS[:2]}  # hidden_size and vocab_size

    def ports(self) -> Ports:
        """Tokens and media in, what a language model reads and what it is to write out."""
        inputs: dict[str, str | Port] = {
            "ids": "int64[batch words]",
            "image": "float[batch image_tokens hidden_size]",
            "image_lengths": port("optional[int64[batch media]]", doc="embeddings of each medium; 0 where a row has fewer media"),
            "mask": "optional[bool[batch words]]",
            "labels": "optional[int64[batch words]]",
        }
        outputs = {
            "embeddings": "float[batch places hidden_size]", "mask": "bool[batch places]", "labels": "int64[batch places]",
            "positions": "int64[batch places]", "targets": "int64[batch places]",
        }  # fmt: skip
        return Ports.of(inputs, outputs)

    def parameters(self) -> int | None:
        """The table."""
        return None if self.hidden_size is None else self.vocab_size * self.hidden_size
