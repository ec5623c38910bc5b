"""The tensor parts of a vocoder of units: the table of vectors, what tells how long they last, and the HiFi-GAN of transformers.

Source: `CodeGenerator` and `VariancePredictor` of fairseq, whose keys are read; tests/oracles/speechgpt_vocoder holds what they answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import Driven, Weights
from modelgraft_plugins import huggingface
from modelgraft_plugins.vocoder.hifigan import whole

if TYPE_CHECKING:
    from modelgraft_plugins.vocoder.units import Durations as DurationsConfig
    from modelgraft_plugins.vocoder.units import UnitHifiGan as UnitHifiGanConfig
    from modelgraft_plugins.vocoder.units import UnitVocoder

SLOPE = 0.1  # of all leaky rectifiers but the last, which has torch's 0.01
TABLE, PREDICTOR = "dict.", "dur_predictor."
BUFFERS = ("generator.mean", "generator.scale")  # of a norm that this generator leaves out


class Predictor(nn.Module):
    """How long units last: the logarithm of one more than their frames.

    vectors  float[batch runs width]
    there    bool[batch runs]: where units are, the others behind them; None: everywhere
    returns  float[batch runs]
    """

    def __init__(self, config: UnitVocoder) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(config.width, config.hidden, 3, padding=1)
        self.ln1 = nn.LayerNorm(config.hidden)
        self.conv2 = nn.Conv1d(config.hidden, config.hidden, 3, padding=1)
        self.ln2 = nn.LayerNorm(config.hidden)
        self.proj = nn.Linear(config.hidden, 1)

    def forward(self, vectors: Tensor, there: Tensor | None = None) -> Tensor:
        """Convolve twice over the units, norming each; what lies behind the end of a row is 0 to both, as their padding is."""
        for conv, norm in ((self.conv1, self.ln1), (self.conv2, self.ln2)):
            seen = vectors if there is None else vectors * there[..., None]
            vectors = norm(conv(seen.transpose(1, 2)).relu().transpose(1, 2))
        lasting: Tensor = self.proj(vectors)
        return lasting.squeeze(2)


def frames_of(log_durations: Tensor) -> Tensor:
    """int64: whole frames, at least one."""
    return (log_durations.exp() - 1).round().long().clamp(min=1)


class Durations(nn.Module):
    """The predictor with a table of its own.

    units    int64[batch runs], -1 where no unit is
    returns  durations int64[batch runs] and log_durations float[batch runs], 0 where no unit is
    """

    def __init__(self, config: DurationsConfig) -> None:
        super().__init__()
        self.embed, self.predictor = nn.Embedding(config.units, config.width), Predictor(config)

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The two of them; the rest of the file is the HiFi-GAN."""
        return {"embed.weight": weights.tensor(f"{TABLE}weight"), **_predictor(weights)}

    def forward(self, units: Tensor) -> dict[str, Tensor]:
        """Look up the vectors and predict."""
        there = units >= 0
        logs = torch.where(there, self.predictor(self.embed(units.clamp(min=0)), there), 0.0)
        return {"durations": torch.where(there, frames_of(logs), 0), "log_durations": logs}


class UnitHifiGan(Driven):
    """Table, predictor and HiFi-GAN, each a part."""

    def __init__(self, config: UnitHifiGanConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.units, config.width)
        if config.durations == "predicted":
            self.predictor = Predictor(config)
        self.generator = huggingface.build(facts_of(config), "SpeechT5HifiGan")

    def from_checkpoint(self, weights: Weights) -> dict[str, Tensor]:
        """The tensors under the names of this module."""
        found = {"embed.weight": weights.tensor(f"{TABLE}weight")}
        if hasattr(self, "predictor"):
            found |= _predictor(weights)
        keys = [key for key in weights.keys() if not key.startswith((TABLE, PREDICTOR))]  # noqa: SIM118 a method of Weights
        for key, tensor in whole({key: weights.tensor(key) for key in keys}).items():
            found[f"generator.{key}".replace("generator.ups.", "generator.upsampler.")] = tensor
        return {**found, **{name: buffer for name, buffer in self.state_dict().items() if name in BUFFERS}}


def facts_of(config: UnitHifiGanConfig) -> dict[str, Any]:
    """The config that transformers builds the HiFi-GAN from."""
    return {
        "model_in_dim": config.width, "upsample_initial_channel": config.channels, "upsample_rates": list(config.rates),
        "upsample_kernel_sizes": list(config.kernels), "resblock_kernel_sizes": list(config.block_kernels),
        "resblock_dilation_sizes": [list(row) for row in config.block_dilations], "sampling_rate": config.sample_rate_hz,
        "leaky_relu_slope": SLOPE, "normalize_before": False,
    }  # fmt: skip


def _predictor(weights: Weights) -> Mapping[str, Tensor]:
    keys = [key for key in weights.keys() if key.startswith(PREDICTOR)]  # noqa: SIM118 a method of Weights
    names = {key: key.removeprefix(PREDICTOR).replace("conv1.0.", "conv1.").replace("conv2.0.", "conv2.") for key in keys}
    return {f"predictor.{name}": weights.tensor(key) for key, name in names.items()}
