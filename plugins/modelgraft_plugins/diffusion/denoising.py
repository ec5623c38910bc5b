"""The denoising loop: a scheduler of diffusers around a model, whatever the model is and whatever runs it.

Source: diffusers 0.42, StableDiffusionPipeline.__call__ and its siblings; guidance after arXiv 2207.12598.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext, Loop, NodeRuntime, choices
from modelgraft_plugins.diffusion.noise import drawn
from modelgraft_plugins.diffusion.previews import previews
from modelgraft_plugins.diffusion.schedulers import begun_at, covered, left_out, scheduler_of
from modelgraft_plugins.diffusion.stepping import Denoising


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked with beside latents and a time, under guidance for both sides in one tensor: away, then towards."""

    values: tuple[Tensor, ...]
    records: int
    is_guided: bool


class Denoise(Loop):
    """Asks the model what it sees in the latents, and takes a step away from it, as often as the config says."""

    config: Denoising
    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Make a scheduler once, so that a config that is none is told when it is loaded."""
        self.node, self.names = context.node.name, tuple(self.config.ports().inputs)
        if "schedule" not in context.node.wired:
            self._scheduler(None)

    def bind(self, runtime: NodeRuntime) -> None:
        """Take seed, events and cancellation from the run."""
        self.runtime = runtime

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Tensor:  # noqa: ARG002 its one output
        """What the ports of the config give -> float[batch ...], the latents."""
        return self.denoised(dict(zip(self.names, values, strict=False)), parts[self.config.part])

    def denoised(self, given: Mapping[str, Any], model: Any) -> Tensor:
        """The loop.

        given  the values of the ports by their names;  model  what is asked

        Raises InputError where they do not go together, and Cancelled between two steps.
        """
        question = self._question(given)
        scheduler = self._scheduler(given["schedule"])  # holds what was asked before: one for each run
        self._tell_left_out(given["schedule"], scheduler)
        latents, times = self._begun(given, scheduler, question)
        more = self._more(scheduler, question.records)
        for done, time in enumerate(times, start=1):
            self.runtime.check()
            answer = self._answer(model, scheduler, latents, time, question)
            latents = scheduler.step(answer, time, latents, **more, return_dict=False)[0]
            self.runtime.emit("progress", done=done, total=len(times))
            if self.config.preview and done % self.config.preview == 0:
                for record, image in enumerate(previews(latents, scale=self.config.scale)):
                    self.runtime.emit("preview", image=image, record=record, done=done, total=len(times))
        return latents

    def _question(self, given: Mapping[str, Any]) -> Question:
        """What is asked for, and under guidance what is to be avoided before it. Raises InputError where the two differ in shape."""
        asked, records = [], 1
        for one in self.config.asked():
            towards, away = given[one.name], given.get(one.away)
            records = len(towards)
            if away is None and self.config.is_guided:
                away = torch.zeros_like(towards) if one.unsaid else towards
            if away is not None and away.shape != towards.shape:
                found = f"{self.node}: `{one.name}` are {list(towards.shape)} and `{one.away}` are {list(away.shape)}"
                raise InputError(
                    f"{found}; wanted: as many tokens in both; let the tokenizer write texts of one length: padding: max_length"
                )
            asked.append(towards if away is None else torch.cat([away, towards]))
        return Question(tuple(asked), records, self.config.is_guided)

    def _begun(self, given: Mapping[str, Any], scheduler: Any, question: Question) -> tuple[Tensor, Sequence[Tensor]]:
        """The latents before the first step, and the times of the steps."""
        like = question.values[0]
        noise = given["latents"]
        noise = self._noise(like, question.records) if noise is None else noise.to(like)
        self._as_many(noise, question, name="latents")
        if self.config.strength is None:
            return noise * getattr(scheduler, "init_noise_sigma", 1.0), scheduler.timesteps
        start = given["start"].to(like)
        self._as_many(start, question, name="start")
        times = begun_at(scheduler, steps=self.config.steps, strength=self.config.strength)
        return covered(scheduler, start, noise, times), times

    def _as_many(self, latents: Tensor, question: Question, *, name: str) -> None:
        if latents.shape[0] != question.records:
            raise InputError(f"{self.node}: {latents.shape[0]} {name} for {question.records} texts; wanted as many")

    def _noise(self, like: Tensor, records: int) -> Tensor:
        """What to begin with: drawn on the host by the seed, and one for all records, so that each is what it is alone."""
        one = drawn((1, *self.config.grid), seed=self._seed)
        return one.to(like).expand(records, *one.shape[1:])

    @property
    def _seed(self) -> int:
        """That of the config, or of the node in this run."""
        return self.runtime.node_seed() if self.config.seed is None else self.config.seed

    def _answer(self, model: Any, scheduler: Any, latents: Tensor, time: Tensor, question: Question) -> Tensor:
        """What the model sees, under guidance in one call for both sides."""
        sample = torch.cat([latents, latents]) if question.is_guided else latents
        if hasattr(scheduler, "scale_model_input"):
            sample = scheduler.scale_model_input(sample, time)
        answer: Tensor = model(sample, time.to(sample).expand(len(sample)), *question.values)
        if not question.is_guided:
            return answer
        without, with_ = answer.chunk(2)
        guided: Tensor = without + self.config.guidance * (with_ - without)
        return guided

    def _scheduler(self, given: Sequence[Mapping[str, Any]] | None) -> Any:
        """A scheduler of its own for a run: that of the config, or the one that is wired."""
        config = given[0] if given else self.config.scheduler
        return scheduler_of(config, steps=self.config.steps, places=self.config.places)

    def _tell_left_out(self, given: Sequence[Mapping[str, Any]] | None, scheduler: Any) -> None:
        """What the config of the scheduler has and its class does not know."""
        if keys := left_out(given[0] if given else self.config.scheduler, scheduler):
            said = f"the config of the scheduler has {choices(keys)}, which {type(scheduler).__name__} does not know and leaves out"
            self.runtime.emit("warning", text=said)

    def _more(self, scheduler: Any, count: int) -> dict[str, Any]:
        """What some schedulers take beside: noise of their own comes from the seed, for each record the same."""
        takes = inspect.signature(scheduler.step).parameters
        if self.config.eta and "eta" not in takes:
            found = f"{self.node}: eta is {self.config.eta}, and {type(scheduler).__name__} has none"
            raise InputError(f"{found}; it takes {choices(takes)}: leave eta out")
        seeds = [torch.Generator().manual_seed(self._seed + 1) for _ in range(count)]
        return {**({"eta": self.config.eta} if "eta" in takes else {}), **({"generator": seeds} if "generator" in takes else {})}
