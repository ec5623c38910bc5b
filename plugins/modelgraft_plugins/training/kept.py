"""The features that trainings have kept in folders of users, for `modelgraft cache`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from modelgraft.plugin import Keeper, KeptItem, cache_root, seals

ABOUT = "features.json"
KEY = re.compile("[0-9a-f]{24}")


class KeepsFeatures(Keeper):
    """What frozen parts made of the records of a data set: a folder for each, below those that trainings have written to."""

    kind = "features"

    def items(self) -> Iterator[KeptItem]:
        """Each by its key; deleted, it is made again by the next training that needs it."""
        for home in _homes():
            for about in sorted(home.glob(f"*/{ABOUT}")):
                if KEY.fullmatch(about.parent.name):  # the folder is a user's: nothing else there is ours
                    yield KeptItem(self.kind, about.parent.name, about.parent, str(about.parent), _notes() / ".lock")

    def complaints(self, item: KeptItem) -> Iterator[tuple[Path, str]]:
        """Whether it says what it holds, and every file is as long as the records need."""
        try:
            columns = json.loads((item.path / ABOUT).read_text(encoding="utf-8"))["columns"]
            gone = [f"{name}.bin" for name in columns if not (item.path / f"{name.replace('/', '.')}.bin").is_file()]
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield item.path, str(error)
        else:
            yield item.path, f"{gone[0]} is not there" if gone else ""


def note_home(home: Path) -> None:
    """Remember a folder in which features are kept: it is the user's, and lies anywhere."""
    name = hashlib.sha256(str(home.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    with contextlib.suppress(OSError, UnicodeError):  # a cache that cannot be written lists less
        seals.write_sealed(_notes() / f"{name}.json", {"folder": str(home.resolve())})


def _notes() -> Path:
    return cache_root() / "features"


def _homes() -> Iterator[Path]:
    for note in sorted(_notes().glob("[!.]*.json")):
        with contextlib.suppress(OSError, KeyError, ValueError, seals.BrokenSeal):
            yield Path(seals.read_sealed(note)["folder"])
