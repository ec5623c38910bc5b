"""What travels on a wire when it is more than a text, a picture, a tensor or a list of such: a record with named parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from pathlib import Path

    from modelgraft.records.opening import Say


@dataclass(frozen=True, slots=True)
class Sight:
    """What is shown of a value on a page.

    said     what it is, in words: "sound of 1.2 s at 16,000 Hz"
    kind     "image/png", "image/gif", "audio/wav" or another kind that browsers show; "": there are only the words
    content  the file of that kind
    """

    said: str
    kind: str = ""
    content: bytes = b""


class Record:
    """A value of one medium: a frozen dataclass whose fields are arrays, tensors, pictures, texts, numbers, or lists and records of them.

    Its copy, its digest, its size, its form in the cache and whether two are equal follow from its fields: a medium says nothing of that.
    Overridden is what a reader of messages, pages and files is shown.
    """

    __slots__ = ()
    gaps: ClassVar[bool] = False  # its numbers are NaN where nothing was measured
    called: ClassVar[str] = "a record"  # in messages: "a sound goes into a file that ends in .wav"
    endings: ClassVar[tuple[str, ...]] = (".json",)  # of the files that it is written into

    def parts(self) -> dict[str, Any]:  # Any: whatever its fields hold
        """Its fields by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # a subclass is one

    @classmethod
    def whole(cls, parts: Mapping[str, Any]) -> Self:
        """A record of fields as `parts` gives them."""
        return cls(**parts)

    def mapped(self, change: Callable[[Any], Any]) -> Self:
        """A record of the same kind whose fields are changed one by one."""
        return self.whole({name: change(part) for name, part in self.parts().items()})

    def brief(self) -> str:
        """What it is, in a few words."""
        return type(self).__name__.lower()

    def facts(self) -> dict[str, Any]:
        """What it measures, as plain values: how it stands in JSON."""
        return {"type": type(self).__name__.lower()}

    def sight(self) -> Sight:
        """What is shown of it on a page, bounded in size."""
        return Sight(self.brief())

    def whole_sight(self) -> Sight:
        """The same for a page that holds all of it, such as a conversation that is kept; bounded where it knows no better."""
        return self.sight()

    def save(self, target: Path, label: str, say: Say) -> None:  # noqa: ARG002 others tell what is lost
        """Write it into a new file, of the kind that its ending says. Nothing but `facts` unless a medium knows better.

        label  what to call the output in messages;  say  takes what is written though not quite as it is

        Raises InputError for what no such file can hold.
        """
        from modelgraft.records.json_text import json_text

        target.write_text(json_text(self.facts(), indent=1) + "\n", encoding="utf-8")
