"""Talk back and forth: what is said becomes a message of a conversation, a language model reads its words, its answer is put behind it.

    asked:  {use: chat/ask, in: {text: words, history: inputs.history, image: inputs.image}}       # the conversation, one message longer
    heard:  {use: chat/words, with: {last: 9}, in: {conversation: asked.conversation}}              # its words alone
    answer: {use: llm/causal, from: "${language}", with: {prompt: "{talk}"}, in: {talk: heard}}
    whole:  {use: chat/reply, in: {conversation: asked.conversation, text: answer.text}}            # and the answer behind it

A model that sees takes the conversation as it is, and its pictures beside it: `prompt: "{image:*}{talk}"`.

    shown:  {use: chat/shown, with: {media: [image]}, in: {conversation: asked.conversation}}        # each picture of it

`line` of chat/ask is for routers: the last message as one line, its media named before its words: `[image] What is this?`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, field_validator

from modelgraft import Config, Ports, component, hookimpl, port
from modelgraft_plugins.chatting.requests import LEAD, TAIL, complaint

MEDIA = ("image", "audio", "video")


class _WithMedia(Config):
    """What has an input for each of some media.

    media  the record types that a message may hold beside its text, each of which is an input that may be left out
    """

    media: tuple[str, ...] = Field(MEDIA, description="the media that a message may hold, in the order in which they stand in it")

    @field_validator("media")
    @classmethod
    def _are_names(cls, media: tuple[str, ...]) -> tuple[str, ...]:
        if odd := [name for name in media if not name.isidentifier() or name in ("text", "conversation", "history")]:
            raise ValueError(f"media names {', '.join(odd)}; wanted: record types such as image, audio, video")
        if len(set(media)) < len(media):
            raise ValueError("media names one of them twice")
        return media

    def inputs(self) -> dict[str, Any]:
        """An input for each medium."""
        return {name: f"optional[{name}]" for name in self.media}


@component("chat/ask", kind="preprocess", load="modelgraft_plugins.chatting.messages:ask", cache=False)
class Ask(_WithMedia):
    """Put what a user says behind a conversation as its last message: media in their order, then the text.

    history       what was said before; left out: nothing
    conversation  all of it
    line          the new message in one line, its media named before its words, for routers: `[image] What is this?`
    """

    role: str = Field("user", min_length=1, description="who says it")

    def ports(self) -> Ports:
        """Words, what was said before, and media in; the conversation and its last line out."""
        inputs = {"text": "text", "history": "optional[conversation]", **self.inputs()}
        return Ports.of(inputs, {"conversation": "conversation", "line": "text"})


@component("chat/words", kind="preprocess", load="modelgraft_plugins.chatting.messages:words", cache=False)
class Words(Config):
    """Give the words of a conversation, for a language model that sees and hears nothing: of a medium its name is left, as in `[image]`.

    What was before the last messages is left out, but for instructions, and so that the first message is one of the user.
    examples  questions with their answers that stand before all of it: a small model follows them better than any instruction
    """

    last: int | None = Field(None, gt=0, description="how many messages are kept, instructions not counted; None: all")
    letters: int | None = Field(None, gt=0, description="how many letters are kept, as far as whole messages go; the last is always kept")
    examples: tuple[tuple[str, str], ...] = Field((), description="pairs of a question and its answer, read before what was said")
    marks: bool = Field(True, description="name the media; false: leave them out")

    def ports(self) -> Ports:
        """A conversation in and out."""
        return Ports.of({"conversation": "conversation"}, {"words": "conversation"})


@component("chat/reply", kind="preprocess", load="modelgraft_plugins.chatting.messages:reply", cache=False)
class Reply(_WithMedia):
    """Put an answer behind a conversation: its text, then its media in their order."""

    role: str = Field("assistant", min_length=1, description="who says it")

    def ports(self) -> Ports:
        """A conversation, a text and media in; the conversation out."""
        return Ports.of({"conversation": "conversation", "text": "optional[text]", **self.inputs()}, {"conversation": "conversation"})


@component("chat/shown", kind="router", load="modelgraft_plugins.chatting.messages:shown", cache=False)
class Shown(_WithMedia):
    """Give what a conversation shows, each object by itself, in the order in which they stand in it.

    media  the record types that it may show, each of which is an output: it runs what follows once for each object
    """

    media: tuple[str, ...] = Field(("image",), min_length=1, description="the media that a conversation may show")

    def ports(self) -> Ports:
        """A conversation in, its objects out."""
        return Ports.of({"conversation": "conversation"}, {name: port(name, several=name) for name in self.media})


@component("chat/subject", kind="preprocess", load="modelgraft_plugins.chatting.requests:subject", cache=False)
class Subject(Config):
    """Say what a request is about: `Could you show me a picture of a black cat, please?` is about `a black cat`.

    lead  regular expressions of what may stand before it, tried again and again until none matches;  tail  of what may stand behind it
    A request that is nothing else is left as it is.
    """

    lead: tuple[str, ...] = Field(LEAD, description="regular expressions of what leads up to it; capitals do not count")
    tail: tuple[str, ...] = Field(TAIL, description="regular expressions of what follows it")

    @field_validator("lead", "tail")
    @classmethod
    def _can_be_read(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if found := next(filter(None, map(complaint, patterns)), ""):
            raise ValueError(found)
        return patterns

    def ports(self) -> Ports:
        """A request in, its subject out."""
        return Ports.of({"text": "text"}, {"text": "text"})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the components of this plugin."""
    for subject in (Ask, Words, Reply, Shown, Subject):
        register(subject)
