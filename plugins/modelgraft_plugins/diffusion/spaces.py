"""What the values on wires between the parts of a generator mean: latents, states of prompts, and schedules. Light.

Two spaces agree where both state a fact and it is equal: what a checkpoint does not say is not checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft import Space, port

COLOURS = Space.of("colours", lowest=-1, highest=1)
# How noise is added where a config leaves it out: beta_schedule, beta_start and beta_end of the classes of diffusers 0.42.
BETAS: Mapping[str, tuple[str, float, float]] = {
    **dict.fromkeys(
        (
            "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler", "DEISMultistepScheduler",
            "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
            "LMSDiscreteScheduler", "PNDMScheduler", "SASolverScheduler", "UniPCMultistepScheduler",
        ),
        ("linear", 0.0001, 0.02),
    ),
    **dict.fromkeys(("HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler"), ("linear", 0.00085, 0.012)),
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), ("scaled_linear", 0.00085, 0.012)),
}  # fmt: skip
FLOW = "flow"  # what models of flow matching answer: the way from the picture to the noise


def latent_space(scale: float, shift: float = 0.0) -> Space:
    """Latents as a denoising loop has them: what a VAE gives, less the shift, times the scale."""
    return Space.of("latent", scale=scale, shift=shift)


def latents(axes: str, scale: float, shift: float = 0.0) -> Any:
    """The type of latents; those of another scale mean something else."""
    return port(f"float[{axes}]", space=latent_space(scale, shift))


def prompt_space(encoder: Mapping[str, Any] | None, *, layer: int | None = None) -> Space:
    """States of a prompt, by the text encoder that gives them: its config, and the layer from the end where not the last.

    Without a config it is not said which encoder it is.
    """
    if not encoder or "hidden_size" not in encoder:
        return Space.of("prompt")
    said = "x".join(str(encoder[key]) for key in ("hidden_size", "num_hidden_layers") if key in encoder)
    return Space.of("prompt", encoder=f"{encoder.get('model_type', 'text')} {said}", layer=layer)


def prediction_of(scheduler: Mapping[str, Any]) -> str | None:
    """What a scheduler takes the answers of a model for: epsilon, v_prediction, sample or flow. None: it has no say of its own.

    Source: diffusers, in whose configs `prediction_type` is epsilon where it is left out, and schedulers of flow matching have none.
    """
    name = str(scheduler.get("_class_name", ""))
    if not name:
        return None
    if name.startswith("FlowMatch") or scheduler.get("use_flow_sigmas"):
        return FLOW
    found = str(scheduler.get("prediction_type", "epsilon"))
    return FLOW if found == "flow_prediction" else found


def schedule_space(scheduler: Mapping[str, Any]) -> Space:
    """How noise is added and what the answer is: a model serves the schedulers that agree with what it was trained with."""
    if prediction_of(scheduler) == FLOW:
        return Space.of("schedule", prediction=FLOW)
    left_out = BETAS.get(str(scheduler.get("_class_name", "")), (None, None, None))
    keys = ("beta_schedule", "beta_start", "beta_end")
    betas = tuple(scheduler.get(key, default) for key, default in zip(keys, left_out, strict=True))
    is_said = None not in betas and scheduler.get("trained_betas") is None
    return Space.of("schedule", prediction=prediction_of(scheduler), betas=betas if is_said else None)
