"""The torch backend, offered through the same door as any other."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl

DTYPES = ("float32", "float16", "bfloat16", "float64")


@hookimpl
def register_backends(register: Callable[..., None]) -> None:
    """Offer the backend `torch`."""
    register("torch", "modelgraft_plugins.torch.backend:TorchBackend", precisions=DTYPES, devices=("cpu", "cuda"))
