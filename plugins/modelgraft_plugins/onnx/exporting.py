"""From a torch module with declared ports to an ONNX graph file."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from modelgraft.plugin import (
    TRACED,
    ExportError,
    ModelgraftError,
    Node,
    Signature,
    as_tensor,
    dynamic_axes,
    give_back_freed,
    in_turn,
    make_inputs,
)
from modelgraft_plugins.onnx.chosen_rows import choose_early
from modelgraft_plugins.onnx.constants import STORED, drop_unused, turn, unread
from modelgraft_plugins.onnx.keys import OPSET
from modelgraft_plugins.onnx.quiet import muted
from modelgraft_plugins.onnx.repeating import DOMAIN, Alike, alike, once
from modelgraft_plugins.onnx.sessions import open_session
from modelgraft_plugins.onnx.store import need_exporter
from modelgraft_plugins.onnx.streamlining import streamline
from modelgraft_plugins.onnx.unfolding import unfold
from modelgraft_plugins.onnx.widening import widen

UNKNOWN_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")  # how the exporter names what it cannot write


class Flat(torch.nn.Module):
    """The module with flat tensors on both sides: unwired optional inputs are filled in, outputs come in port order."""

    def __init__(self, module: torch.nn.Module, places: Sequence[int], total: int, outputs: Sequence[str]) -> None:
        super().__init__()
        self.module, self.places, self.total, self.outputs = module, tuple(places), total, tuple(outputs)

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Take what is wired, in order."""
        values: list[torch.Tensor | None] = [None] * self.total
        for place, value in zip(self.places, given, strict=True):
            values[place] = value
        result = self.module(*values)
        return (result,) if len(self.outputs) == 1 else tuple(result[name] for name in self.outputs)


class Joined(torch.nn.Module):
    """Modules that feed each other, as one: takes what comes from outside, gives the wanted outputs by name."""

    def __init__(self, node: Node, modules: Sequence[torch.nn.Module]) -> None:
        super().__init__()
        self.inner = torch.nn.ModuleList(modules)
        self.parts, self.inputs, self.outputs = node.parts, tuple(node.in_ports), tuple(node.out_ports)

    def forward(self, *given: torch.Tensor | None) -> dict[str, torch.Tensor] | torch.Tensor:
        """Run the parts in order."""
        values: dict[str, Any] = dict(zip(self.inputs, given, strict=True))
        for part, module in zip(self.parts, self.inner, strict=True):
            refs = (part.wired.get(name) for name in part.in_ports)
            result = module(*(None if not ref else values[str(ref[0])] for ref in refs))
            names = list(part.out_ports)
            values.update({f"{part.name}.{name}": result if len(names) == 1 else result[name] for name in names})
        found = {name: values[name] for name in self.outputs}
        return found if len(found) > 1 else found[self.outputs[0]]


def joined(node: Node, modules: Sequence[torch.nn.Module]) -> torch.nn.Module:
    """The module of a node: its own, or that of its parts as one."""
    return Joined(node, modules) if node.parts else modules[0]


class Halved(torch.nn.Module):
    """A flat module that computes in float16 and takes and gives float32."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).half()

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Cast, compute, cast back."""
        result = self.module(*(value.half() if value.is_floating_point() else value for value in given))
        return tuple(value.float() if value.is_floating_point() else value for value in result)


def flat(module: torch.nn.Module, *, ports: Sequence[str], wired: Sequence[str], outputs: Sequence[str]) -> torch.nn.Module:
    """Wrap a module so that it takes only its wired ports and gives a tuple."""
    return Flat(module, [list(ports).index(name) for name in wired], len(ports), outputs).eval()


def export(module: torch.nn.Module, signature: Signature, path: Path, *, is_whole: bool = False) -> int:
    """Trace a flat module on small inputs made from its ports, and write `path`, laid out for speed.

    is_whole  trace every layer, and do not repeat those that are alike

    Gives how many layers are copies of one that was traced. Raises ExportError.
    """
    return trace(
        module,
        make_inputs(signature.input_ports, TRACED, seed=0, most=signature.most, times=signature.times),
        path,
        sizes=(dynamic_axes(signature.input_ports, signature.most),),
        inputs=[name for name, _ in signature.inputs],
        outputs=[name for name, _ in signature.outputs],
        improve=widen,
        repeats=not is_whole,
    )


def trace(
    module: torch.nn.Module,
    example: tuple[Any, ...],
    path: Path,
    *,
    sizes: Any,
    inputs: Sequence[str],
    outputs: Sequence[str],
    improve: Callable[[Any], object] | None = None,
    repeats: bool = False,
) -> int:
    """Trace a module and write `path` with its weights beside it (`path.data`); gives how many layers are copies.

    sizes    which axes of the example may have other sizes, as `torch.onnx.export(dynamic_shapes=...)` takes them
    improve  changes the traced graph, of onnx_ir, further before it is written
    repeats  trace layers that are alike once: whether the graph is right must be proven by comparing it with the module

    Raises ExportError with the first line of what the exporter said, PluginError when the exporter is not installed.
    """
    need_exporter()
    named = {"input_names": list(inputs), "output_names": list(outputs)}
    groups = alike(module) if repeats else []
    try:
        program, copies, values = _traced(module.eval(), example, sizes, named, groups)
    except ExportError:
        if not groups:
            raise
        program, copies, values = _traced(module, example, sizes, named, [])  # a layer that cannot be traced alone, or cannot be copied
    graph = program.model.graph
    _keep_apart(graph, {*inputs, *outputs})
    streamline(graph)
    choose_early(program.model)
    if improve is not None:
        improve(graph)
    drop_unused(graph)
    from modelgraft_plugins.onnx.reducing import save  # not at the top: it needs onnx_ir, which was looked for above

    save(program.model, path)
    _let_go_of_weights([*values, *graph.initializers.values()])
    return copies


def _let_go_of_weights(values: Iterable[Any]) -> None:
    """Take the tensors out of values of a graph that is done with, those that were in it included: rules of onnxscript, which are
    global, keep the last graph that they looked at.

    values  of onnx_ir (`Any`: it is not among what mypy sees)
    """
    for value in values:
        value.const_value = None
        value.meta.pop(STORED, None)


def _traced(
    module: torch.nn.Module, example: tuple[Any, ...], sizes: Any, named: Mapping[str, Any], groups: list[Alike]
) -> tuple[Any, int, list[Any]]:
    """The traced and simplified program, in which layers of groups are copies of the first, how many are, and its values before.

    Raises ExportError.
    """
    values: list[Any] = []
    settings: dict[str, Any] = {"dynamo": True, "opset_version": OPSET, "optimize": False, "verbose": False, **named}
    try:
        with muted(), torch.no_grad(), once(groups):
            program = torch.onnx.export(module, example, dynamic_shapes=sizes, **settings)
            assert program is not None
            graph = program.model.graph
            values += graph.initializers.values()
            counts = vars(graph.inputs).values()  # weights are inputs at first: those that no layer reads are still counted there
            values += [value for held in counts if isinstance(held, Counter) for value in held if held[value] == 0]
            with unread(graph, own=[f"{group.first}." for group in groups]):
                program.optimize()
        graph = program.model.graph
        copies = unfold(graph, {name: _weights(layer) for group in groups for name, layer in group.layers.items()}, domain=DOMAIN)
        graph.opset_imports.pop(DOMAIN, None)
        turn(graph)
    except ModelgraftError:
        _let_go_of_weights(values)
        raise
    except Exception as error:  # the exporter raises whatever the traced code and its own passes raise
        _let_go_of_weights(values)
        raise ExportError(first_line(error)) from error
    return program, copies, values


def _weights(layer: torch.nn.Module) -> dict[str, Any]:
    """The tensors of a layer as onnx_ir takes them, by the names that they have within it."""
    from onnx_ir.tensor_adapters import TorchTensor

    tensors = {**dict(layer.named_parameters(remove_duplicate=False)), **dict(layer.named_buffers(remove_duplicate=False))}
    return {name: TorchTensor(tensor.detach(), name=name) for name, tensor in tensors.items()}


def _keep_apart(graph: Any, ports: set[str]) -> None:
    """Rename inner values that are called as a port is: the exporter names them after operators, such as `embedding`.

    graph  of the exporter's own kind (`Any`: onnx_ir is not among what mypy sees)
    """
    outer = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for node in graph:
        for value in node.outputs:
            if value.name in ports and id(value) not in outer:
                value.name = f"inner.{value.name}"


def open_fresh(path: Path, *, count: int | None = None, as_needed: bool = False) -> Any:
    """Open a graph that was just written, on the host; see `open_session`. Raises ExportError for one that onnxruntime does not read."""
    try:
        return open_session(path, device="cpu", count=count, as_needed=as_needed)
    except ModelgraftError:
        raise
    except Exception as error:  # the classes that onnxruntime raises have no base of their own
        raise ExportError(f"onnxruntime does not read the export: {first_line(error)}") from error


Given = Sequence[torch.Tensor]
Found = TypeVar("Found")


def ahead(reference: Callable[..., Given], cases: Sequence[tuple[torch.Tensor, ...]]) -> Sequence[Given]:
    """What a reference gives for some cases: so that nothing of it is held beside the session that is compared with it."""
    with torch.no_grad():
        found = [tuple(map(as_tensor, reference(*case))) for case in cases]
    give_back_freed()
    return found


@contextlib.contextmanager
def answering(module: torch.nn.Module, ask: Callable[[], Found], *, is_alone: bool = False) -> Iterator[Callable[[], Found]]:
    """Within the block `ask`, which calls the module, goes on in a thread: while a graph is written, say. Gives what waits for its answer.

    The block ends when it has ended; the module is called by nobody else in it. What it reads of files goes back layer by layer.

    is_alone  hardly anything is done beside it
    """

    def answer() -> Found:
        if not is_alone:
            _leave_a_core()
        with torch.no_grad(), in_turn(module, torch.float32):
            return ask()

    with ThreadPoolExecutor(1, thread_name_prefix="answering") as pool:
        yield pool.submit(copy_context().run, answer).result


def _leave_a_core() -> None:
    """Let torch compute with a thread less in this one, whose core is for what goes on beside it: three that share two hold each other up.

    By OpenMP itself, whose number holds for the thread that sets it, as torch's does not. Where torch has another library it stays.
    """
    own = torch.get_num_threads()  # asked first: torch sets it once in each thread
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).omp_set_num_threads(max(1, own - 1))


def in_order(found: Sequence[Given]) -> Callable[..., Given]:
    """What gives what was found ahead, case by case."""
    left = iter(found)
    return lambda *_: next(left)


def first_line(error: BaseException) -> str:
    """The innermost reason: the exporter wraps errors several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ModelgraftError):
        return str(error)  # what was traced says itself why it cannot be
    if unknown := UNKNOWN_OPERATOR.search(str(error)):
        return f"its operator {unknown[1]} has no ONNX form"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
