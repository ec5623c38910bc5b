"""Detectors: where on a picture the things are that phrases name.

A detector is any component that takes a picture and phrases, and gives boxes, each with the phrase that it is of as `text` and a `score`:

    detector: {use: detect/faces, in: {image: inputs.image, phrases: phrases.phrases}}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from modelgraft import Config, Ports, component, hookimpl

# Words for somebody whose face may be seen
PEOPLE = (
    "actor", "actress", "artist", "astronaut", "athlete", "baby", "boy", "bride", "chef", "child", "children", "couple", "crowd", "doctor",
    "driver", "face", "family", "father", "fisherman", "girl", "groom", "guy", "kid", "lady", "man", "men", "mother", "musician", "nurse",
    "officer", "people", "person", "player", "rider", "scientist", "singer", "soldier", "student", "teacher", "woman", "women", "worker",
)  # fmt: skip


@component("detect/faces", kind="encoder", load="modelgraft_plugins.detecting.faces:load", keywords=("boxes", "mtcnn", "people"))
class Faces(Config):
    """Find the faces of people on a picture, with MTCNN (arXiv 1604.02878), and give each to the phrase that names somebody.

    boxes  each with its phrase as `text`, and its score. It is that of the face, and not of all of somebody
    phrases  left out: all faces, with the text `face`. A phrase names somebody where one of its words is among `people`. Where several
             do, nobody can tell from faces who is who, and none is given; where one does in the singular, the surest face is given
    Weights of half a million parameters are fetched once from the package facenet-pytorch (MIT); nothing of its code is run.
    """

    people: tuple[str, ...] = Field(PEOPLE, min_length=1, description="words for somebody, in small letters")
    least_score: float = Field(0.9, ge=0, le=1, description="less sure faces are left out")
    least_pixels: int = Field(20, ge=12, description="side of the smallest face that is looked for")
    most_pixels: int = Field(1280, ge=64, description="a picture whose longer side has more is looked at smaller")

    def ports(self) -> Ports:
        """A picture, and phrases, in; boxes out."""
        return Ports.of({"image": "image", "phrases": "optional[list[text]]"}, {"boxes": "boxes"})


@component("detect/phrases", kind="encoder", load="modelgraft_plugins.detecting.naming:load", keywords=("boxes", "owl", "detector"))
class PhrasesFound(Config):
    """Find whatever phrases name on a picture, with a detector of open vocabulary: an OWL-ViT or OWLv2, the source of the node.

    boxes  each with its phrase as `text`, and its score. Several may be of one phrase, and of one place
    It runs as transformers runs it, in float32, a record at a time. A phrase that is longer than its positions is cut.
    """

    least_score: float = Field(0.1, ge=0, le=1, description="less sure boxes are left out")

    def ports(self) -> Ports:
        """A picture and phrases in, boxes out."""
        return Ports.of({"image": "image", "phrases": "list[text]"}, {"boxes": "boxes"})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the detectors."""
    register(Faces)
    register(PhrasesFound)
