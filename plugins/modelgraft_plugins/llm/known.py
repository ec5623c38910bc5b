"""What cards of families say of a language model, and of the whole around it: the way from a source to both.

A whole may own the output head of the language model inside it: it then decides whether the head is the embedding table
(`tie_word_embeddings` of its own config, not that of the part), and most leave out what the language model by itself does to its
logits last: a scale, a soft cap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LanguageCard, WholeCard, families

if TYPE_CHECKING:
    from modelgraft.plugin import Source

# The key of a language model's config that says what is done to its logits last -> the value at which that is nothing
LAST: Mapping[str, Any] = {"logit_scale": 1.0, "final_logit_softcapping": None, "logits_scaling": 1.0, "lm_head_multiplier": 1.0}
NOTHING = LanguageCard()


def family_of(model_type: str) -> LanguageCard:
    """The card of a model type; one without defaults or formula when there is none."""
    return families().languages.get(model_type, NOTHING)


def is_put_on(model_type: str) -> bool:
    """Whether transformers has the layers of a model type alone, so that its head is put on here."""
    return family_of(model_type).more.get("head") == "put on"


def whole_of(source: Source) -> WholeCard:
    """The card of the model that a source is, or is a part of."""
    return families().whole(source.root.get("model_type"))


def made_of_whole(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the language model, where the whole around it says how it is made: of its own config, or that of the part."""
    whole = whole_of(source)
    is_language = not source.part or bool(whole.parts[source.part].language if source.part in whole.parts else "")
    if whole.language_config is None or not is_language or "text_config" in config:
        return dict(config)
    return whole.language_config(config)


def head_is_tied(root: Mapping[str, Any], config: Mapping[str, Any]) -> bool | None:
    """Whether a whole ties the head of its language model, of which `config` is; None for one that leaves this to the language model."""
    whole = families().whole(root.get("model_type"))
    if whole.tied is None:
        return None
    stated = root.get("tie_word_embeddings")
    inside = whole.tied_inside and bool(family_of(str(config.get("model_type"))).facts(config).get("tie_word_embeddings"))
    return inside or (whole.tied if stated is None else bool(stated))


def language_type(root: Mapping[str, Any]) -> str | None:
    """The type of a language model whose config does not state it, by the whole around it."""
    return families().language_inside(root.get("model_type")) or None


def left_out(root: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What a language model does to its logits last, by key, and the whole around it leaves out."""
    whole = families().whole(root.get("model_type"))
    return last_of(config) if whole.tied is not None and not whole.keeps else {}


def last_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a language model does to its logits last, by key; nothing where it does nothing."""
    last = family_of(str(config.get("model_type"))).last
    silent = {} if last is None else {last[0]: last[1]}
    stated = {key: config[key] for key in LAST if key in config}
    return {key: value for key, value in {**silent, **stated}.items() if value not in (None, LAST[key])}
