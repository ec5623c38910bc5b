"""Pictures of any size, as many patches as they have: cutting them, the eyes that read them, and what joins their patches.

    pixels: {use: patches/prepare, from: "${checkpoint}", in: {image: inputs.image}}
    vision: {use: patches/encoder, from: "${checkpoint}#visual", in: {patches: pixels.patches, grids: pixels.grids}}
    merge:  {use: patches/merger, from: "${checkpoint}#visual.merger", in: {x: vision}}

The patches of all pictures of a record stand one behind the other, and zeros behind them where another record of the batch has more.
`grids` says how many frames, rows and columns of patches each picture has. Patches that are joined behind the eye stand together: square
groups row by row, and the patches of a group row by row. A picture sees itself alone, however many there are.

Vectors of inner layers of the eye (`deep_layers`) come beside those of its last, joined by patches/deep-merger: a decoder that adds them
to what its first layers make of the picture takes them as `image_deep` (DeepStack, arXiv 2406.04334).

A language model takes what comes of them in a field `{image:ragged}`, and beside it `lengths` as `image_lengths`, `words` as
`image_words`, and where it counts frames, rows and columns (M-RoPE) `token_grids` as `image_grids`. Films are cut by patches/frames, which
also gives the `image_paces` of their frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from modelgraft import Config, Dim, Ports, Space, component, hookimpl, port
from modelgraft.plugin import TowerCard, families
from modelgraft_plugins.patches.reading import (
    MEDIUM,
    eye_values,
    frame_values,
    prepare_values,
    unheeded_eye,
    unheeded_frames,
    unheeded_pictures,
)
from modelgraft_plugins.pictures import COLOURS, MOST_PIXELS, Numbers, pixel_space
from modelgraft_plugins.stated import told
from modelgraft_plugins.widths import check_layer, uneven_heads

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

GRIDS = "int64[batch media 3]"
HERE = "modelgraft_plugins.patches"
DEEP = "patches/deep-merger"
PRESETS = Path(__file__).parent / "presets"


class Cutting(Config):
    """How pictures and frames are cut; not a component itself."""

    do_resize: bool = True
    min_pixels: int | None = Field(None, gt=0, description="a picture of fewer pixels is enlarged")
    max_pixels: int | None = Field(None, gt=0, description="a picture of more is made smaller")
    longest_edge: int | None = Field(None, gt=0, description="longest side in pixels, in place of both")
    resample: int = Field(3, ge=0, le=5, description="filter of PIL: 0 nearest, 2 bilinear, 3 bicubic")
    do_convert_rgb: bool = Field(True, description="put white behind what is transparent; otherwise transparency is left out of account")
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: Numbers | None = Field((0.5, 0.5, 0.5), description="of red, green and blue, after rescaling")
    image_std: tuple[PositiveFloat, ...] | None = (0.5, 0.5, 0.5)
    patch_size: int = Field(14, gt=0, description="side of a patch in pixels")
    merge_size: int = Field(1, gt=0, description="side in patches of the groups that are joined behind the eye")
    temporal_patch_size: int = Field(1, gt=0, description="frames of a patch; a picture is all of them")
    many: bool = True
    placeholder: str = Field("<image>", min_length=1, description="what stands for an embedding within a text")
    start: str = Field("", description="text before the placeholders of a picture")
    row_end: str = Field("", description="text between two rows of tokens; none: they stand in one run")
    end: str = Field("", description="text behind the placeholders of a picture")

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        pixels = (self.min_pixels, self.max_pixels)
        if self.do_resize and (self.longest_edge is None) == (None in pixels):
            found = f"min_pixels is {self.min_pixels}, max_pixels {self.max_pixels} and longest_edge {self.longest_edge}"
            raise ValueError(f"{found}; wanted either both numbers of pixels, or the longest side")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels is {self.min_pixels}, more than max_pixels {self.max_pixels}")
        most = self.longest_edge**2 if self.longest_edge is not None else self.max_pixels or 0
        if most > MOST_PIXELS:
            raise ValueError(f"pictures may become {most:,} pixels large, more than {MOST_PIXELS:,}: set max_pixels or longest_edge lower")
        for name in ("image_mean", "image_std"):
            if (numbers := getattr(self, name)) is not None and len(numbers) != len(COLOURS):
                raise ValueError(f"{name} has {len(numbers)} numbers, wanted one for red, green and blue each")
            if numbers is None and self.do_normalize:
                raise ValueError(f"do_normalize needs {name}; give it, or set do_normalize: false")
        return self

    @property
    def patch_values(self) -> int:
        """Numbers of a patch."""
        return len(COLOURS) * self.temporal_patch_size * self.patch_size**2

    @property
    def space(self) -> Space:
        """The space of what is prepared."""
        mean, std = (self.image_mean, self.image_std) if self.do_normalize else (None, None)
        return pixel_space(mean, std)

    def given(self) -> dict[str, Any]:
        """The outputs of what is cut."""
        return {
            "patches": port("float[batch patches patch_values]", space=self.space),
            "grids": port(GRIDS, space=Space.of("grids", of="patches", group=self.merge_size)),
            "lengths": "int64[batch media]",
            "token_grids": port(GRIDS, space=Space.of("grids", of="tokens")),
            "words": "list[text]",
        }


@component("patches/prepare", kind="preprocess", load=f"{HERE}.preparing:load", cache=False)
class Prepare(Cutting):
    """Cut pictures of any size into patches, as a checkpoint's own processor does: resized a little, so that whole patches cover them.

    min_pixels, max_pixels  a picture keeps its proportions as far as whole groups of patches can, and has so many pixels (Qwen2-VL)
    longest_edge            or it is made smaller where it does not fit into a square of this side (Pixtral)
    many        each record is a list of pictures, which may be empty
    patches     float[batch patches values]: of each patch its colours, frames, rows and columns of numbers
    grids       of each picture its frames, rows and columns of patches, and 0 where a record has fewer pictures
    lengths, token_grids    the same of the groups of merge_size x merge_size patches that become one token: how many, and their grid
    words       the text that stands for each picture in a prompt, and in which `placeholder` stands once for each run of its tokens
    """

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the image processor of a checkpoint, and the tokens that its prompts mark pictures with."""
        return prepare_values(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the processor's files that are not known here."""
        return unheeded_pictures(source)

    def ports(self) -> Ports:
        """Pictures in; their patches, and what is known of each picture, out."""
        return Ports.of({"image": "list[image]" if self.many else "image"}, self.given())


@component("patches/frames", kind="preprocess", load=f"{HERE}.filming:load", cache=False)
class Frames(Cutting):
    """Cut films into patches of some frames each: as patches/prepare does it with pictures, all frames of a film at one size.

    fps          so many frames for each second of a film, evenly spread; None: all of them. At least min_frames, at most max_frames
    many         each record is a list of films, which may be empty
    paces        float[batch media]: how far apart patches of a film stand in time, for M-RoPE: their seconds times tokens_per_second
    The last frame stands again where frames do not fill patches.
    """

    fps: float | None = Field(None, gt=0, description="frames that are taken of each second; none: every frame")
    min_frames: int = Field(4, gt=0, description="frames that are taken at least, where a film has them")
    max_frames: int = Field(768, gt=0, description="frames that are taken at most")
    tokens_per_second: float | None = Field(None, gt=0, description="places in time for each second; none: one for each patch (Qwen2-VL)")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the video processor of a checkpoint, and the tokens that its prompts mark media with."""
        return frame_values(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """Give the keys of the processor's files that are not known here."""
        return unheeded_frames(source)

    @model_validator(mode="after")
    def _is_some(self) -> Self:
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames is {self.min_frames}, more than max_frames {self.max_frames}")
        return self

    def ports(self) -> Ports:
        """Films in; their patches, and what is known of each, out."""
        given = {**self.given(), "paces": "float[batch media]"}
        return Ports.of({"video": "list[video]" if self.many else "video"}, given)


@component("patches/encoder", kind="encoder", module=f"{HERE}.towers:Encoder", exportable=True, keywords=("eye",))
class Encoder(Config):
    """Turn patches into one vector each, with a vision transformer that knows each one's row and column by turning (2-D RoPE).

    layer        which layer gives the vectors: None for the last; otherwise the number that transformers' `hidden_states` has
    deep_layers  further layers, from 0, whose vectors are given as `deep`: float[batch layers patches hidden_size]
    num_position_embeddings  so many places of a square grid have a vector of their own, and a picture has that grid drawn over it
    window_size  patches see those of their own window of so many pixels alone, but for the layers `full_layers` (Qwen2.5-VL)
    What joins the patches behind the last layer is a component of its own: patches/merger.
    """

    family: str = Field("qwen2_vl", description="how the tower is built: a style such as qwen2_vl, qwen2_5_vl or pixtral")
    hidden_size: int = Field(1280, gt=0)
    intermediate_size: int = Field(5120, gt=0)
    num_hidden_layers: int = Field(32, gt=0)
    num_attention_heads: int = Field(16, gt=0)
    num_channels: int = Field(3, gt=0)
    patch_size: int = Field(14, gt=0, description="side of a patch in pixels")
    temporal_patch_size: int = Field(1, gt=0, description="frames of a patch")
    merge_size: int = Field(1, gt=0, description="side in patches of the groups that stand together")
    hidden_act: str = "gelu"
    rope_theta: float = Field(10000.0, gt=0, description="base of the frequencies of the turning")
    window_size: int | None = Field(None, gt=0, description="side of a window in pixels; none: patches see all of their picture")
    full_layers: tuple[int, ...] = Field((), description="layers without windows, from 0")
    deep_layers: tuple[int, ...] = Field((), description="layers whose vectors are given beside those of the last, from 0, in their order")
    num_position_embeddings: int | None = Field(None, gt=0, description="learned places, side by side of a square; none: there are none")
    layer: int | None = None
    image_mean: Numbers | None = Field(None, description="mean that the pictures must have been normalised with; None: any")
    image_std: Numbers | None = None

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read a vision config, and the layer that the model around it takes."""
        return eye_values(source)

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, str]]:
        """What the config of the tower states and this does not know."""
        return unheeded_eye(source)

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        styles = sorted({card.style for card in families().of_medium(MEDIUM).values()})
        if self.family not in styles:
            raise ValueError(f"family is {self.family!r}, wanted one of {', '.join(styles)}")
        check_layer(self.layer, self.num_hidden_layers)
        if self.window_size is not None and self.window_size < self.patch_size * self.merge_size:
            raise ValueError(
                f"window_size is {self.window_size}, less than a group of {self.merge_size} patches of {self.patch_size} pixels"
            )
        if "mlp_ratio" in self.card.settings and self.intermediate_size % self.hidden_size:
            raise ValueError(
                f"intermediate_size is {self.intermediate_size}, and a {self.family} has a multiple of its hidden_size {self.hidden_size}"
            )
        if wrong := [layer for layer in self.full_layers if not 0 <= layer < self.num_hidden_layers]:
            raise ValueError(f"full_layers names layer {wrong[0]}, and there are {self.num_hidden_layers}, from 0")
        self._have_layers()
        return self

    def _have_layers(self) -> None:
        """Raises ValueError for inner layers that are not there, or not in their order, and for places that are no square."""
        last = self.num_hidden_layers if self.layer is None else self.layer % (self.num_hidden_layers + 1)
        if wrong := [layer for layer in self.deep_layers if not 0 <= layer < last]:
            raise ValueError(f"deep_layers names layer {wrong[0]}, and {last} layers run, from 0")
        if list(self.deep_layers) != sorted({*self.deep_layers}):
            raise ValueError(f"deep_layers is {list(self.deep_layers)}, wanted: each layer once, in their order")
        count = self.num_position_embeddings
        if count is not None and math.isqrt(count) ** 2 != count:
            raise ValueError(f"num_position_embeddings is {count:,}, and they are to be the places of a square")
        if (count is None) == ("num_position_embeddings" in self.card.settings):
            raise ValueError(f"num_position_embeddings is {count}, and a {self.family} has {'' if count is None else 'no '}learned places")

    @property
    def card(self) -> TowerCard:
        """What its family says of it."""
        found = families().style(MEDIUM, self.family)
        assert found is not None, "the config was validated"
        return found

    @property
    def patch_values(self) -> int:
        """Numbers of a patch."""
        return self.num_channels * self.temporal_patch_size * self.patch_size**2

    def facts(self) -> dict[str, Any]:
        """The config that transformers builds the tower from."""
        card = self.card
        own = {key: getattr(self, word) for word, key in card.settings.items() if word != "mlp_ratio"}
        if "mlp_ratio" in card.settings:  # a whole number, which is checked
            own[card.settings["mlp_ratio"]] = self.intermediate_size // self.hidden_size
        return {**own, **card.fixed, "rope_parameters": {"rope_type": "axial", "rope_theta": self.rope_theta}}

    def ports(self) -> Ports:
        """Patches in, with the grid of each picture; a vector for each patch out."""
        patches = port("float[batch patches patch_values]", space=pixel_space(self.image_mean, self.image_std))
        grids = port(GRIDS, space=Space.of("grids", of="patches", group=self.merge_size))
        deep = {"deep": f"float[batch {len(self.deep_layers)} patches hidden_size]"} if self.deep_layers else {}
        return Ports.of({"patches": patches, "grids": grids}, {"tokens": "float[batch patches hidden_size]", **deep})

    def multiples(self) -> Mapping[str, int]:
        """Pictures are whole groups."""
        return {"patches": self.merge_size**2}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """The heads must share the width evenly, in parts that rows and columns turn."""
        yield from uneven_heads(node.name, self.hidden_size, self.num_attention_heads)
        head = self.hidden_size // self.num_attention_heads
        if self.hidden_size % self.num_attention_heads == 0 and head % 4:
            found = f"{node.name} has heads of {head} numbers, and rows and columns turn pairs of them, four together"
            yield "config-mismatch", found, "take heads whose width is a multiple of 4"

    def parameters(self) -> int:
        """Count the whole tower, also where only some of its layers run."""
        count = self.card.count
        assert count is not None, "every card of such a tower has a formula"
        return count({**self.model_dump(), "patch_values": self.patch_values})


@component("patches/merger", kind="projector", module=f"{HERE}.mergers:Merger", exportable=True)
class Merger(Config):
    """Join the patches of each square group into one token, and map it to the width of a language model.

    family  how: "layer" norms each patch and maps what a group has side by side by two layers (Qwen2-VL, Qwen3-VL); "rms" with an RMS norm
            (Qwen2.5-VL); "narrow" joins a group into the width of one patch first, and then maps it by two layers (Mistral 3)
    """

    family: Literal["layer", "rms", "narrow"] = Field("layer", description="how groups are normed, joined and mapped")
    in_features: Dim = None
    out_features: Dim = None
    merge_size: int = Field(2, gt=0, description="side of a group in patches")
    hidden_act: str = "gelu"
    bias: bool = Field(True, description="the two layers have biases")
    norm_eps: float = Field(1e-6, gt=0)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of the model around it. Raises ValueError for one that has no such part."""
        card = families().whole(source.root.get("model_type")).components.get("patches/merger")
        if card is None:
            raise ValueError(f"{source.text} is of no model that joins patches so: patches/merger serves {', '.join(_served())}")
        return {"family": card["family"], **told(source.root, card["fields"])}

    @property
    def joined(self) -> int:
        """Patches of a group."""
        return self.merge_size**2

    def ports(self) -> Ports:
        """So many times fewer vectors."""
        return Ports.of({"x": f"float[batch {self.joined}*tokens in_features]"}, {"y": "float[batch tokens out_features]"})

    def parameters(self) -> int:
        """Count the norm and the layers."""
        narrow, wide, out = self.in_features or 0, (self.in_features or 0) * self.joined, self.out_features or 0
        bias = int(self.bias)
        if self.family == "narrow":
            return narrow + wide * narrow + (narrow + bias) * out + (out + bias) * out
        return narrow * (2 if self.family == "layer" else 1) + (wide + bias) * wide + (wide + bias) * out


@component("patches/deep-merger", kind="projector", module=f"{HERE}.mergers:DeepMerger", exportable=True)
class DeepMerger(Config):
    """Join the patches of inner layers of an eye as patches/merger does, each layer by a norm and two layers of its own (Qwen3-VL).

    What comes of it is added to what the first layers of a decoder make of the picture: `image_deep` of llm/causal.
    """

    layers: Dim = Field(None, description="inner layers of the eye")
    in_features: Dim = None
    out_features: Dim = None
    merge_size: int = Field(2, gt=0, description="side of a group in patches")
    hidden_act: str = "gelu"
    norm_eps: float = Field(1e-6, gt=0)

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of the model around it. Raises ValueError for one that has no such part."""
        card = families().whole(source.root.get("model_type")).components.get(DEEP)
        if card is None:
            raise ValueError(f"{source.text} is of no model that joins inner layers so: {DEEP} serves {', '.join(_served(DEEP))}")
        found = told(source.root, card["fields"])
        return {**found, "layers": len(found["layers"])}

    @property
    def joined(self) -> int:
        """Patches of a group."""
        return self.merge_size**2

    def ports(self) -> Ports:
        """So many times fewer vectors of each layer."""
        given = {"x": f"float[batch layers {self.joined}*tokens in_features]"}
        return Ports.of(given, {"y": "float[batch layers tokens out_features]"})

    def parameters(self) -> int:
        """Count the norms and the layers."""
        wide, out = (self.in_features or 0) * self.joined, self.out_features or 0
        return (self.layers or 0) * (2 * wide + (wide + 1) * wide + (wide + 1) * out)


def _served(name: str = "patches/merger") -> list[str]:
    return sorted(kind for kind, whole in families().wholes.items() if name in whole.components)


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Prepare, Frames, Encoder, Merger, DeepMerger):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, Pixtral and Mistral Small 3.1."""
    for folder in sorted(PRESETS.iterdir()):
        register(f"preset:{folder.name}", folder)
