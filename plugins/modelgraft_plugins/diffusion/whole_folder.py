"""What every whole generator is told, and what it says of how it is wired. Light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from modelgraft import Config, port
from modelgraft_plugins.diffusion.spaces import schedule_space
from modelgraft_plugins.diffusion.stepping import Denoising

if TYPE_CHECKING:
    from modelgraft.plugin import SolvedNode

Loop = TypeVar("Loop", bound=Denoising)


class WholeFolder(Config):
    """A whole folder in the layout of diffusers.

    model, vae  configs of the loop and of the decoder, by the folder
    steps, guidance, eta, seed, and what `over` names more  go over what the folder says of the loop; None: as it has it
    """

    over: ClassVar[tuple[str, ...]] = ("steps", "guidance", "eta", "seed")  # what stands here and goes over the folder
    hint: ClassVar[str] = "name a whole folder in the layout of diffusers"

    model: dict[str, Any] = Field({}, description="config of the loop, such as diffusion/denoise")
    vae: dict[str, Any] = Field({}, description="config of the decoder, such as diffusion/decode")
    steps: int | None = Field(None, gt=0, le=1000)
    guidance: float | None = Field(None, ge=1)
    eta: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**62, description="of what is drawn; None: that of the run")
    scheduler: dict[str, Any] = Field({}, description="another config of a scheduler")

    def loop_of(self, kind: type[Loop], **more: Any) -> Loop:
        """The loop: as the folder has it, but for what stands here, and with `more`, which are fields of its kind."""
        over = {name: value for name in self.over if (value := getattr(self, name)) is not None}
        other = {"scheduler": self.scheduler} if self.scheduler else {}
        return kind(**{**self.model, **over, **other, **more})

    def reviewed(self, node: SolvedNode, loop: Denoising) -> Iterable[tuple[str, str, str]]:
        """What the loop would say; and nothing to make something of, or two things at once."""
        yield from loop.review(node)
        given = [name for name in ("prompt", "prompt_embeds") if name in node.wired]
        if len(given) != 1:
            found = "neither `prompt` nor `prompt_embeds`" if not given else "both `prompt` and `prompt_embeds`"
            yield "config-mismatch", f"{node.name} is given {found}", "wire one of them"


class OfText(WholeFolder):
    """One that is told one thing of a text, made by one text encoder."""

    text: dict[str, Any] = Field({}, description="the config of the text encoder")

    @property
    def denoiser(self) -> Denoising:
        """The loop."""
        raise NotImplementedError

    def inputs(self) -> dict[str, Any]:
        """A text or what an encoder made of it, and the same of what is to be avoided; noise, and a schedule, where they are given."""
        denoiser = self.denoiser
        (one,) = denoiser.asked()
        found: dict[str, Any] = {"prompt": "optional[text]", "prompt_embeds": port(f"optional[float[batch {one.axes}]]", space=one.space)}
        if denoiser.is_guided:
            found["negative"] = "optional[text]"
            found["negative_prompt_embeds"] = port(f"optional[float[batch {one.away_axes or one.axes}]]", space=one.space)
        found["latents"] = denoiser.ports().inputs["latents"]
        found["schedule"] = port("optional[object]", space=schedule_space(denoiser.trained), doc="of diffusion/scheduler")
        return found

    def export_facts(self) -> Mapping[str, Any]:
        """Those of the parts."""
        return {"text": self.text, "model": dict(self.denoiser.export_facts()), "vae": self.vae}

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:
        """A folder without a loop, and how it is wired."""
        if not self.model:
            yield "config-mismatch", f"{node.name} has no model", self.hint
            return
        yield from self.reviewed(node, self.denoiser)
