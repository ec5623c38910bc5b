"""What is installed, as a list to choose from: components by kind and ports, and the presets that `from:` may name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from modelgraft import markup
from modelgraft.errors import InputError, choices, nearest
from modelgraft.kinds import KINDS, Component
from modelgraft.ports import ListOf, Modality, Port, Ports, PortType, Tensor
from modelgraft.registry import Registry, discover

PRESET = "preset:"
TENSOR = "tensor"  # the word for tensors of any numbers
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


@dataclass(frozen=True, slots=True)
class Preset:
    """Published numbers that ship with a plugin, without weights: a graph of them can be checked and planned offline.

    source  what `from:` says;  family  the `model_type` of its config
    also    hub ids and packages whose config is the same one on record
    """

    source: str
    family: str
    also: tuple[str, ...]


def components(
    *, kind: str | None = None, gives: str | None = None, takes: str | None = None, registry: Registry | None = None
) -> Listing[Component]:
    """List the installed components: what `use:` may name.

    kind          only of this kind, such as "llm"
    gives, takes  only with an output, an input, of this type: a modality such as "text", a dtype such as "float", "mask" or "tensor"

    Raises InputError for a word that means nothing.
    """
    registry = registry or discover()
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no kind '{kind}'; there are: {', '.join(KINDS)}. {nearest(kind, KINDS)}".rstrip())
    _refuse_unknown({"gives": gives, "takes": takes}, registry)
    found = [one for one in registry.components.values() if kind in (None, one.kind) and _has(one, gives=gives, takes=takes)]
    return Listing.of(found, ("component", "kind", "plugin", "what it does"), lambda one: (one.id, one.kind, one.plugin, one.summary))


def presets(*, registry: Registry | None = None) -> Listing[Preset]:
    """List the presets: sources whose numbers are known here, without weights."""
    recorded = (registry or discover()).recorded_configs
    found = []
    for source in (name for name in recorded if name.startswith(PRESET)):
        also = tuple(name for name, folder in recorded.items() if folder == recorded[source] and not name.startswith(PRESET))
        found.append(Preset(source, _family(recorded[source]), also))
    return Listing.of(found, ("preset", "family", "the numbers of"), lambda one: (one.source, one.family, ", ".join(one.also)))


def _family(folder: Any) -> str:
    config = folder / "config.json"
    try:
        return str(json.loads(config.read_text(encoding="utf-8")).get("model_type", ""))
    except (OSError, ValueError, AttributeError):  # a plugin may record anything; the checker says what is wrong when it is used
        return ""


def default_ports(component: Component) -> Ports:
    """The ports under the default config; those that are declared for all configs where it has no default."""
    try:
        return component.ports(component.config())
    except Exception:  # noqa: BLE001 a config with required fields, or code of a plugin, which may raise anything
        return component.config.declared_ports


def _has(component: Component, *, gives: str | None, takes: str | None) -> bool:
    ports = default_ports(component)
    return all(
        word is None or any(word in words_of(port) for port in side.values())
        for word, side in ((gives, ports.outputs), (takes, ports.inputs))
    )


def words_of(port: Port) -> frozenset[str]:
    """What a port may be called in a search: `text`, `float`, `tensor`, `float[batch tokens 768]`."""
    return frozenset(word for part in port.types for word in (str(part), *_words(part)))


def _words(kind: PortType) -> tuple[str, ...]:
    if isinstance(kind, ListOf):
        return _words(kind.item)
    if isinstance(kind, Modality):
        return (kind.name,)
    assert isinstance(kind, Tensor), "a type of a port is a list, a modality or a tensor"
    return (kind.dtype, TENSOR, *(("mask",) if kind.dtype == "bool" else ()))


def _refuse_unknown(asked: dict[str, str | None], registry: Registry) -> None:
    there = {
        word for one in registry.components.values() for side in _sides(default_ports(one)) for port in side for word in words_of(port)
    }
    known = there | set(registry.port_types) | {TENSOR}
    for side, word in asked.items():
        if word is not None and word not in known:
            plain = [name for name in known if "[" not in name]
            raise InputError(f"{side}: no port is of type '{word}'; there are: {choices(plain, most=40)}. {nearest(word, plain)}".rstrip())


def _sides(ports: Ports) -> tuple[Iterable[Port], Iterable[Port]]:
    return ports.inputs.values(), ports.outputs.values()
