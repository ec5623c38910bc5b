"""The vision towers of transformers, run up to the layer that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from modelgraft_plugins.huggingface import blueprint, build, convert
from modelgraft_plugins.vision.towers import FAMILIES

if TYPE_CHECKING:
    from modelgraft.plugin import Weights
    from modelgraft_plugins.vision import Encoder as EncoderConfig

UNUSED = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.mask_token")  # heads of ViT's pre-training; random after fine-tuning


class Encoder(nn.Module):
    """A vision transformer.

    pixels   float[batch channels height width], with an axis `images` behind `batch` if `many`
             a picture of zeros alone, which fills up a record that has fewer than others, gives zeros
    returns  tokens float[batch tokens hidden_size]; with a pooled vector a dict of `tokens` and `pooled` float[batch hidden_size];
             both with the axis `images` if there was one
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = build(tower_config(config), FAMILIES[config.family].architecture)
        if config.family == "vit":
            self.tower.pooler = None
        depth, layer = config.num_hidden_layers, config.layer
        if layer is not None and not -depth - 1 <= layer <= depth:
            raise ValueError(f"layer {layer} is not among the {depth + 1} from {-depth - 1} to {depth}")
        self.depth = depth if layer is None else layer % (depth + 1)  # hidden_states[0] is what enters the first layer
        self.is_whole = layer is None

    @staticmethod
    def from_checkpoint(config: EncoderConfig, weights: Weights) -> Mapping[str, Tensor]:
        """Give the tensors of the tower in the names of transformers' memory."""
        found = convert(weights.state(), blueprint(tower_config(config), FAMILIES[config.family].architecture), prefix="tower.")
        if config.family == "vit":
            for name in UNUSED:
                found.pop(f"tower.{name}", None)
        return found

    def forward(self, pixels: Tensor) -> Tensor | dict[str, Tensor]:
        """Give the tokens, and the pooled vector when there is one."""
        if not self.config.many:
            return self._see(pixels)
        found = self._see(pixels.flatten(0, 1))  # each picture is looked at by itself
        there = pixels.flatten(2).ne(0).any(-1)  # [batch images]: not one that fills a record up
        if isinstance(found, Tensor):
            return _apart(found, there)
        return {name: _apart(tensor, there) for name, tensor in found.items()}

    def _see(self, pixels: Tensor) -> Tensor | dict[str, Tensor]:
        """pixels float[batch channels height width]."""
        tower = self.tower
        hidden = tower.embeddings(pixels, interpolate_pos_encoding=self.config.interpolate)
        if self.config.family == "clip":
            hidden = tower.pre_layrnorm(hidden)
        layers = tower.layers if self.config.family == "vit" else tower.encoder.layers
        for block in layers[: self.depth]:
            hidden = block(hidden) if self.config.family == "eva" else block(hidden, None)
        if not self.is_whole:
            return self._select(hidden)
        tokens, pooled = self._finish(hidden)
        return self._select(tokens) if pooled is None else {"tokens": self._select(tokens), "pooled": pooled}

    def _finish(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply the norms behind the last layer, each family in its own way."""
        tower = self.tower
        match self.config.family:
            case "clip":  # only the class token is normed
                return hidden, tower.post_layernorm(hidden[:, 0])
            case "siglip":
                tokens = tower.post_layernorm(hidden)
                return tokens, tower.head(tokens) if self.config.attention_head else None
            case "vit":
                tokens = tower.layernorm(hidden)
                return tokens, tokens[:, 0]
            case "eva":  # the class token is normed twice, as in BLIP-2
                tokens = tower.post_layernorm(hidden)
                return tokens, tower.post_layernorm(tokens[:, 0])

    def _select(self, tokens: Tensor) -> Tensor:
        drop = FAMILIES[self.config.family].has_class and self.config.select == "patches"
        return tokens[:, 1:] if drop else tokens


def _apart(tensor: Tensor, there: Tensor) -> Tensor:
    """What pictures in a row give, float[n ...], by records: float[batch images ...], zeros where there was no picture."""
    by_record = tensor.reshape(*there.shape, *tensor.shape[1:])
    return by_record * there.to(tensor.dtype).reshape(*there.shape, *[1] * (tensor.ndim - 1))


def tower_config(config: EncoderConfig) -> dict[str, Any]:
    """Write the config as transformers' class wants it."""
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "num_channels",
        "hidden_act", "layer_norm_eps",
    )  # fmt: skip
    values = {name: getattr(config, name) for name in names}
    match config.family:
        case "siglip":
            values["vision_use_head"] = config.attention_head
        case "vit" | "eva":
            values["qkv_bias"] = config.qkv_bias
    return values
