"""The Perceiver Resamplers behind `resampler/perceiver`: Flamingo's from perceiver.py, that of IDEFICS from transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from modelgraft.plugin import InputError
from modelgraft_plugins.resampler.perceiver import PerceiverResampler

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.resampler import Perceiver as PerceiverConfig

CLIPS = 5  # axes of media that have frames: records, media, frames, vectors, their width


class Perceiver(nn.Module):
    """A fixed number of vectors for each medium.

             a medium of zeros alone, which fills up a record that has fewer than others, gives zeros
    media    float[batch tokens width], with an axis `images` if `many`, then with one `frames` or without if `max_num_frames` is set
    frames   int64[batch], with the axis `images` if `many`: how many frames each medium has, 0 of one that fills up; None: all
    returns  float[batch latents width], with the axis `images` if there was one

    Raises InputError for more frames or media than have a learned vector.
    """

    def __init__(self, config: PerceiverConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _of_idefics(config) if config.family == "idefics" else _of_flamingo(config)

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """The part holds the tensors under the names that they have here."""
        return {f"model.{name}": tensor for name, tensor in weights.state().items()}

    def forward(self, media: Tensor, frames: Tensor | None = None) -> Tensor:
        """Resample each medium."""
        config = self.config
        media = media if config.many else media[:, None]
        self._refuse_more("images", media.shape[1], config.max_num_media)
        if config.family == "idefics":
            latents: Tensor = self.model(media.flatten(0, 1))
            latents = latents.reshape(*media.shape[:2], *latents.shape[1:])
        else:
            clips = media if media.ndim == CLIPS else media[:, :, None]
            if config.more_frames == "refuse":
                self._refuse_more("frames", clips.shape[2], config.max_num_frames)
            latents = self.model(clips, frames if frames is None or config.many else frames[:, None])
        if not config.many:
            return latents[:, 0]
        there = media.flatten(2).ne(0).any(-1) if frames is None else frames > 0  # [batch images]
        return latents * there.to(latents.dtype)[..., None, None]

    def _refuse_more(self, what: str, count: int, most: int | None) -> None:
        if most is not None and count > most:
            raise InputError(f"resampler/perceiver got {count} {what}, but has learned vectors for {most}: give fewer {what}")


def _of_flamingo(config: PerceiverConfig) -> nn.Module:
    assert config.hidden_size is not None
    return PerceiverResampler(
        width=config.hidden_size, depth=config.depth, heads=config.num_heads, head_width=config.head_dim, latents=config.num_latents,
        multiple=config.ff_mult, frames=config.max_num_frames, media=config.max_num_media, activation=config.activation,
    )  # fmt: skip


def _of_idefics(config: PerceiverConfig) -> nn.Module:
    assert config.hidden_size is not None
    perceiver = {"qk_layer_norms_perceiver": config.qk_norms}
    theirs: Any = IdeficsConfig(vision_config={"embed_dim": config.hidden_size}, perceiver_config=perceiver)  # Any: it is not annotated
    return IdeficsPerceiverResampler(theirs, config.hidden_size, config.depth, config.num_heads, config.head_dim, config.num_latents)
