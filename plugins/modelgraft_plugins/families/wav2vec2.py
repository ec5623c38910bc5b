"""wav2vec 2.0: an encoder of speech that learned from sound alone (arXiv 2006.11477)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, TowerCard
from modelgraft_plugins.families._formulas import Facts
from modelgraft_plugins.families._waves import DEFAULTS, IDLE, SAMPLES, count_waves

EAR = TowerCard(
    "audio",
    architecture="Wav2Vec2Model",
    defaults={**DEFAULTS, "adapter_attn_dim": None},
    pooled=False,
    count=count_waves,
    idle=IDLE,
    more={"hears": SAMPLES, "features": "Wav2Vec2FeatureExtractor"},
)


def graph_of(config: Facts) -> str:
    """The graph of a checkpoint: of one that was fine-tuned on letters, of one with the heads of pre-training, or of the encoder alone."""
    heads = " ".join(map(str, config.get("architectures") or ()))
    return "wav2vec2" if "ForCTC" in heads else "wav2vec2/pretrain" if "ForPreTraining" in heads else "wav2vec2/features"


CARD = FamilyCard(
    "wav2vec2",
    "an encoder of speech that learned from sound alone",
    towers={"wav2vec2": EAR},
    graphs={"wav2vec2": graph_of},
)
