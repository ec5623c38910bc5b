"""How a word that is in no dictionary sounds: a small trained network that reads letters and writes sounds.

Two GRU layers, one that reads and one that writes, with the weights of the package g2p-en (Apache-2.0).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

GRAPHEMES = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_PLAIN = (
    "B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH", "UW", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
START, END = 2, 3
MOST_SOUNDS = 30  # the longest word of the dictionary has 28


def _sounds() -> tuple[str, ...]:
    """The output alphabet in the order of its rows: the sounds sorted by name, vowels with their three stresses."""
    stressed = (f"{vowel}{stress}" for vowel in _VOWELS for stress in range(3))
    return ("<pad>", "<unk>", "<s>", "</s>", *sorted([*_PLAIN, *stressed]))


class LetterNetwork:
    """Reads a word letter by letter."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self.weights: dict[str, Array] = {name: arrays[name] for name in arrays.files}
        self.sounds = _sounds()
        self.read = lru_cache(maxsize=4096)(self._read)

    def _read(self, word: str) -> tuple[str, ...]:
        """Give the sounds of a word in lower case, vowels with their stress: `("HH", "AH0", "L", "OW1")`."""
        w = self.weights
        state: Array = np.zeros(w["enc_w_hh"].shape[1], np.float32)
        for letter in (*word, "</s>"):
            index = GRAPHEMES.index(letter) if letter in GRAPHEMES else 1
            state = self._step("enc", w["enc_emb"][index], state)
        found, last = list[str](), START
        for _ in range(MOST_SOUNDS):
            state = self._step("dec", w["dec_emb"][last], state)
            last = int((w["fc_w"] @ state + w["fc_b"]).argmax())
            if last == END:
                break
            if last > END:
                found.append(self.sounds[last])
        return tuple(found)

    def _step(self, side: str, x: Array, state: Array) -> Array:
        """One step of a GRU: reset and update gates, then the candidate."""
        w = self.weights
        given = w[f"{side}_w_ih"] @ x + w[f"{side}_b_ih"]
        kept = w[f"{side}_w_hh"] @ state + w[f"{side}_b_hh"]
        size = len(state)
        reset, update = np.split(1 / (1 + np.exp(-(given + kept)[: 2 * size])), 2)
        candidate = np.tanh(given[2 * size :] + reset * kept[2 * size :])
        mixed: Array = (1 - update) * candidate + update * state
        return mixed
