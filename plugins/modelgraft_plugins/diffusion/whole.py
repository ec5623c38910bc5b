"""A whole folder in the layout of diffusers as one node: text encoders, model, scheduler and VAE. Light.

What it is made of are the configs of the separate components, and what it does is what they do one after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from modelgraft import Ports, component, port
from modelgraft_plugins.diffusion.latent import Decode, Encode
from modelgraft_plugins.diffusion.painting import TRANSFORMER, Denoise, Flow, Painting
from modelgraft_plugins.diffusion.prompts import HINT, Prompt
from modelgraft_plugins.diffusion.spaces import COLOURS, latents, schedule_space
from modelgraft_plugins.diffusion.whole_folder import WholeFolder

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode, Source

MODULE, LOOP = "modelgraft_plugins.diffusion.wholes:Whole", "modelgraft_plugins.diffusion.wholes:Paint"


class Whole(WholeFolder):
    """What a whole generator of pictures is told; None: as its folder has it.

    texts, model, vae  configs of diffusion/prompt, of diffusion/denoise or diffusion/flow, and of diffusion/decode, by the folder
    steps, guidance, eta, seed, preview, height, width  as diffusion/denoise has them
    blank     where nothing is to be avoided, zeros are, in place of the states of an empty text
    """

    over: ClassVar[tuple[str, ...]] = (*WholeFolder.over, "preview", "height", "width")
    hint: ClassVar[str] = HINT

    texts: dict[str, Any] = Field({}, description="config of diffusion/prompt")
    preview: int | None = Field(None, ge=0, description="steps between two pictures of how far it is")
    height: int | None = Field(None, gt=0)
    width: int | None = Field(None, gt=0)
    blank: bool = Field(False, description="zeros stand for the states of a text to be avoided that is not given")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:
        """Read the configs of a whole folder."""
        root = source.root
        if source.part or not str(root.get("_class_name", "")).startswith("StableDiffusion"):
            raise ValueError(f"{source.text} is no whole Stable Diffusion: {HINT}")
        kind = (root.get("transformer") or root.get("unet") or [None, None])[1]
        inner = (Flow, "transformer") if kind == TRANSFORMER else (Denoise, "unet")
        model = inner[0].from_source(source.at(inner[1]))
        found = {"texts": Prompt.from_source(source), "model": model, "vae": Decode.from_source(source.at("vae"))}
        return {**found, "blank": bool(root.get("force_zeros_for_empty_prompt"))}

    @property
    def prompting(self) -> Prompt:
        """The text encoders."""
        return Prompt(**self.texts)

    @property
    def painter(self) -> Painting:
        """The loop."""
        return self.loop_of(Flow if "transformer" in self.model else Denoise, **self.begun())

    @property
    def decoder(self) -> Decode:
        """What makes pixels."""
        return Decode(**self.vae)

    def begun(self) -> Mapping[str, Any]:
        """What the loop is told of how it begins."""
        return {}

    @property
    def d(self) -> int:
        """Width of the states that the model reads."""
        return int(self.model.get("d") or 0)

    @property
    def pooled_size(self) -> int:
        """Width of the vector that it reads."""
        return int(self.model.get("pooled_size") or 0)

    @property
    def channels(self) -> int:
        """Channels of latents."""
        return self.painter.channels

    @property
    def rows(self) -> int:
        """Rows of latents."""
        return self.painter.rows

    @property
    def columns(self) -> int:
        """Columns of latents."""
        return self.painter.columns

    def ports(self) -> Ports:
        """A text, or states of one; noise, and a schedule, where they are given; a picture and its latents out."""
        painter = self.painter
        inputs: dict[str, Any] = {"prompt": "optional[text]"}
        if painter.is_guided:
            inputs["negative"] = "optional[text]"
        for one in painter.asked():
            name = "prompt_embeds" if one.name == "states" else one.name
            axes = f"optional[float[batch {one.axes}]]"
            inputs[name] = port(axes, space=one.space)
            if painter.is_guided:
                inputs[f"negative_{name}"] = port(axes.replace("tokens", "away_tokens"), space=one.space)
        grid = latents("batch channels rows columns", painter.scale, painter.shift)
        inputs["latents"] = port(f"optional[{grid}]", space=grid.space, doc="the noise to begin with")
        inputs["schedule"] = port("optional[object]", space=schedule_space(painter.trained), doc="of diffusion/scheduler")
        return Ports.of(inputs, {"image": "image", "latents": grid})

    def parts(self) -> Mapping[str, Ports]:
        """Each text encoder, the model, and the decoder."""
        painter = self.painter
        return {**self.prompting.parts(), **painter.parts(), "decode": Ports.of({"latents": GRID}, {"pixels": self._pixels()})}

    def _pixels(self) -> str:
        side = self.painter.shrink
        return f"float[batch 3 {side}*rows {side}*columns]"

    def parameters(self) -> int | None:
        """All of them."""
        model = self.painter.parameters()
        return None if model is None else self.prompting.parameters() + model + self.decoder.parameters()

    def export_facts(self) -> Mapping[str, Any]:
        """Those of the parts."""
        return {"texts": dict(self.prompting.export_facts()), "model": dict(self.painter.export_facts()), "vae": self.vae}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """What the loop would say; a folder without a loop; and nothing to draw, or two things at once."""
        if not self.model:
            yield "config-mismatch", f"{node.name} has no model", self.hint
            return
        yield from self.reviewed(node, self.painter)
        lacking = [f"{before}pooled" for before in ("", "negative_") if f"{before}prompt_embeds" in node.wired]
        for name in lacking:
            if self.pooled_size and name not in node.wired:
                found = f"{node.name}.{name.replace('pooled', 'prompt_embeds')} is wired, and the vector that goes with it is not"
                yield "config-mismatch", found, f"wire {name} as well"


GRID = "float[batch channels rows columns]"


@component("diffusion/text-to-image", kind="generator", module=MODULE, loop=LOOP, exportable=True, random=True)
class TextToImage(Whole):
    """Draw what a text says, with a whole folder in the layout of diffusers: Stable Diffusion 1, 2, XL or 3.

    texts, model, vae  configs of diffusion/prompt, of diffusion/denoise or diffusion/flow, and of diffusion/decode, by the folder
    steps, guidance, eta, seed, preview, height, width  as diffusion/denoise has them; None: as the folder has it
    blank     where nothing is to be avoided, zeros are, in place of the states of an empty text

    It takes `prompt`, or its states as `prompt_embeds`; and what to avoid as `negative`, or as `negative_prompt_embeds`.
    """


@component("diffusion/image-to-image", kind="generator", module=MODULE, loop=LOOP, exportable=True, random=True)
class ImageToImage(Whole):
    """Draw over a picture what a text says, with a whole folder in the layout of diffusers: Stable Diffusion 1, 2, XL or 3.

    strength  how far the picture is hidden by noise before the first step: 1 hides it, 0 would keep it;  the rest as in text-to-image
    """

    strength: float = Field(0.8, gt=0, le=1)

    def begun(self) -> Mapping[str, Any]:
        """With a picture."""
        return {"strength": self.strength}

    @property
    def encoder(self) -> Encode:
        """What makes latents of the picture."""
        return Encode(**self.vae)

    def ports(self) -> Ports:
        """A picture as well."""
        found = super().ports()
        return Ports.of({"image": "image", **found.inputs}, found.outputs)

    def parts(self) -> Mapping[str, Ports]:
        """The encoder as well."""
        return {**super().parts(), "encode": Ports.of({"pixels": port(self._pixels(), space=COLOURS)}, {"latents": GRID})}

    def parameters(self) -> int | None:
        """With the encoder."""
        found = super().parameters()
        return None if found is None else found + self.encoder.parameters()
