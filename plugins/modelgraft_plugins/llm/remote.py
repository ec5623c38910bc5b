"""A language model on a server, asked over the chat interface that OpenAI's and most other servers have."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from modelgraft.plugin import Config, Ports, component, port
from modelgraft_plugins.llm import template

URL, MODEL, KEY = "MODELGRAFT_LLM_URL", "MODELGRAFT_LLM_MODEL", "MODELGRAFT_LLM_KEY"  # the environment, where the graph does not say it
ROLES = ("system", "user", "assistant")  # whose messages a server takes
OURS = frozenset({"messages", "model", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "stream", "n"})


@component(
    "llm/remote",
    kind="llm",
    load="modelgraft_plugins.llm.remote_calls:load",
    cache=False,  # what a server would say tomorrow is not known here
    random=True,
    shared=True,
    keywords=("openai", "api", "server", "chat"),
)
class RemoteConfig(Config):
    """Have a language model on a server write an answer: any that has the chat interface of OpenAI.

    All that the prompt is made of leaves this machine for `url`, which `plan` and every run say. The key of the server comes from the
    environment alone. Fields of `prompt` take texts, or one conversation that is all of it, as in llm/causal with `chat: true`, which can
    stand in its place. An answer that was cut short is told as a warning. Requests of a batch are under way together.
    """

    prompt: str = Field("{prompt}", description="template of the user's message; each {field} becomes an input port")
    system: str | None = Field(None, description="system message, before everything else")
    chat: Literal[True] = Field(True, description="prompts are always messages, as with llm/causal where this is set")
    url: str | None = Field(None, description=f"base address of the server, such as https://host/v1; none: that in {URL}")
    model: str | None = Field(None, min_length=1, description=f"name of the model on the server; none: that in {MODEL}")
    key_variable: str = Field(KEY, min_length=1, description="variable of the environment that holds the key; none is sent without it")
    max_new_tokens: int = Field(512, gt=0, description="longest answer in tokens of the server's model")
    length_key: Literal["max_tokens", "max_completion_tokens"] = Field("max_tokens", description="what the server calls that")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token, as far as the server does that")
    top_p: float | None = Field(None, gt=0, le=1)
    stop: tuple[str, ...] = Field((), description="strings that end the answer and are cut from it")
    sends_seed: bool = Field(True, description="send a seed, made of that of the run and of the prompt, where temperature is above 0")
    more: dict[str, Any] = Field({}, description="other keys of the request, such as response_format")
    at_once: int = Field(4, gt=0, le=256, description="requests that are under way together; a batch gives no more than it has records")
    timeout_s: float = Field(120.0, gt=0, description="seconds for one answer, from the connection to its last letter")
    retries: int = Field(4, ge=0, le=20, description="how often a request is sent again when the server is busy, failing or gone")
    pause_s: float = Field(1.0, gt=0, description="seconds before the first of them, doubled each time; a server may ask for more")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and (found := complaint(url)):
            raise ValueError(found)
        return url

    @field_validator("more")
    @classmethod
    def _are_other_keys(cls, more: dict[str, Any]) -> dict[str, Any]:
        if ours := sorted(OURS & {*more}):
            raise ValueError(f"more has {', '.join(ours)}, which other fields of this node set, or which make no single answer")
        return more

    @model_validator(mode="after")
    def _takes_words(self) -> RemoteConfig:
        if media := [field.name for field in self.fields if field.tokens is not None or field.many or field.ragged]:
            raise ValueError(
                f"the prompt gives {{{media[0]}}} a number of embeddings, and a server reads words alone: write {{{media[0]}}}"
            )
        return self

    @property
    def pieces(self) -> tuple[template.Piece, ...]:
        """The template, cut into words and fields."""
        return template.parse(self.prompt)

    @property
    def fields(self) -> tuple[template.Field, ...]:
        """The fields of the template. Raises ValueError for one that cannot be read."""
        return template.fields(self.pieces)

    @property
    def elsewhere(self) -> str:
        """Where it runs, in the table of a plan."""
        return f"server {origin(self.url)}" if self.url is not None else f"server of {URL}"

    def ports(self) -> Ports:
        """The fields of the template in, the answer out."""
        return Ports.of({field.name: port("text | label | conversation") for field in self.fields}, {"text": "text"})


def complaint(url: str) -> str:
    """What is wrong with the address of a server; "" for one that can be asked."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # which raises for a port that is none
    except ValueError as error:
        return f"the address {url!r} cannot be read: {error}"
    if parts.username or parts.password:
        return "the address holds a name or password before its host: a key belongs into the environment"
    if parts.scheme not in ("http", "https") or not host:
        return f"the address {url!r} is none of a server: wanted http:// or https://, a host, and where its interface begins, such as /v1"
    return ""


def origin(url: str) -> str:
    """Scheme and host of an address, without what may be secret behind them."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
