"""The compile backend: modules by `torch.compile`, compared with eager torch before they are used."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl

DTYPES = ("float32", "float16", "bfloat16", "float64")


@hookimpl
def register_backends(register: Callable[..., None]) -> None:
    """Offer the backend `compile`."""
    register("compile", "modelgraft_plugins.compile.backend:CompileBackend", precisions=DTYPES, devices=("cpu", "cuda"))
