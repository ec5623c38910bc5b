"""One component alone: loaded, run, and compared with its own declaration, rule by rule."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from modelgraft.engine.backend import LoadContext, Loaded, open_backend
from modelgraft.engine.calls import record_check
from modelgraft.engine.forms import in_form, in_tensors_at
from modelgraft.engine.inplace import written_ports
from modelgraft.engine.run import NodeRuntime
from modelgraft.installed.discovery import discover
from modelgraft.kernel.shelf.registry import Registry
from modelgraft.kernel.words.errors import ModelgraftError, Place, PluginError, choices
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.kinds import Component
from modelgraft.kernel.words.ports import Axis, ListOf, Modality, Port, PortType, Tensor
from modelgraft.records.owning import is_array, is_tensor, own, twin
from modelgraft.records.record import Record
from modelgraft.records.record_type import RecordType, Types, types_of
from modelgraft.records.shipped import SHIPPED
from modelgraft.records.values import describe, tensor_mismatch
from modelgraft.testing.likeness import same
from modelgraft.testing.losses import loss_law
from modelgraft.testing.metrics import metric_law
from modelgraft.testing.protocols import protocol_law

TIMES = 4  # that two calls are made at once
TRIED_SIZES = (5, 7, 11, 13, 17, 19, 23)  # for axes whose size is free: all different, none a divisor of another
HEAVY = ("torch", "transformers", "onnxruntime", "numpy")


class ConformanceError(ModelgraftError):
    """A component does not keep its declaration: every rule that it breaks."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A component with its config, loaded alone."""

    node: Node
    loaded: Loaded

    def __call__(self, *values: Any) -> dict[str, Any]:
        """Run it on the values of its input ports in order; gives its outputs by port, tensors where its code gives arrays."""
        return self.shown(self.gave(*values))

    def gave(self, *values: Any) -> dict[str, Any]:
        """The same as its code gave it."""
        given = in_form(self.loaded.call, self.node)(*values)
        names = list(self.node.out_ports)
        if len(names) == 1:
            return {names[0]: given}
        if not isinstance(given, Mapping) or set(given) != set(names):
            found = ", ".join(given) if isinstance(given, Mapping) else describe(given)
            raise PluginError(f"'{self.node.component.id}' gave {found}, wanted a mapping with exactly {', '.join(names)}")
        return {name: given[name] for name in names}

    def shown(self, gave: Mapping[str, Any]) -> dict[str, Any]:
        """What its code gave, as a user gets it."""
        return self._listed({name: in_tensors_at(port, gave[name]) for name, port in self.node.out_ports.items()})

    def _listed(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """What each record has several of, as lists: code may give tensors of it."""
        several = [name for name, port in self.node.out_ports.items() if port.several and isinstance(outputs[name], list)]
        return outputs | {name: [list(asked) if hasattr(asked, "__len__") else asked for asked in outputs[name]] for name in several}


def open_node(subject: Any, config: Mapping[str, Any] | None = None, *, seed: int = 0, state: Mapping[str, Any] | None = None) -> Trial:
    """Load a decorated function or Config class as a node of its own, with random weights or those of a state dict."""
    node, registry = node_of(subject, config), _installed()
    context = LoadContext(node, "cpu", "float32", None, seed, offline=True, registry=registry, init="random")
    loaded = open_backend(registry, "torch").load(context, {})
    if state is not None:
        loaded.state.load_state_dict(state)
    if loaded.bind is not None:
        loaded.bind(NodeRuntime(node.name, node.component.id, seed))
    return Trial(node, loaded)


@cache
def _installed() -> Registry:
    """All plugins: a node runs on torch, and what it computes with may be opened by another backend."""
    return discover()


def run_node(subject: Any, config: Mapping[str, Any] | None = None, *, seed: int = 0, **inputs: Any) -> dict[str, Any]:
    """Run a component once on inputs by port name, with random weights; gives its outputs by port name."""
    trial = open_node(subject, config, seed=seed)
    unknown = set(inputs) - set(trial.node.in_ports)
    if unknown:
        raise PluginError(f"'{trial.node.component.id}' has no input {', '.join(sorted(unknown))}; it has {', '.join(trial.node.in_ports)}")
    return trial(*(inputs.get(name) for name in trial.node.in_ports))


def node_of(subject: Any, config: Mapping[str, Any] | None = None) -> Node:
    """A node of a decorated subject, as the checker would make it of a graph with this node alone."""
    component: Component = subject if isinstance(subject, Component) else subject.__component__
    concrete = component.config(**(config or {}))
    takes, gives = ({name: _as_lists(port) for name, port in ports.items()} for ports in component.ports(concrete))
    return Node(
        name="node", component=component, config=concrete, source=None, in_ports=takes, out_ports=gives, wired={},
        lists=frozenset(), frozen=True, when=None, lazy=False, share=None, adapters=(), runtime={}, origins={}, place=Place("<test>"),
    )  # fmt: skip


def _as_lists(port: Port) -> Port:
    """A port of which a record has several, as one of lists."""
    return replace(port, types=tuple(map(ListOf, port.types))) if port.several else port


def conform(subject: Any, config: Mapping[str, Any] | None = None, *kinds: RecordType, **inputs: Any) -> None:
    """Prove that a component keeps its declaration. Inputs that are not given are made up from the ports.

    kinds  record types of its ports that no installed plugin offers

    Raises ConformanceError that lists each broken rule:
    inputs         what it is given is as it was afterwards: nothing is written in place
    ports          outputs have the declared ports, record types, dtypes and axes, with one size per axis name
    arrays         numbers are arrays of numpy where the declaration says `arrays=True`, and tensors of torch where it does not
    numbers        no NaN comes of inputs that hold none
    repeatable     the same seed and inputs give the same outputs
    batch          a batch gives what its records give one by one
    metric         of a metric, in place of `batch`: a row of numbers for each record, whatever their order, and a figure made of them
    loss           of a loss, in place of `batch`: shares that do not depend on the order of the records, and a gradient to some input
    together       calls at the same time give what each gives alone, where the component is shared between runs
    parameters     the declared formula counts what the module holds, built on the meta device
    state          a state dict saved and loaded gives the same outputs
    protocol       what it has beside its call (`prepare`, `bind`, ...) is spelt and called as `modelgraft.plugin` says
    """
    broken = [f"{rule}: {text}" for rule, text in _broken_rules(subject, config, kinds, inputs)]
    if broken:
        component: Component = subject.__component__
        raise ConformanceError(f"component '{component.id}' does not keep its declaration\n  " + "\n  ".join(broken))


def _broken_rules(
    subject: Any, config: Mapping[str, Any] | None, kinds: Iterable[RecordType], inputs: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    trial = open_node(subject, config)
    types = _types_of(trial.node, kinds)
    free = _free_sizes(trial.node)
    values = [inputs[name] if name in inputs else example(port, free, types) for name, port in trial.node.in_ports.items()]
    given = own(values, twin)
    gave = trial.gave(*given)
    outputs = trial.shown(gave)
    written = written_ports(tuple(trial.node.in_ports), values, given)
    yield from (("inputs", f"'{name}' is written to in place, and others may hold it: work on a copy") for name in written)
    yield from (("ports", text) for text in _port_law(trial.node, values, outputs, types))
    yield from (("arrays", text) for text in _form_law(trial.node, gave))
    yield from (("numbers", text) for text in _number_law(values, outputs))
    again = open_node(subject, config)(*own(values, twin))
    yield from (("repeatable", f"'{name}' differs between two runs") for name in outputs if not same(outputs[name], again[name]))
    if trial.node.component.kind == "metric":  # a row may depend on all records, such as a rank among them
        yield from (("metric", text) for text in metric_law(trial, values, outputs))
    elif trial.node.component.kind == "loss":  # a share may depend on the other records of its batch
        yield from (("loss", text) for text in loss_law(trial, values, outputs))
    else:
        yield from (("batch", text) for text in _batch_law(trial, values, outputs))
    yield from (("together", text) for text in _together_law(trial, values, outputs))
    yield from (("parameters", text) for text in _parameter_law(trial.node))
    yield from (("protocol", text) for text in _protocol_law(trial))
    if trial.loaded.state is not None:
        saved = open_node(subject, config, seed=1, state=trial.loaded.state.state_dict())(*own(values, twin))
        yield from (
            ("state", f"'{name}' changes when the state dict is loaded") for name in outputs if not same(outputs[name], saved[name])
        )


def _free_sizes(node: Node) -> dict[str, int]:
    """A size for each axis name of the inputs: none that a port states as a number, so that a swapped axis shows; a multiple of what
    the config says."""
    tensors = [port.tensor for port in (*node.in_ports.values(), *node.out_ports.values()) if port.tensor is not None]
    stated = {axis.size for tensor in tensors for axis in tensor.axes if axis is not None}
    names = dict.fromkeys(name for port in node.in_ports.values() if port.tensor is not None for name in port.tensor.names)
    free = zip((name for name in names if name != "batch"), (size for size in TRIED_SIZES if size not in stated), strict=False)
    times = node.config.multiples()
    return {"batch": 2} | {name: size * times.get(name, 1) for name, size in free}


def _types_of(node: Node, kinds: Iterable[RecordType]) -> Types:
    """The record types that the ports of a node may name: ours and `kinds`, and where these do not do, those of installed plugins."""
    there = {**SHIPPED, **{kind.name: kind for kind in kinds}}
    named = {name for port in (*node.in_ports.values(), *node.out_ports.values()) for kind in port.types if (name := _record_in(kind))}
    if not named <= there.keys():
        there |= types_of(discover())
    if missing := sorted(named - there.keys()):
        text = f"no installed plugin offers the record type {choices(missing)}; give it to conform, behind the config"
        raise PluginError(text)
    return there


def _record_in(kind: PortType) -> str:
    while isinstance(kind, ListOf):
        kind = kind.item
    return kind.name if isinstance(kind, Modality) else ""


def example(port: Port, sizes: Mapping[str, int], types: Types = SHIPPED) -> Any:
    """A batch of two records for an input port: optional ports get nothing.

    sizes  of the axes by name;  types  the record types that there are
    """
    if port.optional:
        return None
    kind = port.tensor or port.type
    if isinstance(kind, Tensor):
        return _example_tensor(kind, sizes)
    return [_example_record(kind, index, sizes, types) for index in range(2)]


def _example_tensor(kind: Tensor, sizes: Mapping[str, int]) -> Any:
    import torch

    shape = [(axis or Axis(constant=3)).bind(sizes).size or 1 for axis in kind.axes]
    generator = torch.Generator().manual_seed(sum(shape))
    if kind.dtype in ("mask", "bool"):
        return torch.rand(shape, generator=generator) < 0.5
    if kind.dtype.startswith(("int", "uint")):
        dtype = torch.int64 if kind.dtype == "int" else getattr(torch, kind.dtype)
        return torch.randint(0, 2, shape, generator=generator).to(dtype)
    dtype = torch.float32 if kind.dtype == "float" else getattr(torch, kind.dtype)
    return torch.randn(shape, generator=generator).to(dtype)


def _example_record(kind: PortType, index: int, sizes: Mapping[str, int], types: Types) -> Any:
    """A record; of a list two or three entries, unlike in their number too."""
    if isinstance(kind, ListOf):
        return [_example_record(kind.item, entry, sizes, types) for entry in range(2 + index)]
    return _example_tensor(kind, sizes)[0] if isinstance(kind, Tensor) else types[kind.name].example(index)


def _port_law(node: Node, values: list[Any], outputs: Mapping[str, Any], types: Types) -> Iterator[str]:
    """Declared against found: kind of value, batch, dtype, and one size for each axis name over all ports."""
    sizes = dict[str, tuple[int, str]]()
    pairs = [*zip(node.in_ports.items(), values, strict=True), *((item, outputs[item[0]]) for item in node.out_ports.items())]
    for (name, port), value in pairs:
        if value is None and port.optional:
            continue
        if not hasattr(value, "dtype"):
            if port.tensor is not None and len(port.types) == 1:
                yield f"'{name}' is declared {port} but is {describe(value)}"
            elif not isinstance(value, list) or len(value) != 2:
                yield f"'{name}' is declared {port} but is {describe(value)}, wanted a list with one record for each of the batch"
            elif name in node.out_ports and (wrong := record_check(port.type, types)(value)):
                yield f"'{name}' is declared {port}, but {wrong}"
            continue
        kind = port.tensor
        wrong = tensor_mismatch(kind, value) if kind is not None else "a tensor on a port that takes records"
        if wrong or kind is None:
            yield f"'{name}' is declared {port} but is {describe(value)}: {wrong}"
            continue
        if None not in kind.axes:
            yield from _bind_sizes(sizes, name, kind, value)


def _form_law(node: Node, gave: Mapping[str, Any]) -> Iterator[str]:
    says_so = node.component.arrays
    if says_so == "either":
        return
    for name, port in node.out_ports.items():
        kinds = [kind.item if isinstance(kind, ListOf) else kind for kind in port.types]
        if any(isinstance(kind, Tensor) for kind in kinds) and _holds(gave[name], is_tensor if says_so else is_array):
            found = "tensors of torch, and it is" if says_so else "arrays of numpy, and it is not"
            yield f"'{name}' holds {found} declared with arrays=True"


def _holds(value: Any, is_one: Callable[[Any], bool]) -> bool:
    return any(_holds(part, is_one) for part in value) if isinstance(value, list | tuple) else is_one(value)


def _number_law(values: list[Any], outputs: Mapping[str, Any]) -> Iterator[str]:
    if any(_count_nan(value) for value in values):
        return
    for name, value in outputs.items():
        if count := _count_nan(value):
            whole = f" of {value.numel()}" if hasattr(value, "numel") else ""
            yield f"{count}{whole} numbers of '{name}' are NaN, and the inputs hold none"


def _count_nan(value: Any) -> int:
    if isinstance(value, float):
        return int(value != value)  # noqa: PLR0124 that is what NaN is
    if isinstance(value, list | tuple):
        return sum(map(_count_nan, value))
    if isinstance(value, dict):
        return sum(map(_count_nan, value.values()))
    if isinstance(value, Record):
        return 0 if value.gaps else _count_nan(value.parts())
    if is_array(value):
        return int((value != value).sum()) if value.dtype.kind == "f" else 0  # noqa: PLR0124 that is what NaN is
    is_floating = hasattr(value, "is_floating_point") and value.is_floating_point()
    return int(value.isnan().sum()) if is_floating else 0


def _bind_sizes(sizes: dict[str, tuple[int, str]], name: str, kind: Tensor, value: Any) -> Iterator[str]:
    for axis, size in zip(kind.axes, value.shape, strict=True):
        symbol = axis.symbol if axis is not None else None
        if symbol is None:
            continue
        known, where = sizes.setdefault(symbol, (int(size), name))
        if known != size:
            yield f"axis '{symbol}' is {known} in '{where}' but {size} in '{name}'"


def _batch_law(trial: Trial, values: list[Any], outputs: Mapping[str, Any]) -> Iterator[str]:
    singles = [trial(*(None if value is None else own(value[index : index + 1], twin) for value in values)) for index in range(2)]
    for name, whole in outputs.items():
        for index in range(2):
            if not same(whole[index : index + 1], singles[index][name], tolerance=1e-5):
                yield f"'{name}' of record {index} in a batch differs from the record alone"


def _together_law(trial: Trial, values: list[Any], outputs: Mapping[str, Any]) -> Iterator[str]:
    """The batch and its second record, called in two threads at once, some times: what one call keeps, the other would find."""
    if not trial.node.component.is_shared or not trial.loaded.is_shared:
        return
    single = [None if value is None else value[1:2] for value in values]
    expected = (outputs, trial(*own(single, twin)))
    gate = threading.Barrier(2)

    def call(given: list[Any]) -> list[Mapping[str, Any]]:
        try:
            return [trial(*own(given, twin)) for _ in range(TIMES) if gate.wait(60) >= 0]
        except BaseException:
            gate.abort()  # so that the other does not wait for it
            raise

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(call, given) for given in (values, single)]
        made = [each.result() for each in both]
    for name in outputs:
        pairs = [(alone[name], found[name]) for alone, each in zip(expected, made, strict=True) for found in each]
        wrong = sum(not same(alone, found, tolerance=1e-5) for alone, found in pairs)
        if wrong:
            yield f"'{name}' differs in {wrong} of {len(pairs)} calls made two at a time: declare shared=False, or keep nothing in a call"


def _protocol_law(trial: Trial) -> Iterator[str]:
    component, loaded = trial.node.component, trial.loaded
    if component.module is not None:
        yield from protocol_law(loaded.state, is_module=True)
    elif component.load is not None:
        yield from protocol_law(loaded.call, is_module=False)


def _parameter_law(node: Node) -> Iterator[str]:
    from modelgraft.engine.modules.building import count_parameters

    declared, built = node.config.parameters(), count_parameters(node)
    if declared is not None and built is not None and declared != built:
        yield f"the formula says {declared:,}, the module holds {built:,}"


def imports_of(module: str, *, limit_s: float = 120.0) -> frozenset[str]:
    """The heavy packages that importing a module brings in, found in a fresh interpreter; what it prints is no answer.

    Raises PluginError when it cannot be imported, takes longer than the limit or ends the process.
    """
    code = f"import os, sys; answer = os.dup(1); os.dup2(2, 1); import {module}; heavy = [n for n in {HEAVY!r} if n in sys.modules]"
    code += "; os.write(answer, ' '.join(['imported', *heavy]).encode()); os._exit(0)"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=limit_s)  # noqa: S603 our own interpreter
    except subprocess.TimeoutExpired as error:
        raise PluginError(f"importing '{module}' took longer than {limit_s:g} s") from error
    said = done.stdout.split()
    if said[:1] != ["imported"]:
        last = (done.stderr.strip().splitlines() or [f"it ended the process with exit code {done.returncode}"])[-1]
        raise PluginError(f"'{module}' cannot be imported: {last}")
    return frozenset(said[1:])
