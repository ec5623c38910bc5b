"""Tokens that a config names, as their ids, and how an answer is written with them. Like writer.py, it imports no transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelgraft.plugin import InputError, Settings
from modelgraft_plugins.llm.config import LanguageConfig
from modelgraft_plugins.llm.tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class Names:
    """The names in the config of one node. facts: see Writer."""

    config: LanguageConfig
    tokenizer: Tokenizer
    facts: Mapping[str, Any]
    node: str

    def ids(self, names: Sequence[str], field: str, *, is_chosen: bool = False) -> list[int]:
        """The ids of tokens that a field names. Raises InputError for those that the tokenizer, or a model that chooses, does not know."""
        found = {name: self.tokenizer.id_of(name) for name in names}
        unknown = [name for name, number in found.items() if number is None]
        if unknown:
            raise InputError(f"{self.node}.{field}: the tokenizer has no token {', '.join(map(repr, unknown))}")
        rows = self.facts["vocabulary"]
        beyond = [f"{name!r} ({number:,})" for name, number in found.items() if is_chosen and (number or 0) >= rows]
        if beyond:
            known = f"the model knows {rows:,} tokens, 0 to {rows - 1:,}"
            raise InputError(f"{self.node}.{field} names {', '.join(beyond)}, and {known}: add them with extra_tokens")
        return [number for number in found.values() if number is not None]

    def tapped(self) -> dict[int, str]:
        """The tokens that `states.at` names, by their ids."""
        names = () if isinstance(self.config.states.at, str) else self.config.states.at
        return dict(zip(self.ids(names, "states.at"), names, strict=True))

    def chosen(self) -> frozenset[int] | None:
        """The tokens whose states are wanted; None: all. Raises InputError for one that the tokenizer does not know."""
        return None if isinstance(self.config.states.at, str) else frozenset(self.tapped())

    def shown(self) -> Callable[[list[int]], str]:
        """Tokens to the text that is shown of them."""
        decode, hidden = self.tokenizer.decode, frozenset(self.ids(self.config.hidden_tokens, "hidden_tokens"))
        return (lambda ids: decode([token for token in ids if token not in hidden])) if hidden else decode

    def settings(self) -> Settings:
        """How to write. Raises InputError for a token that the tokenizer does not know."""
        config = self.config
        settings = config.settings(end_ids=tuple(self.facts["end_ids"]))
        ends, taught = self.ids(config.end_tokens, "end_tokens"), config.taught
        stops = () if taught is None else taught.stop
        ends += [] if taught is None else self.ids(taught.ends, "chat_template")
        scales = self.ids(tuple(config.token_scale), "token_scale", is_chosen=True)
        delays = self.ids(tuple(config.token_delay), "token_delay", is_chosen=True)
        return replace(
            settings,
            stop=(*settings.stop, *(text for text in stops if text not in settings.stop)),
            end_ids=(*settings.end_ids, *ends),
            token_scale=tuple(zip(scales, config.token_scale.values(), strict=True)),
            token_delay=tuple(zip(delays, config.token_delay.values(), strict=True)),
        )
