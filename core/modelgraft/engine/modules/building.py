"""Modules of components: built with memory or without, checked, counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from modelgraft.engine.modules.seeding import seeded
from modelgraft.engine.modules.targets import resolve
from modelgraft.kernel.words.errors import InputError, ModelgraftError, PluginError, SourceError, choices
from modelgraft.kernel.words.graph import Node
from modelgraft.kernel.words.guard import contained, said, shown
from modelgraft.kernel.words.kinds import Component, defect_of

BUILDING = threading.RLock()  # modules are built one at a time: libraries change settings of the process while they do

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def build(component: Component, node: Node) -> torch.nn.Module:
    """Make the module of a node from its config.

    Raises SourceError with the node's place for a config that no module can be made of, PluginError for code that fails.
    """
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

    with BUILDING, seeded(0):  # what is drawn for parameters that are filled later is drawn in vain, and not from the program's numbers
        handle = register_module_parameter_registration_hook(register)  # type: ignore[arg-type]  # a parameter it gives is taken
        try:
            yield
        finally:
            handle.remove()


def dtype_of(dtype: str) -> torch.dtype:
    """The dtype of that name. Raises InputError for one that modules do not run in."""
    if dtype not in DTYPES:
        raise InputError(f"dtype '{dtype}' is not known to the torch backend; it knows {choices(DTYPES)}")
    return DTYPES[dtype]


def count_parameters(node: Node) -> int | None:
    """Build a node's module on the meta device and count its parameters, shared ones once. None for other code.

    Adapters do not count: see `grafting.count_adapters`.
    """
    if node.component.module is None:
        return 0 if node.component.function is not None else None
    with torch.device("meta"):
        module = build(node.component, node)
    return count_of(module)


def count_of(module: torch.nn.Module) -> int:
    """The parameters of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
