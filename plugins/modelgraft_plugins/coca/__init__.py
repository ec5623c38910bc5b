"""CoCa: a picture and its caption in one space, and captions written from it (arXiv 2205.01917).

Four parts, each usable elsewhere: an eye, the attention pooler behind it, the half of the text decoder that reads text alone, and
the half that looks at the picture. `coca/writer` is both halves with a loop around them, which writes captions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Ports, Space, component, hookimpl, port
from modelgraft_plugins.coca import sizes
from modelgraft_plugins.short_texts import ShortTexts
from modelgraft_plugins.tokens import token_space, tokenizer_identity
from modelgraft_plugins.widths import uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

PRESETS = ("coca-vit-b-32", "coca-vit-l-14", "coca-base", "coca-large", "coca-2b")
PUBLISHED = {
    "laion/CoCa-ViT-B-32-laion2B-s13B-b90k": "coca-vit-b-32",
    "laion/CoCa-ViT-L-14-laion2B-s13B-b90k": "coca-vit-l-14",
    "laion/mscoco_finetuned_CoCa-ViT-B-32-laion2B-s13B-b90k": "coca-vit-b-32",
    "laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k": "coca-vit-l-14",
}
Pooling = Literal["openclip", "parallel", "cascade"]
Layer = Literal["openclip", "paper"]
BELOW = 4  # times the width: the feed-forward layers of every CoCa


def _space(name: str | None) -> Space | None:
    return Space.of("embedding", model=name) if name else None


class CocaConfig(Config):
    """What the parts share: their sizes come from one source; not a component itself."""

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the sizes from a config of open_clip (`open_clip_config.json`, or its `model_cfg` as config.json), or from the shapes."""
        named = {"space": source.whole, "identity": tokenizer_identity(source)}
        return {**sizes.words_of(source, cls.model_fields), **{key: value for key, value in named.items() if key in cls.model_fields}}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the config that are not known here."""
        return sizes.unheeded(source)


@component("coca/vision", kind="encoder", module="modelgraft_plugins.coca.modules:Eye", exportable=True, keywords=("eye",))
class Eye(CocaConfig):
    """Turn a prepared picture into one vector per patch, the class token before them: a vision transformer without a norm at its end."""

    image_size: int = Field(224, gt=0)
    patch_size: int = Field(14, gt=0)
    vision_width: int = Field(1024, gt=0)
    vision_layers: int = Field(24, gt=0)
    vision_heads: int = Field(16, gt=0)
    class_token: bool = Field(True, description="a learned vector stands before the patches; the paper has none")

    @property
    def tokens(self) -> int:
        """Patches, and the class token."""
        return (self.image_size // self.patch_size) ** 2 + int(self.class_token)

    def ports(self) -> Ports:
        """Pixels in, vectors out."""
        return Ports.of({"pixels": "float[batch 3 image_size image_size]"}, {"tokens": "float[batch tokens vision_width]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.vision_width, self.vision_heads)

    def parameters(self) -> int:
        """Patches, class token, places, a norm before the blocks, and the blocks."""
        width = self.vision_width
        entry = 3 * self.patch_size**2 * width + (self.tokens + int(self.class_token)) * width + 2 * width
        return entry + self.vision_layers * _block(width)


@component("coca/pooler", kind="resampler", module="modelgraft_plugins.coca.modules:Pooler", exportable=True)
class Pooler(CocaConfig):
    """Let learned queries look at the vectors of a picture: one vector to compare, and the vectors that a decoder looks at.

    openclip  one pooler: its first query is compared, the others are looked at, as in every file that was published
    cascade   of the paper: a query of its own is compared, which looks at what the others made of the picture
    parallel  of the paper: it looks at the picture itself
    """

    pooling: Pooling = "openclip"
    vision_width: int = Field(1024, gt=0, description="width of what is looked at")
    queries: int = Field(256, gt=1)
    pooler_heads: int = Field(8, gt=0)
    embedding_size: int = Field(768, gt=0)
    space: str | None = Field(None, description="names the space of the vector, so that others are not compared with it")

    @property
    def looked_at(self) -> int:
        """Vectors for a decoder."""
        return self.queries - int(self.pooling == "openclip")

    def ports(self) -> Ports:
        """Vectors of a picture in; out the one to compare, of the length 1, and those to look at."""
        vector = port("float[batch embedding_size]", space=_space(self.space))
        return Ports.of({"x": "float[batch patches vision_width]"}, {"vector": vector, "tokens": "float[batch looked_at embedding_size]"})

    def parameters(self) -> int:
        """Queries, norms, attention with keys and values of another width, and a map without bias."""
        wide, width = self.vision_width, self.embedding_size
        pooler = self.queries * width + 2 * width + 2 * wide + 2 * wide * width + 3 * width + width * width + width * width + width
        if self.pooling == "openclip":
            return pooler + 2 * width + width * width
        behind = wide if self.pooling == "parallel" else width  # what the query of the vector looks at
        single = width + 2 * width + 2 * behind + 2 * behind * width + 3 * width + 2 * width * width + width
        return pooler + single + 2 * wide + width * width

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.embedding_size, self.pooler_heads)


@component("coca/text", kind="encoder", module="modelgraft_plugins.coca.modules:Text", exportable=True)
class Text(CocaConfig):
    """Read a text alone: a vector for each token, and one for all, of a learned token behind the last place.

    Shorter texts are filled up to `context_length` with the id 0, and so is what `mask` says is no token.
    many        each record is a list of texts, such as the labels to choose from; only their vectors come out
    class_sees  "legacy": what is free is counted one place off, as the published weights were trained: of a text that leaves places
                free, that token sees one of them, and itself never; "correct": the text and itself, for weights of your own
    """

    context_length: int = Field(76, gt=0, description="places of a text, filled up with 0")
    vocab_size: int = Field(49408, gt=0)
    text_width: int = Field(768, gt=0)
    text_layers: int = Field(12, gt=0)
    text_heads: int = Field(12, gt=0)
    embedding_size: int = Field(768, gt=0)
    class_sees: Literal["legacy", "correct"] = "legacy"
    many: bool = False
    space: str | None = Field(None, description="names the space of the vector, so that others are not compared with it")
    identity: str | None = Field(None, description="names the vocabulary that the ids must be of")

    def ports(self) -> Ports:
        """Ids in; vectors of the tokens, and one of the length 1 for the text, out."""
        before = "batch texts" if self.many else "batch"
        ids = port(f"int64[{before} text_tokens]", space=token_space(self.identity))
        outputs = {"vector": port(f"float[{before} embedding_size]", space=_space(self.space))}
        if not self.many:
            outputs["tokens"] = port("float[batch context_length text_width]")
        return Ports.of({"ids": ids, "mask": f"optional[bool[{before} text_tokens]]"}, outputs)

    def most(self) -> Mapping[str, int]:
        """There are no more places."""
        return {"text_tokens": self.context_length}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.text_width, self.text_heads)

    def parameters(self) -> int:
        """Embeddings, places, the learned token, blocks, a norm and a map."""
        width = self.text_width
        entry = self.vocab_size * width + (self.context_length + 1) * width + width
        return entry + self.text_layers * _block(width) + 2 * width + width * self.embedding_size


@component("coca/decoder", kind="llm", module="modelgraft_plugins.coca.modules:Decoder", exportable=True)
class Decoder(CocaConfig):
    """Go on from the vectors of a text while looking at a picture: how likely each token is behind each place.

    decoder_layer  "openclip": attention and a feed-forward layer, then a look at the picture and another; "paper": one for both
    `logits` at a place are about the token behind it.
    """

    vocab_size: int = Field(49408, gt=0)
    text_width: int = Field(768, gt=0)
    decoder_layers: int = Field(12, gt=0)
    decoder_heads: int = Field(12, gt=0)
    decoder_layer: Layer = "openclip"

    def ports(self) -> Ports:
        """Vectors of a text and of a picture in, logits out."""
        inputs = {"tokens": "float[batch slots text_width]", "image": "float[batch looked_at text_width]"}
        return Ports.of(inputs, {"logits": "float[batch slots vocab_size]"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly."""
        return uneven_heads(node.name, self.text_width, self.decoder_heads)

    def parameters(self) -> int:
        """Blocks, looks, a norm, and a head that is not the table of embeddings."""
        return _decoder(self.text_width, self.decoder_layers, self.vocab_size, self.decoder_layer)


@component(
    "coca/writer",
    kind="llm",
    module="modelgraft_plugins.coca.modules:Writing",
    loop="modelgraft_plugins.coca.writing:Writer",
    exportable=True,
    random=True,
    taps=("text", "ids"),
)
class Writer(CocaConfig, ShortTexts):
    """Write a caption of a picture: both halves of the decoder, read again for every token.

    Texts are short (76 tokens), so that reading what was written again costs little beside reading the weights, and is exact.
    prompt  what the caption begins with; it is not part of the answer
    """

    context_length: int = Field(76, gt=0)
    vocab_size: int = Field(49408, gt=0)
    text_width: int = Field(768, gt=0)
    text_layers: int = Field(12, gt=0)
    text_heads: int = Field(12, gt=0)
    decoder_layers: int = Field(12, gt=0)
    decoder_heads: int = Field(12, gt=0)
    decoder_layer: Layer = "openclip"
    class_sees: Literal["legacy", "correct"] = Field("legacy", description="as that of coca/text")
    begin_id: int | None = Field(None, ge=0, description="the token that a text begins with; None: the last but one of CLIP's vocabulary")
    max_new_tokens: int = Field(30, ge=0, description="longest caption in tokens; 0 gives the logits alone")

    @property
    def first_id(self) -> int:
        """The token that a text begins with."""
        return self.vocab_size - 2 if self.begin_id is None else self.begin_id

    @property
    def last_ids(self) -> tuple[int, ...]:
        """The tokens that end a caption."""
        return (self.vocab_size - 1,) if self.end_ids is None else self.end_ids

    def ports(self) -> Ports:
        """What the pooler gives a decoder, and the beginning of the caption, in; the caption, and the logits of its first token, out."""
        inputs = {"image": "float[batch looked_at text_width]", "prompt": "optional[text]"}
        return Ports.of(inputs, {"text": "text", "logits": "float[batch vocab_size]", "ids": "int64[batch written]"})

    def parts(self) -> Mapping[str, Ports]:
        """Both halves as one: all ids so far, and the place that is asked about."""
        inputs = {"ids": "int64[batch slots]", "places": "int64[batch]", "image": "float[batch looked_at text_width]"}
        return {"read": Ports.of(inputs, {"logits": "float[batch vocab_size]"})}

    def most(self) -> Mapping[str, int]:
        """There are no more places."""
        return {"slots": self.context_length}

    def export_facts(self) -> dict[str, Any]:
        """The settings of the loop change no graph."""
        return self.model_dump(exclude={*ShortTexts.model_fields, "begin_id"})

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly, and the caption must find room."""
        yield from uneven_heads(node.name, self.text_width, self.text_heads)
        yield from uneven_heads(node.name, self.text_width, self.decoder_heads)
        if self.max_new_tokens >= self.context_length:
            found = f"{node.name}.max_new_tokens is {self.max_new_tokens}, and a text has {self.context_length} places with its beginning"
            yield "context-overflow", found, f"set max_new_tokens to at most {self.context_length - 1}"

    def parameters(self) -> int:
        """The half that reads text, without what makes one vector of it, and the half that looks at the picture."""
        width = self.text_width
        text = self.vocab_size * width + (self.context_length + 1) * width + self.text_layers * _block(width)
        return text + _decoder(width, self.decoder_layers, self.vocab_size, self.decoder_layer)


@component("coca/targets", kind="loss", load="modelgraft_plugins.coca.modules:targets", cache=False)
class Targets(Config):
    """Say which token stands behind each place of a text: what the logits there should have said. The last place, and a free one, say -100.

    Shorter texts are filled up to `context_length`, as coca/text does.
    """

    context_length: int = Field(76, gt=0)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the number of places."""
        return sizes.words_of(source, cls.model_fields)

    def ports(self) -> Ports:
        """Ids in, labels out."""
        inputs = {"ids": "int64[batch text_tokens]", "mask": "optional[bool[batch text_tokens]]"}
        return Ports.of(inputs, {"labels": "int64[batch context_length]"})

    def most(self) -> Mapping[str, int]:
        """There are no more places."""
        return {"text_tokens": self.context_length}


def _attention(width: int) -> int:
    return 4 * width * width + 4 * width


def _below(width: int) -> int:
    return 2 * BELOW * width * width + (BELOW + 1) * width + 2 * width


def _block(width: int) -> int:
    """Norm, attention, norm, feed-forward."""
    return 2 * width + _attention(width) + _below(width)


def _decoder(width: int, layers: int, vocabulary: int, layer: str) -> int:
    look = 4 * width + _attention(width)  # norms of what looks and of what is looked at
    each = _block(width) + look + (_below(width) if layer == "openclip" else 0)
    return layers * each + 2 * width + width * vocabulary


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Eye, Pooler, Text, Decoder, Writer, Targets):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes: two of open_clip, also under their names on the hub, and three of the paper."""
    presets = Path(__file__).parent / "presets"
    for name in PRESETS:
        register(f"preset:{name}", presets / name)
    for source, name in PUBLISHED.items():
        register(source, presets / name)
