"""What is known of a component without weights and without torch: its config model, its ports under a config, where its code lies.

A component is declared apart from its work, and the declaration is light. Authors declare one by `@component`
(`modelgraft/declaring.py`); its code is imported when a pipeline loads the node.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from modelgraft.kernel.words.errors import PluginError
from modelgraft.kernel.words.guard import contained, place_of, shown
from modelgraft.kernel.words.ports import BATCH, Port, Ports, names_in
from modelgraft.kernel.words.source import Source

KINDS: Mapping[str, str] = {
    "encoder": "turns a medium into vectors",
    "projector": "maps vectors to another width",
    "resampler": "turns any number of vectors into a fixed number",
    "llm": "reads tokens or embeddings and writes text",
    "generator": "makes a medium",
    "head": "turns vectors into an answer",
    "loss": "compares an answer with the wanted one",
    "tokenizer": "turns text into token ids, or back",
    "preprocess": "turns a medium into what an encoder takes",
    "router": "decides which records go which way",
    "retriever": "finds the nearest of a collection",
    "metric": "measures results",
    "adapter": "is grafted into a host node and may add input ports to it",
}


@dataclass(frozen=True, slots=True)
class DimMark:
    """Marks a config field as a dimension: None means that the solver fills it from the neighbours."""


@dataclass(frozen=True, slots=True)
class TypeOf:
    """Marks a config field as the type of what feeds a port, as text: None means that the checker takes it from the first wire.

    Of a list of wires, or of a wire that gives a list, it is the type of an entry.
    """

    port: str


@dataclass(frozen=True, slots=True)
class SpaceOf:
    """Marks a config field as the value space of what feeds a port, filled as TypeOf is."""

    port: str


Dim = Annotated[int | None, Field(gt=0), DimMark()]


class SolvedNode(Protocol):
    """What `Config.review` may look at: a node whose ports are solved."""

    @property
    def name(self) -> str:
        """Its name in the graph."""

    @property
    def source(self) -> Source | None:
        """What its config and weights come from."""

    @property
    def in_ports(self) -> Mapping[str, Port]:
        """The solved input ports."""

    @property
    def out_ports(self) -> Mapping[str, Port]:
        """The solved output ports."""

    @property
    def wired(self) -> Mapping[str, tuple[Any, ...]]:
        """What feeds each input port that is fed."""


class Config(BaseModel):
    """The config of a component: frozen, unknown fields refused, every field described for the editor.

    Subclasses add fields and override the methods below; each is a pure function of the config and imports nothing
    heavy. Field names must not start with an underscore and must not be names of these methods: such a class is a PluginError.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), validate_default=True, defer_build=True, allow_inf_nan=False
    )

    declared_ports: ClassVar[Ports] = Ports()
    declared_parts: ClassVar[Mapping[str, Ports]] = {}
    grafts_tensors: ClassVar[bool] = False  # of an adapter: its host has other tensors with it in it, so that no other node can share them

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a field that would take the place of a method, before anybody calls it."""
        super().__init_subclass__(**kwargs)
        for name in sorted(_METHODS.intersection(inspect.get_annotations(cls))):
            raise PluginError(f"{cls.__name__} has a field '{name}', which is a method of modelgraft.Config: give the field another name")

    @classmethod
    def from_source(cls, source: Source) -> Mapping[str, Any]:  # noqa: ARG003 for those who override it
        """Give the config values that a source (a checkpoint's config, a preset) decides; `with` overrides them.

        Raises ValueError with one sentence when the source is of another family than this component serves.
        """
        return {}

    @classmethod
    def unheeded(cls, source: Source) -> Iterable[tuple[str, ...]]:  # noqa: ARG003 for those who override it
        """Give (sentence, way out) for each thing that a source states, that could change the answer, and that is not done here.

        A third entry names a config key: where the graph sets that, nothing is told, because the graph has decided.
        They become warnings of `check`, `plan` and every run. What must not be ignored is a ValueError of `from_source`.
        """
        return ()

    def ports(self) -> Ports:
        """Give the ports under this config. Axis names that are fields or properties of the config are bound to them."""
        return type(self).declared_ports

    def parts(self) -> Mapping[str, Ports]:
        """Give the tensor parts of a driven component by name, with what each takes and gives; none where it traces them itself."""
        return type(self).declared_parts

    def parameters(self) -> int | None:
        """Count the parameters by formula. None: not known without building; 0: there are none, which exports rely on where it is said."""
        return 0

    def working(self) -> Mapping[str, int]:
        """Give the bytes that work on one record takes at least, beside ports and weights, by what decides them, such as "3 beams"."""
        return {}

    def one_of(self) -> tuple[str, ...]:
        """Name output masks of which exactly one is true for every record; none where that cannot be said."""
        return ()

    def most(self) -> Mapping[str, int]:
        """Give the largest size of an axis of the inputs, by its name, where the module takes no more: exports are traced within it."""
        return {}

    def multiples(self) -> Mapping[str, int]:
        """Give what the size of an axis of the inputs is a multiple of, by its name, where no others are taken: the side of a patch."""
        return {}

    def export_facts(self) -> Mapping[str, Any]:
        """Give what exported graphs depend on, as plain values: all of it, unless a part changes no graph, such as a prompt."""
        return self.model_dump(mode="json")

    def review(self, node: SolvedNode) -> Iterable[tuple[str, str, str]]:  # noqa: ARG002 for those who override it
        """Look at the solved ports; give (code, sentence, way out) for each thing that does not fit."""
        return ()


_METHODS = frozenset(name for name, value in vars(Config).items() if inspect.isroutine(value) and not name.startswith("_"))


@dataclass(frozen=True, slots=True)
class Component:
    """A registered component: everything about it that is known without weights and without torch.

    id          `namespace/name`;  version  raised when the same config gives other results
    module      "package.module:Class": a torch.nn.Module, built as `Class(config)`, called with the inputs in order;  exportable  to ONNX
    load        "package.module:function": `function(config, context)` gives the callable (see engine/backend.py)
    function    the code itself, for light components; called with the inputs in order and the config as keywords
    arrays      plain code takes and gives numpy arrays on the host where ports are tensors; "either": both, as they come
    loop        of driven components: "package.module:Class", plain code around the tensor parts of the module, made as
                `Class(config, facts)` (see loops/driven.py); of an adapter, in place of its host's
    taps        outputs that exist when somebody reads them: nothing is computed or exported for those that nobody does
    hosts       of adapters: the ids of what they can be grafted into; empty: into anything
    cache       its results are worth keeping between runs;  random  they depend on the seed
    shared      several runs may call it at the same time: a call leaves nothing behind, not even for a while. None: as `is_shared` says
    """

    id: str
    kind: str
    config: type[Config]
    summary: str
    version: int = 1
    module: str | None = None
    load: str | None = None
    function: Callable[..., Any] | None = None
    exportable: bool = False
    loop: str | None = None
    hosts: tuple[str, ...] = ()
    cache: bool = False
    random: bool = False
    plugin: str = ""
    keywords: tuple[str, ...] = field(default=())
    taps: tuple[str, ...] = ()
    shared: bool | None = None
    arrays: bool | Literal["either"] = False

    @property
    def is_shared(self) -> bool:
        """Whether runs may call it at the same time: what does not say may when it is a function or a module without a loop."""
        return self.shared if self.shared is not None else self.load is self.loop is None

    @property
    def home(self) -> str:
        """The module that declares it."""
        subject = self.function if self.function is not None else self.config
        return str(getattr(subject, "__module__", ""))

    def ports(self, config: Config) -> Ports:
        """The ports under a config, with the axes that the config decides filled in. Raises whatever the component's code raises."""
        with contained():
            return face_of(config).bound

    def parts(self, config: Config) -> dict[str, Ports]:
        """The ports of each tensor part of a driven component, filled in as `ports` are. Raises whatever the component's code raises."""
        with contained():
            return {name: face_of(config, ports).bound for name, ports in config.parts().items()}


@dataclass(frozen=True, slots=True)
class Face:
    """The ports of a component under one config, shared by all nodes that are configured alike.

    declared  with the axis names as the component wrote them;  names  all of these
    known     the names that are fields or properties of the config, with their numbers
    """

    declared: Ports
    names: tuple[str, ...]
    known: Mapping[str, int]

    @property
    def bound(self) -> Ports:
        """The ports with the axes that the config decides as numbers."""
        inputs, outputs = ({name: port.bind(self.known) for name, port in side.items()} for side in self.declared)
        return Ports(inputs, outputs)


def face_of(config: Config, ports: Ports | None = None) -> Face:
    """The ports under a config, or those of a part of it. Raises whatever the component's code raises."""
    declared = checked_ports(config.ports() if ports is None else ports)
    names = dict.fromkeys(name for side in declared for port in side.values() for type_ in port.types for name in names_in(type_))
    values = {name: getattr(config, name, None) for name in names if name != BATCH}
    known = {name: value for name, value in values.items() if isinstance(value, int) and not isinstance(value, bool)}
    return Face(declared, tuple(names), known)


def defect_of(component: Component, error: BaseException) -> str:
    """What to do about an error that code of a component raised: whose defect it is, and the line where it is known."""
    place = place_of(error, component.home)
    return f"this is a defect of the plugin '{component.plugin}'" + (f": {place}" if place is not None else "")


def checked_ports(ports: Any) -> Ports:
    """What `Config.ports` gave, if that is ports. Raises PluginError that says what it is instead."""
    if not isinstance(ports, Ports):
        raise PluginError(f"ports() gave {shown(ports)}; wanted: Ports.of({{name: type}}, {{name: type}})")
    for side, listed in (("input", ports.inputs), ("output", ports.outputs)):
        for name, port in listed.items():
            if not isinstance(name, str) or not _PORT_NAME.match(name):
                raise PluginError(f"ports() gave an {side} named {shown(name)}; wanted: a word that a wire can name")
            if not isinstance(port, Port) or not port.types:
                raise PluginError(f"ports() gave {shown(port)} for the {side} '{name}'; wanted: a Port, as port(\"text\") makes it")
    return ports


def following_fields(config: type[Config]) -> dict[str, TypeOf | SpaceOf]:
    """The fields that the checker fills with what feeds a port, each with its mark."""
    marks = ((name, mark) for name, field in config.model_fields.items() for mark in field.metadata)
    return {name: mark for name, mark in marks if isinstance(mark, TypeOf | SpaceOf)}


def dimension_fields(config: type[Config]) -> tuple[str, ...]:
    """The fields that the solver may fill."""
    return tuple(n for n, f in config.model_fields.items() if any(isinstance(m, DimMark) for m in f.metadata))


_PORT_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
