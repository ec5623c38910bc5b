"""The convolutional stem of SimVLM: the ResNet of transformers without its last stage, in the names of torchvision on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from modelgraft_plugins.simvlm.sizes import GROUPS

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.simvlm import Stem as StemConfig

# name in files of torchvision and timm -> name in transformers' memory
LAYOUT: tuple[tuple[str, str], ...] = (
    (r"conv1\.(\w+)", r"embedder.embedder.convolution.\1"),
    (r"bn1\.(\w+)", r"embedder.embedder.normalization.\1"),
    (r"layer([123])\.(\d+)\.conv([123])\.(\w+)", r"encoder.stages.{stage}.layers.\2.layer.{part}.convolution.\4"),
    (r"layer([123])\.(\d+)\.bn([123])\.(\w+)", r"encoder.stages.{stage}.layers.\2.layer.{part}.normalization.\4"),
    (r"layer([123])\.(\d+)\.downsample\.0\.(\w+)", r"encoder.stages.{stage}.layers.\2.shortcut.convolution.\3"),
    (r"layer([123])\.(\d+)\.downsample\.1\.(\w+)", r"encoder.stages.{stage}.layers.\2.shortcut.normalization.\3"),
)
BEHIND = re.compile(r"(layer4|fc|encoder\.stages\.3|classifier)\.")  # of an ImageNet classifier, behind what the stem is
COUNTER = "num_batches_tracked"  # of training alone


class Stem(nn.Module):
    """pixels float[batch 3 height width] to patches float[batch height/16*width/16 channels], row by row."""

    def __init__(self, config: StemConfig) -> None:
        super().__init__()
        width = config.conv_width
        sizes = [4 * width, 8 * width, 16 * width]
        made = ResNetConfig(embedding_size=width, hidden_sizes=sizes, depths=list(config.conv_depths), layer_type="bottleneck")
        self.model: Any = ResNetModel(made)  # Any: of transformers
        if config.conv_norm == "group":
            _with_groups(self.model)

    @property
    def optional_keys(self) -> tuple[str, ...]:
        """Files may leave out what counts the steps of training."""
        return tuple(name for name in self.state_dict() if name.endswith(COUNTER))

    def from_checkpoint(self, weights: Weights) -> Mapping[str, Tensor]:
        """Translate the names of torchvision and timm, and take those of transformers, alone or as a part of a SimVLM."""
        found: dict[str, Tensor] = {}
        for key, tensor in weights.state().items():
            name = key.removeprefix("resnet.").removeprefix("stem.")
            if not BEHIND.match(name) and not name.startswith("pooler."):
                found[f"model.{_rename(name)}"] = tensor
        return found

    def forward(self, pixels: Tensor) -> Tensor:
        """See the picture as a grid."""
        grid: Tensor = self.model.encoder(self.model.embedder(pixels)).last_hidden_state
        return grid.flatten(2).transpose(1, 2)


def _rename(name: str) -> str:
    for pattern, other in LAYOUT:
        found = re.fullmatch(pattern, name)
        if found is not None:
            stage, part = (int(found[1]) - 1, int(found[3]) - 1) if "{part}" in other else (int(found[1]) - 1 if "{" in other else 0, 0)
            return found.expand(other.format(stage=stage, part=part))
    return name


def _with_groups(module: nn.Module) -> None:
    """Norm the channels of each picture in groups, in place of batches: as many groups as there are, 32 at most, that share them evenly."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            groups = next(count for count in range(GROUPS, 0, -1) if child.num_features % count == 0)
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _with_groups(child)
