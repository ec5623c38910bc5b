"""Resamplers: from any number of vectors to a fixed number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from modelgraft import Config, Dim, Port, Ports, component, hookimpl, port
from modelgraft.plugin import families
from modelgraft_plugins.resampler.grouped import Grouped
from modelgraft_plugins.stated import told

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source


@component("resampler/perceiver", kind="resampler", module="modelgraft_plugins.resampler.modules:Perceiver", exportable=True)
class Perceiver(Config):
    """Let learned latents read any number of vectors: Flamingo's Perceiver Resampler, or that of IDEFICS.

    many            several media per record: an axis `images` before the vectors, in and out
    max_num_frames  media may be videos: an axis `frames` before the vectors, with one learned vector per frame; without the axis a
                    medium is a picture, a video of one frame. `frames` says how many of them each medium has, where they are unlike many
    more_frames     what becomes of a longer video: refused, as by OpenFlamingo, or its frames stand between the learned ones (Flamingo)
    max_num_media   with one learned vector for the first, second, ... medium of a record
    A config of a model says which family it is; a file of OpenFlamingo says all but `num_heads` and `head_dim`, which are the
    same in all that were published.
    """

    family: Literal["flamingo", "idefics"] = Field("flamingo", description="how it is built")
    hidden_size: Dim = Field(None, description="width of the vectors and of the latents")
    depth: int = Field(6, gt=0, description="how often the latents read the vectors")
    num_heads: int = Field(8, gt=0, description="heads of the attention")
    head_dim: int = Field(64, gt=0, description="width of a head")
    num_latents: int = Field(64, gt=0, description="how many vectors come out")
    ff_mult: int = Field(4, gt=0, description="width of the feed-forward layers, in widths of the latents")
    qk_norms: bool = Field(False, description="idefics: queries and keys are normed per head")
    max_num_frames: int | None = Field(None, gt=0, description="frames of a video that have a learned vector; none: media are pictures")
    more_frames: Literal["refuse", "interpolate"] = Field("refuse", description="videos of more frames than have a learned vector")
    activation: Literal["gelu", "squared_relu"] = Field(
        "gelu", description="flamingo: of the feed-forward layers; the paper's is the other"
    )
    max_num_media: int | None = Field(None, gt=0, description="media of a record that have a learned vector; none: none has")
    many: bool = Field(False, description="several media per record")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the config of an IDEFICS, or the config and the shapes of the tensors of an OpenFlamingo."""
        card = families().whole(source.root.get("model_type")).components.get("resampler/perceiver", {})
        if "family" in card:  # all of it stands in the config of the whole
            return {"family": card["family"], **told(source.root, card["fields"])}
        stated = told(source.config, card.get("fields", {}))
        shapes = source.tensor_shapes()
        return {**stated, **(_of_tensors(source.text, shapes) if shapes else {})}

    def ports(self) -> Ports:
        """Vectors of a picture, of several, or of videos in; as many latents for each medium out."""
        axes = "batch images" if self.many else "batch"
        media: str | Port = f"float[{axes} tokens hidden_size]"
        given = {"media": media}
        if self.max_num_frames:
            frames = port(f"optional[int64[{axes}]]", doc="how many frames each medium has, 0 of one that fills up; unwired: all")
            given = {"media": port(f"float[{axes} frames tokens hidden_size] | {media}"), "frames": frames}
        return Ports.of(given, {"latents": f"float[{axes} num_latents hidden_size]"})

    def most(self) -> Mapping[str, int]:
        """There are no more learned vectors."""
        learned = {"images": self.max_num_media, "frames": self.max_num_frames if self.more_frames == "refuse" else None}
        return {name: count for name, count in learned.items() if count is not None}

    def parameters(self) -> int:
        """Count by formula."""
        width, inner = self.hidden_size or 0, self.num_heads * self.head_dim
        norm = 2 * width
        head_norms = 2 * 2 * self.head_dim if self.qk_norms else 0
        layer = 2 * norm + 4 * width * inner + head_norms + norm + 2 * self.ff_mult * width * width
        learned = self.num_latents + (self.max_num_frames or 0) + (self.max_num_media or 0)
        return self.depth * layer + norm + learned * width

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """What only one of the families has."""
        of_flamingo = {
            "max_num_frames": self.max_num_frames,
            "max_num_media": self.max_num_media,
            "more_frames": self.more_frames == "interpolate",
        }
        of_flamingo["activation"] = self.activation != "gelu"
        theirs = {"flamingo": (("qk_norms", self.qk_norms),)}.get(self.family, tuple(of_flamingo.items()))
        for name, value in theirs:
            if value:
                found = f"{node.name} has {name}: {getattr(self, name)}, which the {self.family} family does not have"
                yield "config-mismatch", found, f"leave {name} out"


def _of_tensors(text: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    latents, inner = shapes.get("latents"), shapes.get("layers.0.1.1.weight")
    if latents is None or inner is None:
        known = "OpenFlamingo's #perceiver or IDEFICS' #perceiver_resampler"
        raise ValueError(f"{text} holds no Perceiver Resampler, such as {known}")
    found: dict[str, Any] = {
        "num_latents": latents[0], "hidden_size": latents[1], "ff_mult": inner[0] // inner[1],
        "depth": len({name.split(".")[1] for name in shapes if name.startswith("layers.")}),
    }  # fmt: skip
    learned = {"max_num_frames": shapes.get("frame_embs"), "max_num_media": shapes.get("media_time_embs")}
    return found | {name: shape[0] for name, shape in learned.items() if shape is not None}


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Perceiver)
    register(Grouped)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the sizes of OpenFlamingo, which was published without a config: they are the arguments of its code."""
    register("preset:openflamingo-9b", Path(__file__).parent / "presets" / "openflamingo-9b")
