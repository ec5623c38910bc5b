"""Who keeps things on this machine, and how they are listed, proven and deleted: `modelgraft cache` asks every keeper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelgraft.sources import kept, seals


@dataclass(frozen=True, slots=True)
class KeptItem:
    """One thing that is kept.

    kind    what it is one of, such as "exports"; the keeper that has listed it knows what to do with it
    about   what it is, in a few words
    lock    what is held while it is made
    facts   what its keeper has written down of it (`Any`: as JSON)
    parity  how far it is from torch, in a few letters; "" for what has no numbers
    """

    kind: str
    name: str
    path: Path
    about: str
    lock: Path
    facts: Mapping[str, Any] = field(default_factory=dict)
    parity: str = ""


class Keeper:
    """Keeps things of one kind in the cache folder; each is a file or a folder that is made again when it is needed.

    A plugin registers its own with `register_keepers`. The class has `kind` and `items`; the rest suits a folder with a seal.
    Its module is light to import.
    """

    kind: str

    def items(self) -> Iterable[KeptItem]:
        """All that is kept, in an order that does not change."""
        raise NotImplementedError

    def files(self, item: KeptItem) -> list[Path]:
        """The files of a thing; what they take on disk is what it takes."""
        return [path for path in sorted(item.path.rglob("*")) if path.is_file()] if item.path.is_dir() else [item.path]

    def tidy(self, item: KeptItem) -> None:
        """Delete what killed processes have left beside a thing; asked for before it is looked at."""

    def complaints(self, item: KeptItem) -> Iterator[tuple[Path, str]]:
        """Read a thing whole: each file or folder of it that can be deleted alone, with what is wrong with it, or ""."""
        yield item.path, seals.complaint(item.path)

    def delete(self, item: KeptItem) -> bool:
        """Delete a thing unless somebody uses it; says whether it is gone."""
        return kept.delete(item.path)


def complaint_of_note(path: Path) -> str:
    """What is wrong with a file that `seals.write_sealed` has written; "" for one that is whole, or gone meanwhile."""
    try:
        seals.read_sealed(path)
    except FileNotFoundError:
        return ""
    except (OSError, seals.BrokenSeal) as error:
        return str(error)
    return ""
