"""What is installed, as a list to choose from: components by kind and ports, and the presets that `from:` may name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import InputError, nearest
from modelgraft.kernel.words.kinds import KINDS, Component
from modelgraft.kernel.words.ports import PortType
from modelgraft.records import markup
from modelgraft.sources.installed_plugins import installed_plugins
from modelgraft.tools.looks import Look, Match, giving, look, read_type, taking
from modelgraft.tools.recorded import Preset, recorded_presets

FindMatches = Callable[[Look, PortType], list[Match]]
Entry = TypeVar("Entry")


class Listing(tuple[Entry, ...], Generic[Entry]):
    """Entries that show themselves as a table, at a prompt and in a notebook."""

    heads: tuple[str, ...]
    row: Callable[[Entry], tuple[str, ...]]

    @classmethod
    def of(cls, entries: Iterable[Entry], heads: Sequence[str], row: Callable[[Entry], tuple[str, ...]]) -> Listing[Entry]:
        """A listing with its columns, and what makes a row of an entry."""
        found = cls(entries)
        found.heads, found.row = tuple(heads), row
        return found

    def rows(self) -> list[tuple[str, ...]]:
        """The table without its heads."""
        return [self.row(entry) for entry in self]

    def __repr__(self) -> str:
        lines = [self.heads, *self.rows()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.heads))]
        return "\n".join("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        return markup.table(self.heads, self.rows())


def components(
    *, kind: str | None = None, gives: str | None = None, takes: str | None = None, registry: Registry | None = None
) -> Listing[Component]:
    """List the installed components: what `use:` may name.

    kind          only of this kind, such as "llm"
    gives, takes  only with an output, an input, of this type: a port type such as "list[text]", a dtype such as "float" or "mask"
                  for tensors of any shape, or "tensor". Ports that another value of a config key makes count

    Raises InputError for a word that means nothing.
    """
    registry = registry or installed_plugins()
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no kind '{kind}'; there are: {', '.join(KINDS)}. {nearest(kind, KINDS)}".rstrip())
    wanted = [(find, _type(side, text, registry)) for side, text, find in (("gives", gives, giving), ("takes", takes, taking)) if text]
    of_kind = [one for one in registry.components.values() if kind in (None, one.kind)]
    found = [one for one in of_kind if not wanted or _has(look(one, registry), wanted)]
    return Listing.of(found, ("component", "kind", "plugin", "what it does"), lambda one: (one.id, one.kind, one.plugin, one.summary))


def _type(side: str, text: str, registry: Registry) -> PortType:
    try:
        return read_type(text, registry)
    except InputError as error:
        raise InputError(f"{side}: {error}") from error


def _has(seen: Look, wanted: Sequence[tuple[FindMatches, PortType]]) -> bool:
    return all(find(seen, kind) for find, kind in wanted)


def presets(*, registry: Registry | None = None) -> Listing[Preset]:
    """List the presets: sources whose numbers are known here, without weights, and the components that read them."""
    found = recorded_presets(registry or installed_plugins())
    return Listing.of(found, ("preset", "what it is", "the numbers of"), lambda one: (one.source, one.about, ", ".join(one.also)))
