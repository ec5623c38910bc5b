"""The onnx backend, offered through the same door as any other."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl
from modelgraft.plugin import PRECISIONS

DEVICES = ("cpu", "cuda")


@hookimpl
def register_backends(register: Callable[..., None]) -> None:
    """Offer the backend `onnx`."""
    register(
        "onnx",
        "modelgraft_plugins.onnx.backend:OnnxBackend",
        fuses=True,
        exports=True,
        precisions=PRECISIONS,
        devices=DEVICES,
        heeds=("threads",),
        opens=(".onnx",),
    )


@hookimpl
def register_keepers(register: Callable[[str, str], None]) -> None:
    """Tell of the exports that are kept."""
    register("exports", "modelgraft_plugins.onnx.keeping:Exports")
