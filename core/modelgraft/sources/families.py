"""The cards of all families that installed plugins register, looked up by `model_type`.

    families().whole("llava").layer        what a model of several parts decides for them
    families().tower("dinov2")             how an encoder is read and run, None for one that no card knows

A process knows every card of the plugins that are installed: they are the same for all its graphs. Which card comes first for a
model type is decided by the order of plugins; cards that are tables come last, and fill in what the others leave open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeVar

from modelgraft.installed import discovery as installed
from modelgraft.sources.cards import EVERY, FamilyCard, LanguageCard, LayoutCard, PartCard, PictureCard, TowerCard, WholeCard

_Card = TypeVar("_Card", TowerCard, LanguageCard, PictureCard)


@dataclass(frozen=True)
class Families:
    """Cards by what they are about. Nothing here raises: what no card knows is None, or says nothing."""

    cards: tuple[FamilyCard, ...]

    def of(self, kind: str) -> FamilyCard | None:
        """The card that a model type stands on, tables aside."""
        return next((card for card in self.cards if not card.table and kind in {*card.wholes, *card.towers, *card.languages}), None)

    def whole(self, kind: Any) -> WholeCard:
        """What a model of several parts decides for them; of one that no card knows, what all have in common."""
        known = self._wholes.get(str(kind))
        return known if known is not None else self._wholes.get(EVERY, WholeCard())

    def knows(self, kind: Any) -> bool:
        """A card speaks of this model of several parts."""
        return kind in self._wholes

    def tower(self, kind: Any) -> TowerCard | None:
        """The encoder of this model type."""
        return self.towers.get(str(kind))

    def style(self, medium: str, style: str) -> TowerCard | None:
        """An encoder that is run in this style; those of one style differ only in what their configs leave out."""
        return next((card for card in self.towers.values() if (card.medium, card.style) == (medium, style)), None)

    def of_medium(self, medium: str) -> dict[str, TowerCard]:
        """Model type -> encoder, of those that read this medium."""
        return {kind: card for kind, card in self.towers.items() if card.medium == medium}

    def inside(self, whole: Any, medium: str) -> tuple[str, str]:
        """(part, model type) of the encoder of a medium in a model of several parts, both "" where none is known."""
        for name, part in self._own_parts(whole):
            card = self.tower(part.kind)
            if card is not None and card.medium == medium:
                return name, part.kind
        return "", ""

    def language_inside(self, whole: Any) -> str:
        """The model type of the language model in a model of several parts, where its config leaves it out; "" where none is known."""
        return next((part.kind for _, part in self._own_parts(whole) if part.language and part.kind), "")

    def part_of(self, whole: Any, config: str, *, inside: Any) -> str:
        """The part that a sub-config is about, by its key and its own model type: one has a text_model, another a language_model."""
        own = [name for name, part in self._own_parts(whole) if part.config == config]
        common = [name for name, part in self.whole(EVERY).parts.items() if part.config == config]
        alike = [name for name in common if str(inside).endswith(f"_{name}")]
        return next(iter((*own, *alike, *common)), config.removesuffix("_config"))

    @cached_property
    def towers(self) -> Mapping[str, TowerCard]:
        """Model type -> encoder."""
        return _gathered(self.cards, "towers")

    @cached_property
    def languages(self) -> Mapping[str, LanguageCard]:
        """Model type -> language model."""
        return _gathered(self.cards, "languages")

    @cached_property
    def pictures(self) -> Mapping[str, PictureCard]:
        """Name of an image processor -> what it does where its file is silent."""
        return _gathered(self.cards, "pictures")

    @cached_property
    def graphs(self) -> Mapping[str, str | Callable[[Mapping[str, Any]], str]]:
        """Model type -> name of a shipped graph, the text of one, or what gives it from a config."""
        return _gathered(self.cards, "graphs")

    @cached_property
    def layouts(self) -> tuple[LayoutCard, ...]:
        """Every layout of files that is not that of Hugging Face."""
        return tuple(layout for card in self.cards for layout in card.layouts)

    @cached_property
    def wholes(self) -> Mapping[str, WholeCard]:
        """Model type -> model of several parts, without what all have in common."""
        return {kind: card for kind, card in self._wholes.items() if kind != EVERY}

    @cached_property
    def _wholes(self) -> Mapping[str, WholeCard]:
        found: dict[str, WholeCard] = {}
        for card in self.cards:
            for kind, whole in card.wholes.items():
                found[kind] = _filled(found[kind], whole) if kind in found else whole
        every = found.get(EVERY, WholeCard())
        return {kind: _filled(whole, every) for kind, whole in found.items()}

    def _own_parts(self, whole: Any) -> Iterator[tuple[str, PartCard]]:
        known = self.whole(whole)
        common = self.whole(EVERY).parts
        yield from ((name, part) for name, part in known.parts.items() if common.get(name) is not part)


def _filled(card: WholeCard, other: WholeCard) -> WholeCard:
    """A card with what it leaves open taken from another; parts are put together."""
    silent = [field.name for field in fields(WholeCard) if getattr(card, field.name) == _silent(field)]
    parts = {**card.parts, **{name: part for name, part in other.parts.items() if name not in card.parts}}
    return replace(card, **{**{name: getattr(other, name) for name in silent}, "parts": parts})


def _silent(field: Any) -> Any:  # Any: dataclasses.Field of anything
    return field.default if field.default is not MISSING else field.default_factory()


def _gathered(cards: Iterable[FamilyCard], table: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for card in cards:
        for kind, entry in getattr(card, table).items():
            found.setdefault(kind, entry)
    return found


_seen: tuple[int, Families] = (0, Families(()))


def families() -> Families:
    """The cards of every plugin that this process has loaded, those of the installed ones among them."""
    global _seen  # noqa: PLW0603 remembered until a plugin with further cards is loaded
    known = installed.KNOWN
    known.complete()
    if _seen[0] != len(known.cards):
        cards = [card for card in known.cards.values() if isinstance(card, FamilyCard)]
        _seen = (len(known.cards), Families(tuple(sorted(cards, key=lambda card: card.table))))
    return _seen[1]
