"""HuBERT: an encoder of speech that learned to name hidden units of sound (arXiv 2106.07447)."""

from __future__ import annotations

from modelgraft.plugin import FamilyCard, TowerCard
from modelgraft_plugins.families._waves import DEFAULTS, IDLE, SAMPLES, count_waves

EAR = TowerCard(
    "audio",
    architecture="HubertModel",
    defaults={**DEFAULTS, "feat_proj_layer_norm": True, "conv_pos_batch_norm": False},
    pooled=False,
    count=count_waves,
    idle=IDLE | {"codes", "num_classes"},  # of its masked prediction, which is another part
    more={"hears": SAMPLES, "features": "Wav2Vec2FeatureExtractor"},
)
CARD = FamilyCard("hubert", "an encoder of speech that learned to name hidden units of sound", towers={"hubert": EAR})
