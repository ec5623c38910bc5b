"""What codecs do around their models: sounds of a batch that differ in length, each coded as it would be alone.

The convolutions of codecs look at what stands behind the end of a sound, so that nothing is filled up: those of one length go together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelgraft.plugin import Audio, InputError, LoadContext, Loop, NodeRuntime, resample
from modelgraft_plugins.vocoder.codecs import Codec
from modelgraft_plugins.vocoder.codecs import Decode as DecodeConfig
from modelgraft_plugins.vocoder.codecs import Encode as EncodeConfig


class Coding(Loop):
    """What both directions have."""

    config: Codec
    runtime: NodeRuntime

    def prepare(self, context: LoadContext) -> None:
        """Take the name, for errors."""
        self.node = context.node.name

    def bind(self, runtime: NodeRuntime) -> None:
        """Take cancellation and warnings from the run."""
        self.runtime = runtime


class Encode(Coding):
    """Writes sounds as codes."""

    config: EncodeConfig

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> Mapping[str, Tensor]:  # noqa: ARG002 both
        """Sounds -> codes int64[batch used frames] and mask bool[batch frames]."""
        rows = [torch.from_numpy(self._heard(sound)) for sound in values[0]]
        coded: dict[int, Tensor] = {}
        for places in _alike([row.shape[-1] for row in rows]):
            self.runtime.check()
            found = parts["encode"](torch.stack([rows[place] for place in places]))
            coded |= dict(zip(places, found, strict=True))
        frames = max(one.shape[-1] for one in coded.values())
        codes = torch.zeros((len(rows), self.config.used, frames), dtype=torch.int64)
        mask = torch.zeros((len(rows), frames), dtype=torch.bool)
        for place, one in coded.items():
            codes[place, :, : one.shape[-1]], mask[place, : one.shape[-1]] = one.cpu(), True
        return {"codes": codes, "mask": mask}

    def _heard(self, sound: Audio) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32[channels samples] at the rate of the codec. Raises InputError for one that makes no frame."""
        config, samples = self.config, sound.samples
        if not np.isfinite(samples).all():
            raise InputError(f"{self.node}: the sound holds samples that are no finite numbers; write it again as plain wav")
        if samples.shape[0] != config.channels:
            said = f"{samples.shape[0]} channels were mixed into one" if samples.shape[0] > 1 else "one channel was heard on both sides"
            self.runtime.emit("warning", text=said)
            mixed = samples.mean(0, keepdims=True)
            sound = Audio(np.repeat(mixed, config.channels, axis=0), sound.sample_rate_hz)
        if sound.sample_rate_hz != config.rate_hz:
            self.runtime.emit("warning", text=f"the sound was resampled from {sound.sample_rate_hz} Hz to {config.rate_hz} Hz")
            sound = resample(sound, config.rate_hz)
        if sound.samples.shape[1] < config.hop:
            found = f"the sound has {sound.samples.shape[1]} samples at {config.rate_hz} Hz, and a frame is made of {config.hop}"
            raise InputError(f"{self.node}: {found}; give a longer sound")
        return np.ascontiguousarray(sound.samples, dtype=np.float32)


class Decode(Coding):
    """Makes sounds of codes."""

    config: DecodeConfig

    def run(self, values: Sequence[Any], parts: Mapping[str, Any], *, wanted: frozenset[str]) -> list[Audio]:  # noqa: ARG002 its one output
        """codes int64[batch codebooks frames], mask bool[batch frames] or None -> sounds."""
        codes, mask = values
        lengths = [codes.shape[-1]] * len(codes) if mask is None else self._lengths(mask)
        self._refuse(codes, lengths)
        sounds: dict[int, Audio] = {}
        for places in _alike(lengths):
            self.runtime.check()
            found = parts["decode"](codes[places, :, : lengths[places[0]]]).to("cpu", torch.float32)
            sounds |= {place: Audio(one.contiguous().numpy(), self.config.rate_hz) for place, one in zip(places, found, strict=True)}
        return [sounds[place] for place in range(len(codes))]

    def _lengths(self, mask: Tensor) -> list[int]:
        """Frames of each sound. Raises InputError where they do not stand at the beginning."""
        counts = mask.sum(dim=1)
        straight = torch.arange(mask.shape[1], device=mask.device)[None] < counts[:, None]
        if not torch.equal(straight, mask.bool()):
            raise InputError(f"{self.node}: the mask leaves frames out between others; wanted: those of a sound first, then what fills up")
        return [int(count) for count in counts]

    def _refuse(self, codes: Tensor, lengths: Sequence[int]) -> None:
        """Raise InputError for codes that the codec has not."""
        size, books, least = self.config.size, self.config.books, int(self.config.said("num_semantic_quantizers") or 1)
        if not least <= codes.shape[1] <= books:
            raise InputError(f"{self.node}: there are codes of {codes.shape[1]} books, and the codec takes {least} to {books}")
        for place, length in enumerate(lengths):
            if not length:
                raise InputError(f"{self.node}: record {place} has no frames, which make no sound; give at least one")
            row = codes[place, :, :length]
            lowest, highest = int(row.min()), int(row.max())
            if lowest < 0 or highest >= size:
                found = lowest if lowest < 0 else highest
                raise InputError(f"{self.node}: record {place} has the code {found}, and a book of the codec has 0 to {size - 1}")


def _alike(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of those that are equally long."""
    for length in sorted(set(lengths)):
        yield [place for place, found in enumerate(lengths) if found == length]
