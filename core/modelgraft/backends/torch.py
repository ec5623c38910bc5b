"""The torch backend: modules are built without memory, filled from their checkpoint, and called without gradients."""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from modelgraft.backends import held
from modelgraft.backends.held import Held
from modelgraft.backends.seeding import seeded
from modelgraft.engine.backend import LoadContext, Loaded, bound_function
from modelgraft.engine.driving import driving, is_driven, loop_of
from modelgraft.kernel.words.errors import InputError, ModelgraftError, PluginError, Problem, SourceError, choices
from modelgraft.kernel.words.graph import Adapter, Node
from modelgraft.kernel.words.guard import contained, place_of, said, shown
from modelgraft.kernel.words.kinds import Component, defect_of
from modelgraft.loops.module import Driven

if TYPE_CHECKING:
    from modelgraft.kernel.shelf.registry import Registry

_BUILDING = threading.RLock()  # modules are built one at a time: libraries change settings of the process while they do

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


class TorchBackend:
    """Runs modules in eager torch, and plain code as it is."""

    name = "torch"

    def load(self, context: LoadContext, shared: Mapping[str, Loaded]) -> Loaded:
        """Load one node.

        Raises SourceError for a checkpoint that does not fit, PluginError for code that cannot be imported or built, InputError for
        a device that is not there.
        """
        context, component = placed(context), context.node.component
        if context.precision not in ("", context.dtype):
            found = f"{context.node.name}: the torch backend has no precision '{context.precision}'"
            raise InputError(f"{found}; run the node on onnx, or choose a dtype: {choices(DTYPES)}")
        if component.function is not None:
            return Loaded(bound_function(component.function, context.node))
        if component.load is not None:
            return _load_code(component, context)
        module, kept, warnings = _load_module(context, shared)
        if context.threads is not None:
            warnings = (*warnings, f"{context.node.name}: torch has one number of threads for the whole process; `threads` is for onnx")
        if is_driven(context.node):
            return replace(_driven(module, context), warnings=warnings, keeps=kept)
        return Loaded(in_torch(module, context), state=module, bind=getattr(module, "bind", None), warnings=warnings, keeps=kept)

    def close(self) -> None:
        """Give cached device memory back."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _driven(module: torch.nn.Module, context: LoadContext) -> Loaded:
    """The loop of a driven component around the parts of its module."""
    node = context.node
    if not isinstance(module, Driven):
        component = node.component
        found = f"{component.module} gave {shown(module)}, wanted a modelgraft.plugin.Driven, because it has a loop"
        raise PluginError(f"plugin '{component.plugin}': {found}")
    loop = loop_of(node, module.facts(), resolve)
    loop.prepare(context)
    call = in_torch(driving(loop, module.parts(tuple(node.component.parts(node.config))), node), context)
    return Loaded(call, state=module, bind=loop.bind, loop=loop)


def resolve_device(device: str | None) -> str:
    """Turn "auto", None, "cuda" or "cpu" into a device that is there.

    Raises InputError when it is not, with the devices that are.
    """
    there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if device in (None, "auto"):
        return there[1] if len(there) > 1 else "cpu"
    found = "cuda:0" if device == "cuda" else str(device)
    if found not in there:
        reason = f"; torch {torch.__version__} is built without CUDA" if torch.version.cuda is None and found.startswith("cuda") else ""
        raise InputError(f"device '{device}' is not here; there is: {', '.join(there)}{reason}")
    return found


def placed(context: LoadContext) -> LoadContext:
    """The context with a device that is there, such as "cuda:0" for "cuda". Raises InputError that names the node."""
    if context.device == "cpu":
        return context
    try:
        return replace(context, device=resolve_device(context.device))
    except InputError as error:
        raise InputError(f"{context.node.name}: {error.unworded}") from error


def count_parameters(node: Node) -> int | None:
    """Build a node's module on the meta device and count its parameters, shared ones once. None for other code.

    Adapters do not count: see `count_adapters`.
    """
    if node.component.module is None:
        return 0 if node.component.function is not None else None
    with torch.device("meta"):
        module = _build(node.component, node)
    return _count(module)


def count_adapters(node: Node, registry: Registry) -> int:
    """Count the parameters that the adapters of a node add to it, on the meta device."""
    if not node.adapters:
        return 0
    plain = [replace(adapter, source=None) for adapter in node.adapters]
    context = LoadContext(node, "meta", "float32", None, seed=0, offline=True, registry=registry)
    with torch.device("meta"):
        module = _build(node.component, node)
        before = _count(module)
        for adapter in plain:
            module = _graft(module, adapter, context)
    return _count(module) - before


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- code that is no module ---------------------------------------------------------------------------------------------


def _load_code(component: Component, context: LoadContext) -> Loaded:
    with contained():
        opened = resolve(component.load or "", component)(context.node.config, context)
    if not callable(opened):
        raise PluginError(f"{component.load} (component '{component.id}') gave {shown(opened)}, wanted something that can be called")
    close = getattr(opened, "close", None)
    warnings = tuple(getattr(opened, "warnings", ()))
    return Loaded(opened, bind=getattr(opened, "bind", None), close=close or (lambda: None), warnings=warnings)


def resolve(target: str, component: Component) -> Any:
    """Import "package.module:attribute" of a component's declaration.

    Raises PluginError that names the plugin and, for a package that is not installed, what to install.
    """
    module_name, _, attribute = target.partition(":")
    try:
        with contained():
            return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name and not module_name.startswith(error.name):
            text = f"component '{component.id}' needs the package '{error.name}', which is not installed"
            raise PluginError(f"{text}; see `modelgraft plugins info {component.plugin}`") from error
        raise PluginError(f"plugin '{component.plugin}': component '{component.id}' names {target}, which is not there") from error
    except (ImportError, AttributeError) as error:
        raise PluginError(f"plugin '{component.plugin}': {target} (component '{component.id}') cannot be imported: {error}") from error
    except Exception as error:  # code of a plugin may raise anything while it is imported
        found = f"plugin '{component.plugin}': {target} (component '{component.id}') cannot be imported: {said(error)}"
        place = place_of(error, target)
        raise PluginError(f"{found}\n    this is a defect of the plugin" + (f": {place}" if place else "")) from error


# -- modules ------------------------------------------------------------------------------------------------------------


def _load_module(context: LoadContext, shared: Mapping[str, Loaded]) -> tuple[torch.nn.Module, Held | None, tuple[str, ...]]:
    node, warnings, kept = context.node, tuple[str, ...](), None
    host = shared[node.share].state if node.share else None
    if host is not None:
        module = _fill(context, host.state_dict())
    elif context.weights is not None:
        module, kept = _filled(context)
    else:
        module, warnings = _without_weights(context)
    if node.adapters and (for_adapters := getattr(module, "for_adapters", None)) is not None:
        module = for_adapters()  # a module that has another form for those who change it
    for adapter in node.adapters:
        before, is_new = _count(module), starts_new(adapter, context)
        module = cast(_graft(module, adapter, context), context.dtype)
        if is_new and (added := _count(module) - before):
            warnings += (f"{node.name}: {added:,} parameters of {adapter.component.id} start from random numbers (seed {context.seed})",)
    module.requires_grad_(requires_grad=False)
    module = module.to(device=context.device).eval()
    prepare = getattr(module, "prepare", None)  # files beside the weights, such as a tokenizer
    if prepare is not None:
        prepare(context)
    return module, kept, warnings


def starts_new(adapter: Adapter, context: LoadContext) -> bool:
    """Whether an adapter has no weights to start from, as a host that is new or asked to be random."""
    return adapter.source is None or (context.init == "random" and not adapter.source.has_weights)


def _graft(module: torch.nn.Module, adapter: Adapter, context: LoadContext) -> torch.nn.Module:
    """Let an adapter change the host: `load(config, context)` gives a function from module to module."""
    opened = None
    if adapter.source is not None and not starts_new(adapter, context):
        from modelgraft.sources import weights

        opened = weights.open(adapter.source, offline=context.offline)
    change = resolve(adapter.component.load or "", adapter.component)(adapter.config, replace(context, weights=opened))
    grafted: torch.nn.Module = change(module)
    return grafted


def _filled(context: LoadContext) -> tuple[torch.nn.Module, Held | None]:
    """Fill from the checkpoint, or with what another pipeline of this process holds of it."""
    key = held.key_of(context)
    if key is None:
        return _fill(context, None), None
    with held.LOCK:
        found = held.find(key)
        if found is not None:
            try:
                return _fill(context, found.state()).to(device=context.device), found
            except SourceError:  # it does not fit after all: this config decides more of the weights than it says
                return _fill(context, None), None
        module = _fill(context, None).to(device=context.device)
        return module, held.hold(key, module)


def _fill(context: LoadContext, state: Mapping[str, torch.Tensor] | None) -> torch.nn.Module:
    """Build without memory, then take every tensor from the checkpoint: nothing is copied that need not be."""
    node = context.node
    with parameters_without_memory():
        module = _build(node.component, node)
    if state is None:
        state = _read_state(module, context)
    _compare(module, state, context)
    module.load_state_dict(state, strict=False, assign=True)
    after_load = getattr(module, "after_load", None)
    if after_load is not None:
        after_load()
    return cast(module, context.dtype)


def cast(module: torch.nn.Module, dtype: str) -> torch.nn.Module:
    """Bring the floating parameters and buffers to a dtype, one tensor at a time."""
    wanted = DTYPES.get(dtype)
    if wanted is None:
        raise InputError(f"dtype '{dtype}' is not known to the torch backend; it knows {choices(DTYPES)}")
    return module.to(dtype=wanted)


def _read_state(module: torch.nn.Module, context: LoadContext) -> Mapping[str, torch.Tensor]:
    """The tensors under the module's own names."""
    weights = context.weights
    assert weights is not None
    translate = getattr(type(module), "from_checkpoint", None)
    found: Mapping[str, torch.Tensor] = translate(context.node.config, weights) if translate is not None else weights.state()
    return found


def _compare(module: torch.nn.Module, state: Mapping[str, torch.Tensor], context: LoadContext) -> None:
    """Raise SourceError naming what a checkpoint lacks, has over, or has in another shape or kind of numbers."""
    wanted = module.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    optional = set(getattr(module, "optional_keys", ()))
    missing = sorted(set(expected) - set(state) - optional)
    left_over = sorted(set(state) - set(expected))
    shapes = [
        f"{name} is {list(tensor.shape)}, wanted {list(expected[name])}"
        for name, tensor in sorted(state.items())
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    kinds = [
        f"{name} is {_word(tensor)}, wanted {_word(wanted[name])}"
        for name, tensor in sorted(state.items())
        if name in wanted and _kind(tensor) != _kind(wanted[name])
    ]
    found = [
        *([f"{len(missing)} missing: {choices(missing, most=4)}"] if missing else []),
        *([f"{len(left_over)} left over: {choices(left_over, most=4)}"] if left_over else []),
        *([f"{len(shapes)} of another shape: {'; '.join(shapes[:3])}"] if shapes else []),
        *([f"{len(kinds)} of another kind of numbers: {'; '.join(kinds[:3])}"] if kinds else []),
    ]
    if found:
        raise SourceError(_misfit(context, found))


def _kind(tensor: torch.Tensor) -> str:
    """What its numbers are: a quantised weight is no float of another precision, and would be read as one without its scales."""
    return "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "integer"


def _word(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _misfit(context: LoadContext, found: list[str]) -> Problem:
    node, text = context.node, context.weights.view.text if context.weights is not None else "the shared node"
    return Problem(
        "weights-do-not-fit",
        f"the tensors of {text} do not fit {node.name} ({node.component.id}): {'; '.join(found)}",
        node.place,
        "the config and the weights belong to different models, or the part after # is another one",
        node=node.name,
    )


def _without_weights(context: LoadContext) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Build a module that no checkpoint fills, with seeded random numbers: a part without a source is new, and the warning says so."""
    node = context.node
    with parameters_without_memory():
        count = _count(_build(node.component, node))
    with _BUILDING, seeded(context.seed + zlib.crc32((node.share or node.name).encode())):
        module = _build(node.component, node)
    warnings = (f"{node.name}: {count:,} parameters start from random numbers (seed {context.seed})",) if count else ()
    return cast(module, context.dtype), warnings


def _build(component: Component, node: Node) -> torch.nn.Module:
    factory = resolve(component.module or "", component)
    try:
        with contained():
            module = factory(node.config)
    except SourceError as error:
        raise _placed(error, node) from error
    except ModelgraftError:
        raise
    except Exception as error:  # a plugin may raise anything while it builds
        text = f"plugin '{component.plugin}': {component.module} could not be built for node '{node.name}': {said(error)}"
        raise PluginError(f"{text}\n    {defect_of(component, error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise PluginError(f"plugin '{component.plugin}': {component.module} gave {shown(module)}, wanted a torch.nn.Module")
    return module


def _placed(error: SourceError, node: Node) -> SourceError:
    """The error of a config that no module can be made of, with the source and the line that name it."""
    text = f"{node.source.text}: " if node.source is not None else ""
    return SourceError(
        replace(problem, found=f"{text}{problem.found}", place=problem.place or node.place, node=problem.node or node.name)
        for problem in error.problems
    )


@contextmanager
def parameters_without_memory() -> Iterator[None]:
    """Put the parameters of modules built inside on the meta device; buffers stay real, because nothing else fills them.

    Of this thread alone: modules that other threads build meanwhile, and their random numbers, stay what they are.
    """
    owner = threading.get_ident()

    def register(_module: torch.nn.Module, _name: str, param: torch.nn.Parameter) -> torch.nn.Parameter | None:
        if param.is_meta or threading.get_ident() != owner:
            return None
        return torch.nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)

    with _BUILDING, seeded(0):  # what is drawn for parameters that are filled later is drawn in vain, and not from the program's numbers
        handle = register_module_parameter_registration_hook(register)  # type: ignore[arg-type]  # a parameter it gives is taken
        try:
            yield
        finally:
            handle.remove()


def in_torch(module: Callable[..., Any], context: LoadContext) -> Callable[..., Any]:
    """Call a module, or code like one, without gradients.

    Tensors come to the device of the module, floating ones to the dtype of its weights.
    """
    device, dtype = torch.device(context.device), DTYPES[context.dtype]
    is_ordered = device.type != "cpu"  # a device works in order; on the host a copy that nobody waits for is read before it is there

    def at_home(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, dtype if value.is_floating_point() else None, non_blocking=is_ordered)

    def call(*values: Any) -> Any:
        with torch.no_grad():
            return module(*map(at_home, values))

    return call
