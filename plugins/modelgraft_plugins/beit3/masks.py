"""What is hidden while BEiT-3 learns: blocks of patches, and tokens of a text. Light: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Config, Ports, component, port
from modelgraft_plugins.beit3.sizes import sizes_of
from modelgraft_plugins.tokens import token_space, tokenizer_identity

if TYPE_CHECKING:
    from modelgraft.plugin import Source


@component("beit3/mask_patches", kind="preprocess", load="modelgraft_plugins.beit3.masking:patches", cache=False, random=True)
class MaskPatches(Config):
    """Hide blocks of a picture's patches, drawn by the seed and the picture: rectangles of any place and shape, until so many are hidden.

    count  exactly so many patches are hidden; None: the share. BEiT-3 hides 40 % of them, BEiT v2 75 of 196
    The mask of a picture is the same in any batch. Source: arXiv 2106.08254, algorithm 1, as the published code has it.
    """

    patch_size: int = Field(16, gt=0)
    share: float = Field(0.4, gt=0, lt=1)
    count: int | None = Field(None, gt=0)
    smallest: int = Field(16, gt=0, description="patches that a block has at least, as long as so many are to be hidden")
    narrowest: float = Field(0.3, gt=0, le=1, description="a block is so much as high as it is wide at least, and so much as wide as high")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the side of a patch."""
        return {key: value for key, value in sizes_of(source).items() if key == "patch_size"}

    def ports(self) -> Ports:
        """Prepared pictures in; for each patch, row by row, whether it is hidden, out."""
        return Ports.of({"pixels": "float[batch channels height width]"}, {"mask": "bool[batch patches]"})


@component("beit3/mask_text", kind="preprocess", load="modelgraft_plugins.beit3.masking:words", cache=False, random=True)
class MaskText(Config):
    """Hide tokens of a text, drawn by the seed and the text: most become `[MASK]`, some another token, and some stay.

    What stays is asked for all the same.
    share  BEiT-3 hides 15 % of a text alone and 50 % of one beside a picture; captions are tuned with 60 to 70 %
    The first token is never hidden, the end token may be, and at least one is. The mask of a text is the same in any batch.
    """

    share: float = Field(0.15, gt=0, lt=1)
    masked: float = Field(0.8, ge=0, le=1, description="share of the hidden tokens that become [MASK]")
    swapped: float = Field(0.1, ge=0, le=1, description="share of the hidden tokens that become another token; what is left stays")
    vocab_size: int = Field(64010, gt=4)
    mask_token_id: int | None = Field(None, ge=0, description="None: the last of the vocabulary")
    identity: str | None = Field(None, description="names the vocabulary that the ids must be of")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read how many tokens there are."""
        known = {key: value for key, value in sizes_of(source).items() if key == "vocab_size"}
        return {**known, "identity": tokenizer_identity(source)}

    def ports(self) -> Ports:
        """Ids in; those with some hidden, and where, out."""
        ids = port("int64[batch text_tokens]", space=token_space(self.identity))
        return Ports.of({"ids": ids, "mask": "optional[bool[batch text_tokens]]"}, {"ids": ids, "hidden": "bool[batch text_tokens]"})
