"""modelgraft: composable multimodal model pipelines from typed parts."""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the module that holds it. Resolved on first use, so that `import modelgraft` stays light.
_HOMES = {
    "Cancelled": "errors",
    "Component": "kinds",
    "Config": "kinds",
    "Dim": "kinds",
    "DocumentError": "errors",
    "GraphError": "errors",
    "InputError": "errors",
    "ModelgraftError": "errors",
    "NodeError": "errors",
    "NodeTimeout": "errors",
    "PluginError": "errors",
    "Port": "ports",
    "Ports": "ports",
    "SourceError": "errors",
    "Space": "ports",
    "Audio": "media",
    "check": "api",
    "component": "kinds",
    "hookimpl": "hooks",
    "load": "api",
    "open": "api",
    "plan": "api",
    "port": "ports",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:  # Any: the type is that of the name asked for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'modelgraft' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"modelgraft.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
