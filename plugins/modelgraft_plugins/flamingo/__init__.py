"""Flamingo: what stands between a conversation of pictures and clips and the parts that look at them (arXiv 2204.14198).

The parts themselves are those that any graph has: an eye (vision/nfnet, vision/encoder), resampler/perceiver, and
adapter/gated_cross_attention in llm/causal. Records of a batch may show unlike many media, and clips may have unlike many frames: each
frame of all records is an ask, so that the eye runs once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from modelgraft import Config, Dim, Ports, component, hookimpl, port

IMAGE, END_OF_CHUNK = "<image>", "<|endofchunk|>"  # the tokens that OpenFlamingo adds to those of its language model
LENGTHS = "int64[batch images]"


@component("flamingo/dialogue", kind="preprocess", load="modelgraft_plugins.flamingo.dialogue:load", cache=False)
class Dialogue(Config):
    """Write a conversation as a Flamingo reads one, with a token where each picture or clip stands, and give their frames in that order.

    text     for llm/causal with gated layers: messages one behind the other, in the words around them that the fields say
    image    the frames of all media of a record, one behind the other: a picture is one frame
    lengths  how many frames each medium has, in order; 0 fills up
    A clip gives one frame for each stretch of `rate_hz`, at most `frames` of them, spread evenly; the first and the last are its own.
    A last message of the assistant is gone on with. Texts that hold the token of a medium, or the one that ends an answer, are refused.
    """

    opening: str = Field("", description="text before everything, such as who talks to whom")
    before_question: str = ""
    before_answer: str = ""
    after_answer: str = Field(END_OF_CHUNK, description="what an answer ends with")
    placeholder: str = Field(IMAGE, min_length=1, description="the token that stands for a picture or a clip")
    reserved: tuple[str, ...] = Field((END_OF_CHUNK,), description="further tokens that texts must not hold")
    frames: int = Field(8, ge=0, description="most frames that are taken of a clip; 0: clips are refused")
    rate_hz: float = Field(1.0, gt=0, description="frames that are taken of each second of a clip, as long as they are no more than that")
    most_media: int | None = Field(None, gt=0, description="most media of a conversation; None: as many as the context holds")

    def ports(self) -> Ports:
        """A conversation in; the prompt, the frames of its media, and how many each has, out."""
        given = {"text": port("text"), "image": port("image", several="frames"), "lengths": port(LENGTHS)}
        return Ports.of({"conversation": "conversation"}, given)


@component("flamingo/media", kind="preprocess", load="modelgraft_plugins.flamingo.media:load", cache=False)
class Media(Config):
    """Lay out what an eye made of the frames of each record: media by media, filled up with zeros, for resampler/perceiver with `many`.

    tokens   the vectors of each frame, in the order in which they were asked for;  lengths  how many frames each medium has
    media    with `frames` an axis for them;  frames  how many of them each medium has, 0 of what fills up;  counts  media of each record
    """

    clips: bool = Field(True, description="media may have several frames, which have an axis of their own")
    tokens: Dim = Field(None, description="vectors of a frame")
    width: Dim = Field(None, description="of a vector")

    def ports(self) -> Ports:
        """Vectors of frames in; those of media, and how many there are, out."""
        taken = {"vectors": port("float[batch tokens width]", several="*"), "lengths": port(LENGTHS)}
        media = f"float[batch media {'frames ' if self.clips else ''}tokens width]"
        frames = {"frames": port("int64[batch media]")} if self.clips else {}
        return Ports.of(taken, {"media": port(media), **frames, "counts": port("int64[batch]")})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    register(Dialogue)
    register(Media)
