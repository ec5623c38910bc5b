"""Which emoji an icon is: vendors name their files by words of their own, and some say no code point at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHORTCODES = ("cldr", "emojibase", "github", "iamcal", "joypixels", "emojibase-legacy")  # names in use elsewhere, the most careful first


@dataclass(frozen=True, slots=True)
class Concept:
    """An emoji without skin tones.

    code      its code points in hexadecimal with hyphens, without the variation selector: `1F34E`
    caption   its name in CLDR: "red apple";  keywords: further words;  group: such as "food & drink", or "" for parts of others
    """

    code: str
    caption: str
    keywords: tuple[str, ...]
    group: str


def code_of(text: str) -> str:
    """Code points as `Concept.code` writes them: `0023-FE0F-20E3` is `23-20E3`."""
    return "-".join(part.lstrip("0") or "0" for part in text.upper().split("-") if part != "FE0F")


def squeezed(name: str) -> str:
    """Letters and digits alone: "Ice cream", `ice-cream` and `icecream` are one name."""
    return re.sub("[^a-z0-9]", "", name.lower().replace("&", "and"))


def concepts(entries: Iterable[Mapping[str, Any]], groups: Mapping[int, str]) -> dict[str, Concept]:
    """Read the emoji of emojibase's `data.json`, by code. groups: the names of its group numbers."""
    found = {}
    for entry in entries:
        code, group = code_of(entry["hexcode"]), groups.get(entry.get("group", -1), "")
        found[code] = Concept(code, entry["label"], tuple(entry.get("tags", ())), group)
    return found


class Names:
    """Which emoji each name means. The first who gives a name keeps it, so that careful lists go first."""

    def __init__(self, entries: Sequence[Mapping[str, Any]]) -> None:
        self._codes: dict[str, str] = {}
        toned = [tone for entry in entries for tone in entry.get("skins", ())]
        self._known = {code_of(one["hexcode"]) for one in (*entries, *toned)}
        self.take((one["hexcode"], one["label"]) for one in (*entries, *toned))

    def take(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Hear pairs of a code and a name; codes of no known emoji are left out."""
        for text, name in pairs:
            if (code := code_of(text)) in self._known:
                self._codes.setdefault(squeezed(name), code)

    def __getitem__(self, name: str) -> str:
        """The code of a name, or "" for one that nobody gave."""
        return self._codes.get(squeezed(name), "")


def named_in(shortcodes: Mapping[str, str | Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Pairs of code and name of a list where an emoji may have several names."""
    for code, names in shortcodes.items():
        for name in [names] if isinstance(names, str) else names:
            yield code, name


def drawn(icons: Mapping[str, Any], chars: Mapping[str, str], names: Names, known: Mapping[str, Concept]) -> dict[str, str]:
    """Which icon shows which emoji, by code, in the order of codes; icons of nothing known, and skin tones, are left out.

    icons  an icon set as Iconify writes it: `icons`, and `aliases` of them;  chars  its own codes of names, where it says them
    """
    said = {name: code_of(code) for code, name in chars.items()}
    other_names = [name for name, alias in icons.get("aliases", {}).items() if set(alias) == {"parent"}]  # others are turned or mirrored
    found: dict[str, str] = {}
    for name in [*icons["icons"], *other_names]:
        if (code := said.get(name) or names[name]) in known:
            found.setdefault(code, name)
    return dict(sorted(found.items()))
