"""What the ears of language models have in common: the encoder of Whisper, before whatever joins its vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import TowerCard
from modelgraft_plugins.families.whisper import count_ear

# What a config of such an ear means where it is silent: transformers 5.23, Qwen2AudioEncoderConfig and VoxtralEncoderConfig.
DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20, "mels": 128, "positions": 1500,
    "hidden_act": "gelu",
}  # fmt: skip
IDLE = frozenset({"vocab_size", "scale_embedding"})  # of embeddings: the encoder has none


def ear(architecture: str, *, style: str, names: Mapping[str, str], layerdrop: str, **more: Any) -> TowerCard:
    """The card of an ear that is a Whisper encoder by its own class; names: our word -> the key of its config."""
    return TowerCard(
        "audio",
        style=style,
        architecture=architecture,
        defaults=DEFAULTS,
        names=names,
        settings=names,
        fixed=dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", layerdrop), 0.0),
        pooled=False,
        count=count_ear,
        idle=IDLE | {layerdrop},
        more={"features": "WhisperFeatureExtractor", **more},
    )
