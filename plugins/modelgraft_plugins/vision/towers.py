"""What is known of vision towers without building them. How each is built and run stands on the card of its family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from modelgraft.plugin import AUTO, TowerCard, families
from modelgraft_plugins.stated import REMARKS, Table, tower_table

MEDIUM = "image"
WORDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "num_channels",
    "hidden_act", "layer_norm_eps", "qkv_bias",
)  # fmt: skip
OWN = ("positions", "pre_logits")  # words that a config may state and transformers does not know
NEEDED = ("hidden_size", "patch_size")  # what a config must state, so that a tower without a card can be served
UNKNOWN = TowerCard(MEDIUM, pooled=False)  # of a tower that no card speaks of: it gives tokens, and nobody says how many


class Steps(Protocol):
    """How a tower is run up to a layer. `tower` is the model of transformers, `hidden` float[batch tokens width]."""

    def enter(self, tower: Any, pixels: Any, *, interpolate: bool) -> Any:
        """Pixels float[batch channels height width] -> what the first layer reads; `interpolate`: they may have any size."""
        ...

    def layers(self, tower: Any) -> Sequence[Any]:
        """The layers in order."""
        ...

    def layer(self, block: Any, hidden: Any) -> Any:
        """What a layer makes of the tokens."""
        ...

    def finish(self, tower: Any, hidden: Any, settings: Mapping[str, Any]) -> tuple[Any, Any]:
        """What the last layer gives -> tokens, and one vector for the picture or None."""
        ...


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
    obeyed = {card.names.get(word, word) for card in cards for word in (*card.defaults, *card.settings)}
    return tower_table({*obeyed, *(key for card in cards for key in card.obeyed)}, {REMARKS, *(key for card in cards for key in card.idle)})


def stated(config: Mapping[str, Any], card: TowerCard) -> dict[str, Any]:
    """Our words, as a config states them or its family means them; what neither says is left out."""
    names = {word: card.names.get(word, word) for word in (*WORDS, *card.defaults)}
    found = {word: config.get(key, card.defaults.get(word)) for word, key in names.items()}
    sides = {word: _side(found[word]) for word in ("image_size", "patch_size")}
    return {word: value for word, value in {**found, **sides}.items() if value is not None}


def _side(value: Any) -> Any:
    """A side in pixels; of a pair that is a square, one of its sides; of another its (height, width)."""
    if not isinstance(value, list | tuple):
        return value
    return value[0] if len(set(value)) == 1 else tuple(value)
