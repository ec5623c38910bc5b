"""What pre-training draws: masked spans, and negatives. Each record by numbers of its own, which follow from the seed and from the record.

The rules are those of fairseq and transformers, and so is the order in which numbers are drawn: numpy's generator of the same state gives
the same spans and negatives there.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modelgraft.plugin import InputError, LoadContext, NodeRuntime
from modelgraft_plugins.audio import waves

if TYPE_CHECKING:
    from modelgraft_plugins.audio.pretraining import Negatives, Spans

Bits = np.ndarray[tuple[int], np.dtype[np.bool_]]
Places = np.ndarray[tuple[int, int], np.dtype[np.int64]]


class _Drawing:
    """Code that draws by the seed of the run."""

    def __init__(self) -> None:
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served."""
        self.runtime = runtime

    def generator(self, content: bytes) -> np.random.RandomState:
        """The generator of a record with this content."""
        seed = self.runtime.seed if self.runtime is not None else 0
        return np.random.RandomState(zlib.crc32(content, seed & 0xFFFFFFFF))


def spans(config: Spans, _context: LoadContext) -> Callable[..., Tensor]:
    """Make the function from samples float[batch samples] to spans bool[batch tokens]."""
    return _Spans(config)


def negatives(config: Negatives, _context: LoadContext) -> Callable[..., Tensor]:
    """Make the function from spans bool[batch tokens] to places int64[batch tokens negatives]."""
    return _Negatives(config)


class _Spans(_Drawing):
    def __init__(self, config: Spans) -> None:
        super().__init__()
        self.config, self.facts = config, {"conv_kernel": config.conv_kernel, "conv_stride": config.conv_stride}

    def __call__(self, samples: Tensor, mask: Tensor | None = None) -> Tensor:
        """Draw; tokens behind the end of a sound are never masked."""
        lengths = [samples.shape[1]] * samples.shape[0] if mask is None else mask.sum(-1).tolist()
        found = torch.zeros(samples.shape[0], waves.frames(samples.shape[1], self.facts), dtype=torch.bool)
        for row, length in enumerate(lengths):
            tokens = waves.frames(length, self.facts)
            content = samples[row, :length].float().cpu().numpy().tobytes()
            found[row, :tokens] = torch.from_numpy(drawn_spans(tokens, self.config, self.generator(content)))
        return found.to(samples.device)


class _Negatives(_Drawing):
    def __init__(self, config: Negatives) -> None:
        super().__init__()
        self.config = config

    def __call__(self, spans: Tensor) -> Tensor:
        """Draw. Raises InputError for a sound of which a single token is masked: there is none to tell it from."""
        found = torch.zeros(*spans.shape, self.config.count, dtype=torch.int64)
        for row, masked in enumerate(spans.cpu()):
            places = masked.nonzero()[:, 0].numpy()
            if len(places) == 1:
                raise InputError(
                    "wav2vec2/negatives: one token of a sound is masked, and there is no other to tell it from; mask more of it"
                )
            if len(places):
                generator = self.generator(np.packbits(masked.numpy()).tobytes())
                found[row, places] = torch.from_numpy(drawn_negatives(places, self.config.count, generator))
        return found.to(spans.device)


def drawn_spans(tokens: int, config: Spans, generator: np.random.RandomState) -> Bits:
    """Masked tokens, True for each: the number of spans is rounded by chance, and starts are drawn without repetition."""
    length, found = config.length, np.zeros(tokens, dtype=bool)
    chance = generator.rand(1).item()
    count = max(int(config.share * tokens / length + chance), config.least)
    count = min(count, tokens // length, max(tokens - (length - 1), 0))
    if count > 0:
        starts = generator.choice(np.arange(tokens - (length - 1)), count, replace=False)
        found[(starts[:, None] + np.arange(length)).ravel()] = True
    return found


def drawn_negatives(places: Places, count: int, generator: np.random.RandomState) -> Places:
    """For each of some places so many others of them: int64[places count]."""
    last = len(places) - 1
    drawn = generator.randint(0, last, size=(len(places), count))
    drawn[drawn >= np.arange(len(places))[:, None]] += 1  # its own place is passed over
    return places[drawn]
