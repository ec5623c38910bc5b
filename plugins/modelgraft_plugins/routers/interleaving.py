"""router/interleave: what others made for an answer comes back into it, where it was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from modelgraft import Config, Port, Ports, component, port
from modelgraft_plugins.routers.signals import NAME, OWN


def _record_type(text: str) -> str:
    """Raise ValueError for what is not one type of records, or a list of it."""
    found = port(text)
    inner = text.removeprefix("list[").removesuffix("]")
    if len(found.types) > 1 or found.optional or found.tensor is not None or inner.startswith("list["):
        raise ValueError(f"'{text}' is not one type of records, or a list of one: image, audio, list[image]")
    return text


@component("router/interleave", kind="router", load="modelgraft_plugins.routers.interleaved:load", cache=False)
class Interleave(Config):
    """Put what was made for the asks of an answer back where they stand: one message with texts and media in the order of the text.

    It ends the branches of router/signal-tokens, whatever lies between: each medium of `media` is an input that takes all that its
    branch made for a record. An ask that got nothing, such as one whose node failed, becomes a text that says so.

        reply: {use: router/interleave, with: {media: {image: image, hits: "list[image]"}}, in: {parts: asks, image: draw, hits: search}}

    media         what each medium is: a type of records, or a list of it, each of which becomes a part of its own
    missing       what stands for an ask that got nothing; {medium} is its name
    conversation  a message of the assistant;  text  the same without media: the answer without its signals
    """

    media: dict[str, Annotated[str, AfterValidator(_record_type)]] = Field(
        min_length=1, description="the type of each medium by its name", examples=[{"image": "image"}]
    )
    missing: str = Field(default="[no {medium}: it could not be made]", description="the text in place of what an ask did not get")

    @field_validator("media")
    @classmethod
    def _can_be_inputs(cls, media: Mapping[str, str]) -> Mapping[str, str]:
        for name in media:
            if NAME.fullmatch(name) is None or name in OWN:
                raise ValueError(f"the medium '{name}' cannot name an input: take a word of letters, digits and _, and not 'parts'")
        return media

    def ports(self) -> Ports:
        """The answer in its parts and what was made for it in, a conversation out."""
        media: dict[str, str | Port] = {
            name: port(type_, several="*", doc=f"what was made for each ask of {name}") for name, type_ in self.media.items()
        }
        outputs = {"conversation": port("conversation", doc="one message of the assistant"), "text": port("text", doc="its words alone")}
        return Ports.of({"parts": port("object", doc="texts and asks in order, as router/signal-tokens gives them"), **media}, outputs)
