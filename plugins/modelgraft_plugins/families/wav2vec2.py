"""wav2vec 2.0: an encoder of speech that learned from sound alone (arXiv 2006.11477)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, TowerCard
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
CARD = FamilyCard("wav2vec2", "an encoder of speech that learned from sound alone", towers={"wav2vec2": EAR})
