"""Sounds of which no two frames are equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modelgraft import Audio


def tone(seconds: float, *, rate: int = 16_000, channels: int = 1, hertz: float = 440.0) -> Audio:
    """A tone that fades."""
    time = np.arange(round(seconds * rate)) / rate
    wave = (np.sin(2 * np.pi * hertz * time) * np.exp(-time)).astype(np.float32)
    return Audio(np.stack([wave * (1 - 0.25 * channel) for channel in range(channels)]), rate)


def heard(extractor: Any, *given: Any, **options: Any) -> Any:
    """What Whisper's feature extractor of transformers gives where torch is not installed: it computes in float64 then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.models.whisper.feature_extraction_whisper.is_torch_available", lambda: False)
        return extractor(*given, **options)
