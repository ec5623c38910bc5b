"""Pictures out of noise: denoising loops around models of diffusers, what comes before and behind them, and their schedules.

Needs the extra `diffusion`, when a node is loaded and not before. The components are declared in the light modules `painting` and `latent`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelgraft import Config, component, hookimpl, port
from modelgraft_plugins.diffusion import filming, sounding
from modelgraft_plugins.diffusion.latent import Decode, Encode, Noise
from modelgraft_plugins.diffusion.painting import Denoise
from modelgraft_plugins.diffusion.spaces import COLOURS

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


@hookimpl
def register_components(register: Callable[[object], None]) -> None:
    """Offer the components."""
    for declared in (Denoise, Decode, Encode, Noise, Picture, *sounding.COMPONENTS, *filming.COMPONENTS):
        register(declared)


@hookimpl
def register_recorded_configs(register: Callable[[str, Path], None]) -> None:
    """Offer the published sizes."""
    register("stable-diffusion-v1-5/stable-diffusion-v1-5", RECORDED / "stable-diffusion-v1-5")
    for source, name in {**sounding.ON_THE_HUB, **filming.ON_THE_HUB}.items():
        register(f"preset:{name}", RECORDED / name)
        register(source, RECORDED / name)
