"""BEiT-3 that writes captions: masked language modelling, one token at a time. Light: no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from modelgraft import Ports, Space, component, port
from modelgraft_plugins.beit3.sizes import Sizes, sizes_of
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

OF_THE_LOOP = ("max_new_tokens", "beams", "length_penalty", "begin_token_id", "end_token_ids", "pad_token_id", "mask_token_id")


@component(
    "beit3/captioner",
    kind="llm",
    module="modelgraft_plugins.beit3.captioning:Captioner",
    loop="modelgraft_plugins.beit3.writing:Write",
    exportable=True,
    taps=("text",),
)
class Captioner(Sizes):
    """Write what is on a picture: `[MASK]` is put behind what is written, and the token that fits there best takes its place.

    The picture is read once; a text that grows sees it and itself, and is read again for each token, which is short against the picture.
    beams  above 1, search with so many; the rules are those of the other language models here, by which the length of a caption
           counts without its begin token
    ids    are those of the new tokens, an end token included, filled up with `pad_token_id`; `logits` are those of the first
    The tokenizer that writes the text lies beside the weights: `sentencepiece.bpe.model` or `beit3.spm`.
    """

    max_new_tokens: int = Field(30, gt=0, description="longest caption in tokens")
    beams: int = Field(1, gt=0, description="1: greedy; published figures are those of 3")
    length_penalty: float = Field(0.6, description="beams: the exponent of the length by which the log-probability is divided")
    begin_token_id: int = Field(0, ge=0)
    end_token_ids: tuple[int, ...] = Field((2,), description="tokens that end a caption; none: it has always max_new_tokens")
    pad_token_id: int = Field(1, ge=0)
    mask_token_id: int | None = Field(None, ge=0, description="None: the last of the vocabulary, where it is published")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes."""
        return sizes_of(source)

    @property
    def places(self) -> int | None:
        """Tokens of a picture, class token included; None when pictures may have any size."""
        return None if self.interpolate else self.patches + 1

    @property
    def mask_id(self) -> int:
        """The id of `[MASK]`."""
        return self.vocab_size - 1 if self.mask_token_id is None else self.mask_token_id

    def ports(self) -> Ports:
        """A picture in; the caption, its ids and the logits of its first token out."""
        axes = "height width" if self.interpolate else "side side"
        pixels = port(f"float[batch num_channels {axes}]", space=Space.of("pixels", mean=self.image_mean, std=self.image_std))
        return Ports.of({"pixels": pixels}, {"text": "text", "ids": "int64[batch written]", "logits": "float[batch vocab_size]"})

    def parts(self) -> Mapping[str, Ports]:
        """`see` reads a picture; `tell` gives the logits of the last place of a text behind it."""
        axes = "height width" if self.interpolate else "side side"
        memory = "float[batch num_hidden_layers places hidden_size]"
        tell = {"ids": "int64[batch text_tokens]", "keys": memory, "values": memory}
        return {
            "see": Ports.of({"pixels": f"float[batch num_channels {axes}]"}, {"keys": memory, "values": memory}),
            "tell": Ports.of(tell, {"logits": "float[batch vocab_size]"}),
        }

    def most(self) -> Mapping[str, int]:
        """There are no more positions."""
        return {"text_tokens": self.text_positions}

    def multiples(self) -> Mapping[str, int]:
        """Pictures of any size are whole patches."""
        return dict.fromkeys(("height", "width"), self.patch_size) if self.interpolate else {}

    def parameters(self) -> int:
        """The trunk and the layer that gives a number for each token of the vocabulary."""
        return self.count("AB") + self.hidden_size * self.vocab_size + self.vocab_size

    def export_facts(self) -> Mapping[str, Any]:
        """What the loop alone reads changes no graph."""
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in OF_THE_LOOP}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly, and a caption have room."""
        yield from uneven_heads(node.name, self.hidden_size, self.heads)
        most = self.text_positions - 2  # the begin token before it, `[MASK]` behind it
        if self.max_new_tokens > most:
            found = f"{node.name} has max_new_tokens: {self.max_new_tokens}, and positions for {most}"
            yield "config-mismatch", found, f"set max_new_tokens to {most} or less"
