"""What is known of text towers without building them. How each is built stands on the card of its family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelgraft.plugin import AUTO, TowerCard, families
from modelgraft_plugins.stated import Table, tower_table

MEDIUM = "text"
WORDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings", "hidden_act",
    "layer_norm_eps", "eos_token_id", "pad_token_id", "type_vocab_size",
)  # fmt: skip
NEEDED = ("hidden_size", "vocab_size")  # what a config must state, so that a tower without a card can be served
UNKNOWN = TowerCard(MEDIUM, pooled=False)  # of a tower that no card speaks of


def card_of(family: str, model: Mapping[str, Any]) -> TowerCard:
    """The card of a tower by its style, or by the model type of its config where it is run as transformers runs it."""
    found = families().tower(model.get("model_type")) if family == AUTO else families().style(MEDIUM, family)
    return found if found is not None and found.medium == MEDIUM else UNKNOWN


def styles() -> list[str]:
    """The styles that there are, `auto` among them."""
    return sorted({AUTO, *(card.style for card in families().of_medium(MEDIUM).values())})


def table() -> Table:
    """What a published config states -> what becomes of it; a test compares it with the config classes of transformers."""
    cards = [card for card in families().of_medium(MEDIUM).values() if card.style != AUTO]
    obeyed = {key for card in cards for key in (*card.defaults, *card.obeyed)}
    return tower_table(obeyed, {key for card in cards for key in card.idle})


def stated(config: Mapping[str, Any], card: TowerCard) -> dict[str, Any]:
    """Our words, as a config states them or its family means them; with a card each of its own, else those that are stated."""
    if card.style != AUTO:
        return {word: config.get(card.names.get(word, word), default) for word, default in card.defaults.items()}
    found = {word: config.get(card.names.get(word, word), card.defaults.get(word)) for word in (*WORDS, *card.defaults)}
    return {word: value for word, value in found.items() if value is not None}
