"""The denoising loop: a scheduler of diffusers around a UNet, whatever runs the UNet.

Source: diffusers 0.42, StableDiffusionPipeline.__call__; guidance after arXiv 2207.12598.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext, Loop, NodeRuntime, choices
from modelgraft_plugins.diffusion.schedulers import scheduler_of


class Denoise(Loop):
    """Asks the UNet for the noise in the latents, and takes a step away from it, as often as the config says."""

    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Make a scheduler once, so that a config that is none is told when it is loaded."""
        self.node = context.node.name
        scheduler_of(self.config.scheduler, steps=self.config.steps)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Tensor:  # noqa: ARG002 its one output
        """States of texts, what to be pushed from, and noise to begin with -> float[batch channels rows columns]."""
        states, away, noise = values if self.config.guidance > 1 else (values[0], None, values[1])
        if away is not None and away.shape != states.shape:
            found = f"{self.node}: `states` are {list(states.shape)} and `negative` are {list(away.shape)}; wanted: as many tokens in both"
            raise InputError(f"{found}; let the tokenizer write texts of one length: padding: max_length")
        scheduler = scheduler_of(self.config.scheduler, steps=self.config.steps)  # holds what was asked before: one for each run
        latents: Tensor = self._noise(states) if noise is None else noise.to(states)
        if latents.shape[0] != states.shape[0]:
            raise InputError(f"{self.node}: {latents.shape[0]} latents for {states.shape[0]} texts; wanted as many")
        latents = latents * scheduler.init_noise_sigma
        asked = states if away is None else torch.cat([away, states])
        more = self._more(scheduler, len(latents))
        for done, time in enumerate(scheduler.timesteps):
            self.runtime.check()
            noise = self._seen(parts["unet"], scheduler, latents, time, asked)
            latents = scheduler.step(noise, time, latents, **more, return_dict=False)[0]
            self.runtime.emit("progress", done=done + 1, total=len(scheduler.timesteps))
        return latents

    def _noise(self, states: Tensor) -> Tensor:
        """What to begin with: drawn on the host by the seed, and one for all records, so that each is what it is alone."""
        shape = (1, self.config.channels, self.config.rows, self.config.columns)
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(self.runtime.node_seed()))
        return drawn.to(states).expand(states.shape[0], -1, -1, -1)

    def _seen(self, unet: Any, scheduler: Any, latents: Tensor, time: Tensor, asked: Tensor) -> Tensor:
        """The noise that the UNet sees, under guidance in one call for both texts."""
        twice = torch.cat([latents, latents]) if len(asked) > len(latents) else latents
        sample = scheduler.scale_model_input(twice, time)
        noise: Tensor = unet(sample, time.to(sample).expand(len(sample)), asked)
        if len(asked) == len(latents):
            return noise
        without, with_ = noise.chunk(2)
        guided: Tensor = without + self.config.guidance * (with_ - without)
        return guided

    def _more(self, scheduler: Any, count: int) -> dict[str, Any]:
        """What some schedulers take beside: noise of their own comes from the seed, for each record the same."""
        takes = inspect.signature(scheduler.step).parameters
        if self.config.eta and "eta" not in takes:
            found = f"{self.node}: eta is {self.config.eta}, and {type(scheduler).__name__} has none"
            raise InputError(f"{found}; it takes {choices(takes)}: leave eta out")
        seeds = [torch.Generator().manual_seed(self.runtime.node_seed() + 1) for _ in range(count)]
        return {**({"eta": self.config.eta} if "eta" in takes else {}), **({"generator": seeds} if "generator" in takes else {})}
