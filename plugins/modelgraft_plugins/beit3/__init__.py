"""BEiT-3: a multiway transformer in its five uses, and the VQ-KD tokenizer of pictures of BEiT v2 (arXiv 2208.10442, 2208.06366)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelgraft import hookimpl
from modelgraft_plugins.beit3.captioner import Captioner
from modelgraft_plugins.beit3.encoder import Encoder
from modelgraft_plugins.beit3.heads import Answer, Classify, Reason
from modelgraft_plugins.beit3.masks import MaskPatches, MaskText
from modelgraft_plugins.beit3.pictures import Preprocess
from modelgraft_plugins.beit3.vqkd import CodePicture, Decoder, Loss, Tokenizer

PRESETS = Path(__file__).parent / "presets"


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Preprocess, Encoder, Answer, Reason, Classify, Captioner, Tokenizer, Decoder, Loss, CodePicture, MaskPatches, MaskText):
        register(subject)


@hookimpl
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer the published sizes, of each use."""
    for folder in sorted(PRESETS.iterdir()):
        register(f"preset:{folder.name}", folder)
