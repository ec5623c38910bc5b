"""The multiway encoder as a component: an eye, a reader of texts, or both at once. Light: no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from modelgraft import Port, Ports, Space, component, port
from modelgraft_plugins.beit3.sizes import Sizes, sizes_of
from modelgraft_plugins.tokens import token_space, tokenizer_identity
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

WAYS = {"image": "A", "text": "B", "both": "AB"}


@component("beit3/encoder", kind="encoder", module="modelgraft_plugins.beit3.modules:Encoder", exportable=True)
class Encoder(Sizes):
    """Turn a picture, a text, or a picture with a text into vectors, with the multiway transformer of BEiT-3.

    reads   "image": an eye, which holds the branch of pictures alone; "text": the branch of texts alone; "both": picture and text
            see each other
    select  an eye: "patches" leaves the class token out
    whole   hold both branches whatever is read, so that nodes that read other media may share them
    causal  both: a token of the text sees the picture and what stands before it, and the picture does not see the text, as captions
            are learned
    `patch_mask` is True where a patch is hidden behind the learned mask token, row by row. `pooled` is the class token of the picture,
    or the first token of a text; of both there is `text_pooled` beside it, `patches` are `image_tokens` without the class token, and
    `token_mask` says where `tokens` are of something.
    """

    reads: Literal["image", "text", "both"] = "both"
    select: Literal["all", "patches"] = "all"
    whole: bool = False
    causal: bool = False
    identity: str | None = Field(None, description="names the vocabulary that the ids must be of")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes, and which tokenizer lies beside them."""
        return {**sizes_of(source), "identity": tokenizer_identity(source)}

    @model_validator(mode="after")
    def _has_what_it_selects(self) -> Encoder:
        if self.causal and self.reads != "both":
            raise ValueError(f"causal is of a text behind a picture, and reads is {self.reads!r}: leave causal out, or set reads: both")
        if self.select == "patches" and self.reads != "image":
            raise ValueError(
                f"select: patches is of an eye, and reads is {self.reads!r}: take the output image_tokens, or set reads: image"
            )
        return self

    @property
    def ways(self) -> str:
        """The branches that it holds: A of pictures, B of texts."""
        return "AB" if self.whole else WAYS[self.reads]

    @property
    def places(self) -> int | None:
        """Tokens of a picture, class token included; None when pictures may have any size."""
        return None if self.interpolate else self.patches + 1

    @property
    def seen(self) -> int | None:
        """Tokens that an eye gives."""
        return None if self.interpolate else self.patches + (self.select == "all")

    @property
    def hidden(self) -> int | None:
        """Patches that may be hidden; None when pictures may have any size."""
        return None if self.interpolate else self.patches

    def ports(self) -> Ports:
        """What is read in, a vector for each token and one for all of them out."""
        pixels = port("float[batch num_channels side side]", space=Space.of("pixels", mean=self.image_mean, std=self.image_std))
        if self.interpolate:
            pixels = port("float[batch num_channels height width]", space=pixels.space)
        picture: dict[str, str | Port] = {"pixels": pixels, "patch_mask": "optional[bool[batch hidden]]"}
        text: dict[str, str | Port] = {
            "ids": port("int64[batch text_tokens]", space=token_space(self.identity)),
            "mask": "optional[bool[batch text_tokens]]",
        }
        pooled = "float[batch hidden_size]"
        if self.reads == "image":
            return Ports.of(picture, {"tokens": "float[batch seen hidden_size]", "pooled": pooled})
        if self.reads == "text":
            return Ports.of(text, {"tokens": "float[batch text_tokens hidden_size]", "pooled": pooled})
        return Ports.of(
            {**picture, **text},
            {
                "tokens": "float[batch places+text_tokens hidden_size]",
                "token_mask": "bool[batch places+text_tokens]",
                "image_tokens": "float[batch places hidden_size]",
                "text_tokens": "float[batch text_tokens hidden_size]",
                "patches": "float[batch hidden hidden_size]",
                "pooled": pooled,
                "text_pooled": pooled,
            },
        )

    def most(self) -> Mapping[str, int]:
        """There are no more positions."""
        return {} if self.reads == "image" else {"text_tokens": self.text_positions}

    def multiples(self) -> Mapping[str, int]:
        """Pictures of any size are whole patches."""
        return dict.fromkeys(("height", "width"), self.patch_size) if self.interpolate and self.reads != "text" else {}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.hidden_size, self.heads)

    def parameters(self) -> int:
        """Count the branches that it holds."""
        return self.count(self.ways)
