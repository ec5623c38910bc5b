"""wav2vec 2.0 and HuBERT, step by step: samples, convolutions, projection, masked spans, places, blocks up to a layer.

The modules are those of transformers, called in the order of arXiv 2006.11477; the steps between them are here, so that padding, masked
spans and layers are what is asked for, and nothing is written in place. fairseq's names are translated here too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelgraft.plugin import InputError
from modelgraft_plugins.audio import waves

if TYPE_CHECKING:
    from modelgraft_plugins.audio import Encoder as EncoderConfig

Tower = Any  # Wav2Vec2Model or HubertModel: transformers is only partly annotated

# name in fairseq's files -> in those of transformers
LAYOUT: tuple[tuple[str, str], ...] = (
    (r"mask_emb", "masked_spec_embed"),
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(\w+)", r"feature_extractor.conv_layers.\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2(?:\.1)?\.(\w+)", r"feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"post_extract_proj\.(\w+)", r"feature_projection.projection.\1"),
    (r"layer_norm\.(\w+)", r"feature_projection.layer_norm.\1"),
    (r"encoder\.pos_conv\.0\.(\w+)", r"encoder.pos_conv_embed.conv.\1"),
    (r"(encoder\.layers\.\d+)\.self_attn\.(.+)", r"\1.attention.\2"),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.(\w+)", r"\1.layer_norm.\2"),
    (r"(encoder\.layers\.\d+)\.fc1\.(\w+)", r"\1.feed_forward.intermediate_dense.\2"),
    (r"(encoder\.layers\.\d+)\.fc2\.(\w+)", r"\1.feed_forward.output_dense.\2"),
)
# What else fairseq's files hold: quantiser and heads of pre-training, which are other parts.
OTHERS = re.compile(r"(?:quantizer|input_quantizer|project_q|project_inp|final_proj|target_glu|spk_proj)\..+|label_embs_concat")
# The same in files of transformers.
HEADS = re.compile(r"(?:lm_head|quantizer|project_hid|project_q|dropout_features|classifier|projector|layer_weights)\b.*")


class Listener:
    """How an encoder that hears samples is run; it holds no weights, the tower that it is given does.

    samples  float[batch samples];  mask  bool[batch samples], True where there is sound, None: everywhere
    spans    bool[batch tokens], True for the frames that one learned vector stands for, None: none
    returns  tokens float[batch tokens hidden_size], after the layer that is asked for, else after the last norm
             conv_features, normed float[batch tokens channels]: what the convolutions give, before and after its norm
             frame_mask bool[batch tokens]: frames that are made of sound alone; all others are 0 in tokens and features
    """

    def __init__(self, config: EncoderConfig) -> None:
        self.facts = config.facts()
        depth, layer = config.num_hidden_layers, config.layer
        self.depth = depth if layer is None else layer % (depth + 1)  # 0 is what enters the first layer
        self.is_whole = layer is None
        self.is_alone = config.statistics == "sound" and self.facts["feat_extract_norm"] == "group"
        self.is_stable = bool(self.facts["do_stable_layer_norm"])

    def own(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors of the encoder in the names of transformers' files; those of other parts are left to them."""
        prefix = waves.prefix_of(state)
        if prefix is None:
            return {key: tensor for key, tensor in state.items() if not HEADS.fullmatch(key)}
        mine = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        found = {_renamed(key): tensor for key, tensor in mine.items() if not OTHERS.fullmatch(key)}
        channels, width = self.facts["conv_dim"][-1], self.facts["hidden_size"]
        if "post_extract_proj.weight" not in mine and channels == width:  # fairseq maps nothing where both are the same
            found |= {"feature_projection.projection.weight": torch.eye(width), "feature_projection.projection.bias": torch.zeros(width)}
        return found

    def __call__(self, tower: Tower, samples: Tensor, mask: Tensor | None, spans: Tensor | None) -> dict[str, Tensor]:
        """Listen."""
        self._refuse_short(samples)
        lengths = None if mask is None else mask.sum(-1)
        features = self._convolved(tower, samples, lengths)
        there = torch.ones_like(features[..., 0], dtype=torch.bool) if lengths is None else _until(self._frames(lengths), features)
        hidden, normed = _projected(tower, features)
        if spans is not None:
            hidden = torch.where(spans[..., None], tower.masked_spec_embed.to(hidden.dtype), hidden)
        tokens = self._in_context(tower, hidden, None if mask is None else there)
        found = {"tokens": tokens, "conv_features": features, "normed": normed}
        if mask is not None:
            found = {name: tensor * there[..., None].to(tensor.dtype) for name, tensor in found.items()}
        return {**found, "frame_mask": there}

    def _refuse_short(self, samples: Tensor) -> None:
        least = waves.least_samples(self.facts)
        if not torch.compiler.is_compiling() and samples.shape[-1] < least:
            found = f"the sound has {samples.shape[-1]} samples, and the first vector is made of {least}"
            raise InputError(f"audio/encoder: {found}; give a longer sound")

    def _frames(self, lengths: Tensor, *, until: int | None = None) -> Tensor:
        """Numbers of samples int64[batch] -> of frames behind so many convolutions (None: all)."""
        for kernel, stride in list(zip(self.facts["conv_kernel"], self.facts["conv_stride"], strict=True))[:until]:
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths

    def _convolved(self, tower: Tower, samples: Tensor, lengths: Tensor | None) -> Tensor:
        """float[batch tokens channels]."""
        first, *others = tower.feature_extractor.conv_layers
        hidden, alone = samples[:, None], self._frames(lengths, until=1) if self.is_alone and lengths is not None else None
        hidden = first(hidden) if alone is None else _normed_alone(first, hidden, alone)
        for layer in others:
            hidden = layer(hidden)
        return hidden.transpose(1, 2)

    def _in_context(self, tower: Tower, hidden: Tensor, there: Tensor | None) -> Tensor:
        """What the blocks make of the frames; `there`: those that are looked at."""
        encoder, seen = tower.encoder, None
        if there is not None:
            hidden = hidden * there[..., None].to(hidden.dtype)
            leading = torch.arange(there.shape[1], device=there.device) == 0  # of a row without sound: a softmax over nothing is no number
            seen = (there | leading)[:, None, None, :].expand(-1, -1, there.shape[1], -1)  # ONNX Runtime wants a row for each query
        hidden = hidden + encoder.pos_conv_embed(hidden)
        hidden = encoder.dropout(hidden if self.is_stable else encoder.layer_norm(hidden))
        for block in encoder.layers[: self.depth]:
            hidden = block(hidden, attention_mask=seen)
        return encoder.layer_norm(hidden) if self.is_stable and self.is_whole else hidden


def _projected(tower: Tower, features: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the blocks, and the normed features; some HuBERTs have no norm there."""
    projection = tower.feature_projection
    norm: nn.Module | None = getattr(projection, "layer_norm", None)
    normed = features if norm is None else norm(features)
    return projection.dropout(projection.projection(normed)), normed


def _normed_alone(layer: Any, samples: Tensor, lengths: Tensor) -> Tensor:
    """The first convolution with its group norm over the frames of each sound alone, so that no sound changes by what fills it up.

    A group is a channel, so the norm is over time: published encoders take the padding in, where there is any.
    """
    hidden = layer.conv(samples)  # [batch channels frames]
    there = _until(lengths, hidden.transpose(1, 2))[:, None].to(hidden.dtype)
    count = there.sum(-1, keepdim=True).clamp(min=1)
    off = hidden - (hidden * there).sum(-1, keepdim=True) / count
    variance = (off.square() * there).sum(-1, keepdim=True) / count
    norm = layer.layer_norm
    scaled = off * torch.rsqrt(variance + norm.eps) * norm.weight[:, None] + norm.bias[:, None]
    return layer.activation(scaled)  # type: ignore[no-any-return]


def _until(lengths: Tensor, rows: Tensor) -> Tensor:
    """bool[batch frames]: True for the first so many of `rows` float[batch frames channels]."""
    return torch.arange(rows.shape[1], device=rows.device) < lengths[:, None]


def _renamed(key: str) -> str:
    for pattern, name in LAYOUT:
        found = re.fullmatch(pattern, key)
        if found is not None:
            return found.expand(name)
    return key
