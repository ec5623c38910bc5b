"""The models of AudioLDM: CLAP's reading of a text, the UNet that is told one vector, and the decoder of mel bands."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import normalize

from modelgraft.plugin import Weights
from modelgraft_plugins.diffusion.building import Answering, Asking
from modelgraft_plugins.diffusion.vae import LatentDecoder
from modelgraft_plugins.huggingface import build, convert

COUNTED = ("position_ids", "token_type_ids")  # numbers that files hold or leave out: they follow from the sizes


class Clap(nn.Module):
    """The text side of CLAP, with the projection of its vector.

    ids      int64[batch text_tokens]
    mask     bool[batch text_tokens], True where there is a token; None: everywhere
    returns  float[batch projection_dim], of the length 1
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.model: Any = build(config.facts, "ClapTextModelWithProjection")  # Any: transformers is only partly annotated
        self.optional_keys = tuple(key for key in self.state_dict() if key.endswith(COUNTED))

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors of the text side; what there is of the other side of a whole CLAP is another's."""
        state = {key: tensor for key, tensor in weights.state().items() if key.startswith(("text_model.", "text_projection."))}
        return convert(state, self.model, prefix="model.")

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Read texts."""
        vector: Tensor = self.model(input_ids=ids, attention_mask=None if mask is None else mask.to(ids.dtype)).text_embeds
        return normalize(vector, dim=-1)


class Denoiser(Asking):
    """The UNet of AudioLDM, as one part."""

    def __init__(self, config: Any) -> None:
        super().__init__(config.part, Noise("UNet2DConditionModel", config.unet))


class Noise(Answering):
    """The noise that a UNet sees in latents of bands, where it attends to nothing beside them."""

    def forward(self, sample: Tensor, time: Tensor, prompt_embeds: Tensor) -> Tensor:
        """float[batch channels rows columns], float[batch], float[batch d] -> float[batch channels rows columns]."""
        noise: Tensor = self.model(sample, time, encoder_hidden_states=None, class_labels=prompt_embeds, return_dict=False)[0]
        return noise


class MelDecoder(LatentDecoder):
    """The decoder of a VAE whose pictures are bands over time."""

    def forward(self, latents: Tensor) -> Tensor:
        """float[batch channels rows columns] -> float[batch frames mels]."""
        return super().forward(latents).squeeze(1)
