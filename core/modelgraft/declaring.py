"""`@component`: how authors declare a component on a config model or on a plain function; what it makes is the kernel's Component.

@component("text/join", kind="preprocess", inputs={"left": "text", "right": "text"}, outputs={"text": "text"})
def join(left: list[str], right: list[str], *, separator: str = " ") -> list[str]:
    '''Join two texts.'''
    return [a + separator + b for a, b in zip(left, right, strict=True)]

@component("projector/linear", kind="projector", module="my_plugin.modules:Linear",
           inputs={"x": "float[batch tokens in_features]"}, outputs={"y": "float[batch tokens out_features]"})
class Linear(Config):
    '''Map every token with one linear layer.'''
    in_features: Dim = None             # None: solved from the neighbours in the graph
    out_features: Dim = None
    bias: bool = True
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, get_type_hints, overload

from pydantic import create_model

from modelgraft.kernel.words.errors import PluginError, nearest
from modelgraft.kernel.words.guard import shown
from modelgraft.kernel.words.kinds import KINDS, Component, Config
from modelgraft.kernel.words.ports import Port, Ports, PortSyntaxError
from modelgraft.metric import Metric, complaint_of

_ID = re.compile(r"^[a-z][a-z0-9_-]*/[a-z][a-z0-9_.-]*$")
C = TypeVar("C", bound=type[Config])
F = TypeVar("F", bound=Callable[..., Any])


class _Decorator(Protocol):
    @overload
    def __call__(self, subject: C) -> C: ...
    @overload
    def __call__(self, subject: F) -> F: ...


def component(  # noqa: PLR0913 all that a declaration may say
    id: str,
    *,
    kind: str,
    inputs: Mapping[str, str | Port] | None = None,
    outputs: Mapping[str, str | Port] | None = None,
    version: int = 1,
    module: str | None = None,
    load: str | None = None,
    exportable: bool = False,
    loop: str | None = None,
    parts: Mapping[str, Ports] | None = None,
    taps: tuple[str, ...] = (),
    hosts: tuple[str, ...] = (),
    cache: bool | None = None,
    random: bool = False,
    shared: bool | None = None,
    arrays: bool | Literal["either"] = False,
    keywords: tuple[str, ...] = (),
) -> _Decorator:
    """Declare a component on a Config subclass (with `module` or `load`) or on a plain function.

    The docstring's first line is what `modelgraft components` prints. Of a function, keyword-only arguments are the
    config. `cache` is on by default for components with a `module` or `load`. `arrays` says that the code takes and gives
    numpy arrays, on the host, where its ports are tensors, so that running it needs no torch; "either": arrays or tensors, as they come,
    and it gives on what it was given. Raises PluginError at once when the declaration contradicts itself.
    """

    def declare(subject: Any) -> Any:
        declared = _read_ports(id, inputs or {}, outputs or {})
        summary = (inspect.getdoc(subject) or "").strip().partition("\n")[0]
        _refuse_contradictions(id, kind, summary, subject, module, load)
        if arrays and (module is not None or kind == "loss"):
            what = "a loss is followed by gradients" if kind == "loss" else "a module computes with tensors of torch"
            raise PluginError(f"component '{id}': arrays= is of code that load= gives, or of a function; {what}")
        if (loop is not None and module is load is None) or (parts is not None and loop is None):
            raise PluginError(f"component '{id}': loop= goes around the parts of a module, and parts= are what loop= calls")
        function = None if inspect.isclass(subject) else subject
        base = Metric if kind == "metric" else Config
        config: type[Config] = subject if function is None else _config_of_function(id, function, declared, base)
        if function is None and (inputs is not None or outputs is not None):
            config.declared_ports = declared
        if parts is not None:
            config.declared_parts = dict(parts)
        if kind == "metric" and (complaint := complaint_of(config)):
            raise PluginError(f"component '{id}' cannot be a metric: {complaint}")
        subject.__component__ = Component(
            id, kind, config, summary, version, module, load, function, exportable, loop, hosts,
            cache if cache is not None else function is None, random, "", keywords, shared=shared, taps=taps, arrays=arrays,
        )  # fmt: skip
        return subject

    return declare


def _read_ports(id: str, inputs: Mapping[str, str | Port], outputs: Mapping[str, str | Port]) -> Ports:
    try:
        return Ports.of(inputs, outputs)
    except PortSyntaxError as error:
        raise PluginError(f"component '{id}': {error}") from error


def _refuse_contradictions(id: str, kind: str, summary: str, subject: Any, module: str | None, load: str | None) -> None:
    if not _ID.match(id):
        raise PluginError(f"component id '{id}' is not of the form namespace/name in lower case")
    if kind not in KINDS:
        raise PluginError(f"component '{id}': kind '{kind}' is none of {', '.join(KINDS)}. {nearest(str(kind), KINDS)}".rstrip())
    if not summary:
        raise PluginError(f"component '{id}' has no docstring: its first line is what users read in `modelgraft components`")
    is_config = inspect.isclass(subject) and issubclass(subject, Config)
    if inspect.isclass(subject) and not is_config:
        raise PluginError(f"component '{id}': decorate a subclass of modelgraft.Config or a function, not {shown(subject)}")
    if is_config and (module is None) == (load is None):
        raise PluginError(f"component '{id}' needs exactly one of module= (a torch.nn.Module) and load= (a function)")
    if not is_config and (module or load):
        raise PluginError(f"component '{id}': a function is its own code; module= and load= belong to a Config subclass")


def _config_of_function(id: str, function: Callable[..., Any], declared: Ports, base: type[Config]) -> type[Config]:
    """Build the config model from the keyword-only arguments, and check that the others are the input ports."""
    signature = inspect.signature(function)
    positional = [p.name for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    if positional != list(declared.inputs):
        raise PluginError(
            f"component '{id}': the function takes ({', '.join(positional)}) but its input ports are ({', '.join(declared.inputs)})"
        )
    keywords = [parameter for parameter in signature.parameters.values() if parameter.kind is parameter.KEYWORD_ONLY]
    hints = _hints(function, [parameter.name for parameter in keywords])
    fields: dict[str, Any] = {}
    for parameter in keywords:
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    name, module = function.__name__.title().replace("_", "") + "Config", function.__module__
    config = create_model(name, __base__=base, __module__=module, **fields)
    config.__qualname__ = f"{function.__qualname__}.__component__.config"  # where pickle finds it
    config.declared_ports = declared
    return config


def _hints(function: Callable[..., Any], names: list[str]) -> dict[str, Any]:
    """The types of some parameters. Those of inputs are not looked at: `Tensor` may be imported for type checkers alone."""

    def stand_in() -> None: ...

    stand_in.__annotations__ = {name: function.__annotations__[name] for name in names if name in function.__annotations__}
    return get_type_hints(stand_in, globalns=getattr(function, "__globals__", {}), include_extras=True)
