"""router/signal-tokens: a language model asks other models for pictures, sounds and the like by tokens that it writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from modelgraft import Config, Port, Ports, component, port

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PLACE = "{}"  # where the number of a token goes in a pattern of its name
OWN = frozenset({"parts"})  # an output that no medium may be named after


class Span(BaseModel):
    """The tokens that ask for one medium, in the order in which a language model writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: str | tuple[str, ...] = Field(min_length=1, description="one token, several, or a pattern such as [IMG{}] with a count")
    count: int | None = Field(default=None, gt=0, description="how many tokens a pattern stands for: numbered from 0")

    @model_validator(mode="after")
    def _is_clear(self) -> Span:
        is_pattern = isinstance(self.tokens, str) and PLACE in self.tokens
        if is_pattern and self.count is None:
            raise ValueError(f"{self.tokens} is a pattern of several tokens: say how many there are with count")
        if self.count is not None and not is_pattern:
            raise ValueError(f"count: {self.count} numbers the tokens of a pattern, and {self.tokens} has no {PLACE} for the number")
        if "" in self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"the tokens {', '.join(map(repr, self.names))} are not all different, or one of them is empty")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The tokens by their names."""
        if not isinstance(self.tokens, str):
            return self.tokens
        return tuple(self.tokens.replace(PLACE, str(number)) for number in range(self.count)) if self.count else (self.tokens,)


def _span(given: Any) -> Any:
    """A token, or a list of them, is the short form of a span."""
    return {"tokens": given} if isinstance(given, str | list | tuple) else given


@component("router/signal-tokens", kind="router", load="modelgraft_plugins.routers.signals_read:load", cache=False)
class SignalTokens(Config):
    """Read from an answer of a language model what it asks of other models: spans of signal tokens between its words.

    A span is complete when all tokens of its medium stand behind each other in their order; white space between them does no harm. Each
    record may ask any number of times, also for several media. The inputs are taps of llm/causal, whose `states.at` names all the tokens:

        llm:   {use: llm/causal, with: {states: {layers: [0, -1], at: ["[IMG0]", "[IMG1]", "[AUD0]"]}}, ...}
        asks:
          use: router/signal-tokens
          with: {media: {image: {tokens: "[IMG{}]", count: 2}, sound: "[AUD0]"}}
          in: {pieces: llm.pieces, states: llm.states}

    media         for each medium its tokens: one, a list, or a pattern with a count
    broken        spans that are not complete, or out of order, such as one that the end of the answer has cut. drop: they are left out;
                  repair: what is there is put in order, and stands in for its neighbours that are not; error: they are refused.
                  What is left out or repaired is told
    max_objects   the most asks of one record, of all media together; what comes behind them is left out, and that is told
    at            which states there are: of signals alone (`states.at` of the language model names them), or of all that was written
    prompt_pieces, prompt_states  the same taps of the prompt, where an answer may begin with it: of signals that the prompt ends with
    M_captions    what is asked for of a medium M, ask by ask, where that is known otherwise, as when a model is taught its answers by
                  `target_pieces` and `target_states`: it stands in M_text

    Outputs of each medium M, one for each ask:
    M_states  hidden states of its tokens, float[batch layers tokens width];  M_vector  those of its last token in the last of the layers
    M_text    the words before it, back to the ask before; where there are none, those of that ask, or else what follows
    parts     the answer in order: {"type": "text", "text": ...} and {"type": "ask", "medium": M, "number": n}, counted from 0 for each M
    """

    media: dict[str, Annotated[Span, BeforeValidator(_span, json_schema_input_type=str | list[str] | Span)]] = Field(
        min_length=1,
        description="for each medium the tokens that ask for it",
        examples=[{"image": {"tokens": "[IMG{}]", "count": 4}}],
    )
    broken: Literal["drop", "repair", "error"] = Field(default="drop", description="what becomes of spans that are not complete")
    max_objects: int = Field(default=8, gt=0, description="the most asks of one record")
    at: Literal["signals", "written"] = Field(default="signals", description="the states that are given: of signals, or of every token")

    @field_validator("media")
    @classmethod
    def _are_told_apart(cls, media: dict[str, Span]) -> dict[str, Span]:
        for name in media:
            if NAME.fullmatch(name) is None or name in OWN:
                raise ValueError(f"the medium '{name}' cannot name outputs: take a word of letters, digits and _, and not 'parts'")
        owners: dict[str, str] = {}
        for name, span in media.items():
            for token in span.names:
                if token in owners:
                    raise ValueError(f"the token {token} asks for {owners[token]} and for {name}: it can ask for one medium")
                owners[token] = name
        return media

    def owners(self) -> Mapping[str, tuple[str, int]]:
        """Name of a token -> the medium that it asks for, and its place in the span."""
        return {token: (name, place) for name, span in self.media.items() for place, token in enumerate(span.names)}

    def ports(self) -> Ports:
        """Taps in, asks of each medium out."""
        inputs: dict[str, str | Port] = {
            "pieces": port("list[text]", doc="what each token of the answer adds to its text; a signal by its name"),
            "states": port("float[batch layers positions width]", doc="hidden states of the signals, in their order"),
            "prompt_pieces": port("optional[list[text]]", doc="the same of the prompt, whose last tokens may be signals"),
            "prompt_states": port("optional[float[batch layers prompt_positions width]]", doc="hidden states of the signals there"),
        }
        outputs: dict[str, str | Port] = {}
        for name, span in self.media.items():
            inputs[f"{name}_captions"] = port("optional[list[text]]", doc=f"what each ask for {name} is for, in their order")
            size = len(span.names)
            outputs[f"{name}_states"] = port(f"float[batch layers {size} width]", several=name, doc=f"hidden states of each span of {name}")
            outputs[f"{name}_vector"] = port("float[batch width]", several=name, doc="of the last token of each, in the last layer")
            outputs[f"{name}_text"] = port("text", several=name, doc="the words that each belongs to")
        return Ports.of(inputs, {**outputs, "parts": port("object", doc="texts and asks in the order in which they stand")})
