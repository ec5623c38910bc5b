"""What the system knows of a medium: one RecordType for each, registered by `register_record_types`. See README.md beside this file.

Light to import: what needs numpy, Pillow or a decoder is imported within the methods that use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from modelgraft.kernel.words.errors import InputError
from modelgraft.records.opening import FindFile, Say, plain_path, silent
from modelgraft.records.telling import describe
from modelgraft.records.tensor_files import read_json

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry

Types = Mapping[str, "RecordType"]  # by the names that ports have for them


@dataclass(slots=True)  # not frozen: made in every run, and freezing triples the cost
class Reading:
    """How a value that a user gives is read.

    label  what to call it in messages, such as "input 'image'[2]"
    say    takes what the user should know of a value that is used, but not quite as it is
    find   gives the place of a file that is named
    types  of what may lie inside, as a picture in a conversation
    """

    label: str
    say: Say = silent
    find: FindFile = plain_path
    types: Types = field(default_factory=lambda: MappingProxyType({}))

    def within(self, label: str) -> Reading:
        """The same for a part of the value."""
        return Reading(label, self.say, self.find, self.types)

    def tell(self, text: str) -> None:
        """Say something of this value."""
        self.say(f"{self.label}: {text}")

    def refused(self, value: Any, wanted: str) -> InputError:
        """The error for a value that is none of the medium: what was found, what was wanted."""
        return InputError(f"{self.label}: found {describe(value)}, wanted {wanted}")


class RecordType:
    """A medium: how its records are read, told from others and made up. Subclass it, and register an object of the class.

    name     the word that ports have for it
    meaning  what it is, in a few words: for the schema and for messages
    reads    what its files end in, when a text stands for a file: one that is no file has none
    writes   what the files end in that it is written into; none: any ending that promises nothing else
    is_text    its records are texts: a file of any ending that promises nothing else takes them
    is_spoken  a line that a person types is a record
    is_talk    its records are messages with roles, which a chat makes longer
    plain    types of Python whose values cannot be written to and are records as they are: `read` gives them back and says nothing
    colour   of its wires in drawings, on paper and on a dark page; None: that of any value

    Copies, digests, sizes, the cache and batches follow from what its records are made of: see `Record`.
    """

    name: ClassVar[str]
    meaning: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ()
    is_text: ClassVar[bool] = False
    is_spoken: ClassVar[bool] = False
    is_talk: ClassVar[bool] = False
    plain: ClassVar[frozenset[type]] = frozenset()
    colour: ClassVar[tuple[str, str] | None] = None

    # -- what each must have ---------------------------------------------------------------------------------------------

    def read(self, value: Any, reading: Reading) -> Any:
        """Make a record of what a user gives: the name of a file, bytes, an array, what stands in JSON, or a record.

        What can be written to is a copy. Raises InputError that names `reading.label`, what was found and what was wanted.
        """
        raise NotImplementedError

    def accepts(self, value: Any) -> bool:
        """Whether a value that a node gives is a record of this medium. Quick: it is asked in every run."""
        raise NotImplementedError

    def example(self, index: int) -> Any:
        """A small record for tests, the same each time; those of index 0 and 1 differ in size where sizes may."""
        raise NotImplementedError

    # -- what most leave as it is ----------------------------------------------------------------------------------------

    def is_batch(self, value: list[Any]) -> bool:  # noqa: ARG002 others look at it
        """Whether a list that a user gives is several records, not one that is itself a list."""
        return True

    def is_folder(self, path: Path) -> bool:  # noqa: ARG002 others look at it
        """Whether a folder is one record, as one of frames is; otherwise it stands for the files in it."""
        return False

    def spoken(self, text: str, label: str) -> Any:
        """What a text means on the command line or in a table: JSON where it begins like JSON, else itself.

        Raises InputError for what begins like JSON and is none.
        """
        return from_json(text, label) if text.lstrip()[:1] in ("[", "{") else text

    def misfit(self, default: Any) -> str | None:  # noqa: ARG002 others look at it
        """What the default of a graph's input should have been; None when it fits. Looked at without reading any file."""
        return f"none: a value of type {self.name} is given to the run"

    def noted(self, value: Any, *, time: str, nodes: Mapping[str, float]) -> Any:  # noqa: ARG002 others keep it
        """A value as it goes into a file, with what is known of the run that gave it: most keep nothing of that.

        time  when it ended, as ISO 8601 writes it;  nodes  the seconds that each node took
        """
        return value

    @property
    def is_file(self) -> bool:
        """Whether a text stands for a file."""
        return bool(self.reads)

    def lacks(self) -> str:
        """What is missing to use it, for whoever wrote it; "" when nothing is."""
        needed = {"read": "reader", "accepts": "check", "example": "example"}
        for method, what in needed.items():
            if getattr(type(self), method) is getattr(RecordType, method):
                return f"has no {what}: define {method}, as modelgraft.plugin.RecordType describes it"
        for suffix in (*self.reads, *self.writes):
            if not suffix.startswith(".") or suffix != suffix.lower():
                return f"has files that end in '{suffix}'; wanted: an ending with its dot, in lower case, such as .ply"
        return ""

    def __repr__(self) -> str:
        return f"<RecordType {self.name}>"


def types_of(registry: Registry) -> Types:
    """The record types that are registered: what the kernel knows of them is less than what they are."""
    return cast("Types", registry.record_types)


def from_json(text: str, label: str) -> Any:
    """Read JSON. Raises InputError with what is wrong with it."""
    try:
        return read_json(text)
    except ValueError as error:
        raise InputError(f"{label}: this is no JSON: {error}") from error
