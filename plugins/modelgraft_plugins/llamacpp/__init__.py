"""The llamacpp backend, offered through the same door as any other: decoders of GGUF files, run by llama.cpp as the file holds them."""

from __future__ import annotations

from collections.abc import Callable

from modelgraft import hookimpl


@hookimpl
def register_backends(register: Callable[..., None]) -> None:
    """Offer the backend `llamacpp`. Weights stay as the file has them; float32 is what goes in and out."""
    register(
        "llamacpp",
        "modelgraft_plugins.llamacpp.backend:LlamaCppBackend",
        precisions=("float32",),
        devices=("cpu",),
        heeds=("threads",),
    )
