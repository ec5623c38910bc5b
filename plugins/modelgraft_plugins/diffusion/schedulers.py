"""Schedulers of diffusers, by their config: how the steps of a denoising loop are taken. Imports none of the models."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from modelgraft.plugin import InputError, LoadContext, SourceError, choices, nearest
from modelgraft.plugin import Problem as Fault

try:
    from diffusers import schedulers
except ImportError as error:
    raise InputError("diffusion needs the package diffusers: pip install 'modelgraft[diffusion]'") from error


def load(config: Any, context: LoadContext) -> Callable[[], list[dict[str, Any]]]:  # noqa: ARG001 as every load has it
    """Give what gives the config of a scheduler, once it is known that one can be made of it."""
    try:
        scheduler_of(config.whole, steps=1)
    except SourceError as error:
        if config.name is None:
            raise
        raise InputError(f"with `name: {config.name}`, {error.noted[0].found.rstrip('.')}; write another `name`") from error
    return lambda: [config.whole]


def scheduler_of(config: Mapping[str, Any], *, steps: int, places: int = 0) -> Any:  # Any: diffusers has no common type for them
    """A scheduler that is set for so many steps.

    places  how many places the model attends to, by which some schedulers of flow matching shift their times

    Raises SourceError `source-damaged` for a class that is no scheduler, or does not go by a sample, a time and an answer; for
    keys that its class does not know; and for values that it cannot be made of.
    """
    name = config.get("_class_name")
    known = {found for found in dir(schedulers) if found.endswith("Scheduler") and not found.startswith("Flax")}
    if name not in known:
        raise _damaged(f"has _class_name: {name!r}, which is no scheduler of diffusers. {nearest(str(name), known)}".rstrip())
    subject: Any = getattr(schedulers, str(name))
    takes = list(inspect.signature(subject.step).parameters)[1:4]
    if takes != ["model_output", "timestep", "sample"]:
        raise _damaged(
            f"names {name}, whose steps take {choices(takes, sort=False)}; wanted those that take model_output, timestep, sample"
        )
    unknown = [key for key in _unknown(config, subject) if key not in ELSEWHERE and key not in _taken_over(config, known)]
    if unknown:
        raise _damaged(f"has keys that {name} does not know: {choices(unknown)}")
    try:
        made = subject.from_config(dict(config))
        made.set_timesteps(steps, **({"mu": shift_of(made.config, places)} if made.config.get("use_dynamic_shifting") else {}))
    except Exception as error:  # a config from elsewhere may hold anything
        raise _damaged(f"cannot be made into a {name} of {steps} steps: {type(error).__name__}: {' '.join(str(error).split())}") from error
    times, trained = made.timesteps, int(made.config.get("num_train_timesteps", 1000))
    if not times.is_floating_point() and int(times.max()) >= trained:  # whole times are places in a table
        raise _damaged(f"begins at the time {int(times.max())}, and knows 0 to {trained - 1}: take fewer steps than {steps}")
    return made


def left_out(config: Mapping[str, Any], scheduler: Any) -> list[str]:
    """Keys of a config that its class has no use for, by themselves and not because the user has named another class."""
    taken = _taken_over(config, {str(config.get("_taken_from"))})
    return [key for key in _unknown(config, type(scheduler)) if key in ELSEWHERE and key not in taken]


def shift_of(config: Mapping[str, Any], places: int) -> float:
    """How far times are shifted for pictures of so many places: on the line through the two that are stated.

    Source: arXiv 2403.03206, section 5.3.2, as diffusers computes it in `calculate_shift`.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (most - least) / (many - few)
    return float(places * slope + (least - slope * few))


def begun_at(scheduler: Any, *, steps: int, strength: float) -> Any:
    """The times of the last steps, so many that noise of this strength is taken away: float or int64[steps left].

    Raises InputError where no step is left.
    """
    # rounded as the library's pipelines of either kind round: SD3's keeps a step that is begun
    left = steps - int(max(steps - steps * strength, 0)) if hasattr(scheduler, "scale_noise") else min(int(steps * strength), steps)
    if left == 0:
        raise InputError(
            f"a strength of {strength} leaves none of {steps} steps; take more steps, or a strength of {1 / steps:.2g} or more"
        )
    first = (steps - left) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


def covered(scheduler: Any, start: Any, noise: Any, times: Any) -> Any:
    """Latents under the noise of the first of these times."""
    first = times[:1].repeat(len(start))
    if hasattr(scheduler, "scale_noise"):  # of flow matching
        return scheduler.scale_noise(start, first, noise)
    return scheduler.add_noise(start, noise, first)


def _unknown(config: Mapping[str, Any], subject: Any) -> list[str]:
    known = inspect.signature(subject.__init__).parameters
    return [key for key in config if not key.startswith("_") and key not in known]


def _taken_over(config: Mapping[str, Any], known: set[str]) -> Collection[str]:
    """Keys of another class whose config this was, and which this one has no use for."""
    other = config.get("_taken_from")
    return inspect.signature(getattr(schedulers, str(other)).__init__).parameters if other in known else ()


# What files of one scheduler keep of another they were made from, and diffusers itself hands over from one to the next: told by `left_out`.
ELSEWHERE = frozenset({"skip_prk_steps", "clip_sample", "set_alpha_to_one", "steps_offset", "trained_betas", "variance_type"})


def _damaged(found: str) -> SourceError:
    return SourceError(Fault("source-damaged", f"the config of the scheduler {found}", hint="repair scheduler/scheduler_config.json"))
