"""Declarations of masked prediction: the head that compares frames with codes, and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from modelgraft import Config, Dim, Ports, component

if TYPE_CHECKING:
    from modelgraft.plugin import Source

CODES, PROJECTION = "label_embs_concat", "final_proj"  # of fairseq's files
SIGNS = 4  # with which each dictionary of fairseq begins: start, padding, end, unknown


@component("units/code_head", kind="head", module="modelgraft_plugins.units.prediction:CodeHead", exportable=True)
class CodeHead(Config):
    """Compare each frame with the codes of each code book: the cosine of a projection with each, divided by a temperature.

    HuBERT learns by it which unit stands in a masked frame, of one clustering or of several at once.
    codes  how many codes each book has; the logits of the books stand one behind the other
    tied   all books share one projection
    """

    width: Dim = Field(None, description="of a frame")
    final_dim: int = Field(256, gt=0, description="width of a code")
    codes: tuple[int, ...] = Field((504,), min_length=1, description="codes of each book: in fairseq's files the clusters and four signs")
    tied: bool = False
    temperature: float = Field(0.1, gt=0, description="what cosines are divided by")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the shapes of a file of fairseq; how many books there are its config says, or there is one."""
        return {name: value for name, value in head_config(source).items() if name in cls.model_fields}

    @model_validator(mode="after")
    def _can_be(self) -> CodeHead:
        if min(self.codes) < 1:
            raise ValueError(f"codes is {list(self.codes)}, wanted at least one code in each book")
        return self

    @property
    def classes(self) -> int:
        """Codes of all books."""
        return sum(self.codes)

    def ports(self) -> Ports:
        """Frames in, a number for each code out."""
        return Ports.of({"tokens": "float[batch tokens width]"}, {"logits": "float[batch tokens classes]"})

    def parameters(self) -> int | None:
        """The projection and the codes."""
        if self.width is None:
            return None
        projected = self.final_dim * (1 if self.tied else len(self.codes))
        return (self.width + 1) * projected + self.classes * self.final_dim


@component("units/masked_prediction", kind="loss", module="modelgraft_plugins.units.prediction:MaskedPrediction")
class MaskedPrediction(Config):
    """Lose by how unlikely the units of masked frames were, summed over the code books, and by the size of the features.

    loss     the mean over the batch is fairseq's loss for each masked frame: the sum of cross-entropies over masked frames and books,
             divided by the number of masked frames, and `penalty` times the mean square of the features
    sums     of each record and book: cross-entropy over its masked frames, not weighted; summed over the batch fairseq's `loss_m_i`
    penalty  of each record: mean square of its features; its mean is fairseq's `features_pen`
    A token counts where `mask` is true and it has a unit: units below 0 are none, and a sound may have fewer units than tokens.
    """

    codes: tuple[int, ...] = Field((504,), min_length=1, description="codes of each book")
    step: float = Field(1.0, gt=0, description="units per frame: 2 for MFCC of a hundredth of a second, 1 for those of the encoder")
    offset: int = Field(SIGNS, ge=0, description="the code of unit 0: fairseq's dictionaries begin with four signs")
    masked: float = Field(1.0, ge=0, description="weight of masked frames")
    others: float = Field(0.0, ge=0, description="weight of all other frames")
    penalty: float = Field(10.0, ge=0, description="weight of the size of the features")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read how many codes each book has."""
        return {"codes": head_config(source)["codes"]}

    @property
    def classes(self) -> int:
        """Codes of all books."""
        return sum(self.codes)

    @property
    def books(self) -> int:
        """How many books there are."""
        return len(self.codes)

    def ports(self) -> Ports:
        """Logits and units in, what was masked and is there; the share of each record out, and what it is made of."""
        units = "int64[batch frames]" if self.books == 1 else "int64[batch frames books]"
        inputs = {
            "logits": "float[batch tokens classes]", "units": units, "spans": "bool[batch tokens]",
            "mask": "optional[bool[batch tokens]]", "conv_features": "optional[float[batch tokens channels]]",
        }  # fmt: skip
        return Ports.of(inputs, {"loss": "float[batch]", "sums": "float[batch books]", "penalty": "float[batch]"})


def head_config(source: Source) -> dict[str, Any]:
    """The sizes of the code books of a source: by the shapes of its tensors, and by `codes` of its config.

    Raises ValueError for a source that has none, or whose config does not fit its tensors.
    """
    codes, projection = source.shape(CODES), source.shape(f"{PROJECTION}.weight")
    said = tuple(source.root.get("codes") or ())
    if codes is None or projection is None:
        if not said or "final_dim" not in source.root:
            raise ValueError(f"{source.text} has no code books: its tensors lack {CODES} and {PROJECTION}, as those of a whole for use do")
        return {"codes": said, "final_dim": source.root["final_dim"], "tied": bool(source.root.get("tied", False))}
    classes, final_dim = codes
    books = projection[0] // final_dim
    if not said and books > 1:
        raise ValueError(f"{source.text} has {books} books with {classes} codes in all: set `with: {{codes: [...]}}`, those of each")
    found = said or (classes,)
    if sum(found) != classes or (books > 1 and books != len(found)):
        raise ValueError(f"{source.text} states codes: {list(found)}, and its tensors have {classes} in {books} projections")
    return {"codes": found, "final_dim": final_dim, "tied": len(found) > 1 and books == 1, "width": projection[1]}
