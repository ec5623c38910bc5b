"""Pictures out of noise: denoising loops around models of diffusers, what comes before and behind them, and their schedules.

Needs the extra `diffusion`, when a node is loaded and not before. The components are declared in the light modules `painting` and `latent`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelgraft import Config, Dim, Ports, component, hookimpl, port
from modelgraft_plugins.diffusion import filming, sounding, whole_film, whole_sound
from modelgraft_plugins.diffusion.latent import Decode, Encode, Noise
from modelgraft_plugins.diffusion.painting import Denoise, Flow, Scheduler
from modelgraft_plugins.diffusion.prompts import Prompt
from modelgraft_plugins.diffusion.rectified import FlowMLP, Interpolate, PictureMLP
from modelgraft_plugins.diffusion.spaces import COLOURS
from modelgraft_plugins.diffusion.whole import ImageToImage, TextToImage

RECORDED = Path(__file__).parent / "recorded"


@component(
    "diffusion/picture",
    kind="generator",
    load="modelgraft_plugins.diffusion.pictures:load",
    inputs={"pixels": port("float[batch 3 height width]", space=COLOURS)},
    outputs={"image": "image"},
)
class Picture(Config):
    """Turn pixels from -1 to 1 into pictures of 8 bits a colour."""


@component("diffusion/pixels", kind="preprocess", load="modelgraft_plugins.diffusion.pictures:load_pixels")
class Pixels(Config):
    """Turn pictures into pixels from -1 to 1, of the size that the loop behind the encoder has."""

    height: Dim = None
    width: Dim = None

    def ports(self) -> Ports:
        """Pictures of any size in."""
        return Ports.of({"image": "image"}, {"pixels": port("float[batch 3 height width]", space=COLOURS)})


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    pictures = (Prompt, Denoise, Flow, Scheduler, Decode, Encode, Noise, Picture, Pixels, TextToImage, ImageToImage)
    for declared in (
        *pictures,
        FlowMLP,
        PictureMLP,
        Interpolate,
        *sounding.COMPONENTS,
        *filming.COMPONENTS,
        whole_sound.TextToAudio,
        whole_film.TextToVideo,
    ):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Path], None]) -> None:
    """Offer published sizes: presets, and those that are known by an id on the hub under it as well."""
    register("stable-diffusion-v1-5/stable-diffusion-v1-5", RECORDED / "stable-diffusion-v1-5")
    for name in ("stable-diffusion-v1-5", "stable-diffusion-2", "stable-diffusion-xl", "stable-diffusion-3-medium"):
        register(f"preset:{name}", RECORDED / name)
    for source, name in {**sounding.ON_THE_HUB, **filming.ON_THE_HUB}.items():
        register(f"preset:{name}", RECORDED / name)
        register(source, RECORDED / name)
