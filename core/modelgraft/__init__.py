"""modelgraft: composable multimodal model pipelines from typed parts."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which is not imported here: until the command line listens, Ctrl-C is a traceback

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from typing import Any

    from modelgraft.absence import ABSENT as ABSENT
    from modelgraft.api import check as check
    from modelgraft.api import load as load
    from modelgraft.api import open as open
    from modelgraft.api import plan as plan
    from modelgraft.api import show as show
    from modelgraft.building import Graph as Graph
    from modelgraft.catalog import components as components
    from modelgraft.catalog import presets as presets
    from modelgraft.errors import Cancelled as Cancelled
    from modelgraft.errors import DocumentError as DocumentError
    from modelgraft.errors import GraphError as GraphError
    from modelgraft.errors import InputError as InputError
    from modelgraft.errors import ModelgraftError as ModelgraftError
    from modelgraft.errors import ModelgraftWarning as ModelgraftWarning
    from modelgraft.errors import NodeError as NodeError
    from modelgraft.errors import NodeTimeout as NodeTimeout
    from modelgraft.errors import PluginError as PluginError
    from modelgraft.errors import SourceError as SourceError
    from modelgraft.hooks import hookimpl as hookimpl
    from modelgraft.kinds import Component as Component
    from modelgraft.kinds import Config as Config
    from modelgraft.kinds import Dim as Dim
    from modelgraft.kinds import component as component
    from modelgraft.media import Audio as Audio
    from modelgraft.plans import Plan as Plan
    from modelgraft.ports import Port as Port
    from modelgraft.ports import Ports as Ports
    from modelgraft.ports import Space as Space
    from modelgraft.ports import port as port
    from modelgraft.running.events import Event as Event
    from modelgraft.running.pipeline import Pipeline as Pipeline
    from modelgraft.running.result import Result as Result

# Public name -> the module that holds it. Resolved on first use, so that `import modelgraft` stays light.
_HOMES = {
    "ABSENT": "absence",
    "Cancelled": "errors",
    "Component": "kinds",
    "Config": "kinds",
    "Dim": "kinds",
    "DocumentError": "errors",
    "Event": "running.events",
    "Graph": "building",
    "GraphError": "errors",
    "InputError": "errors",
    "ModelgraftError": "errors",
    "ModelgraftWarning": "errors",
    "NodeError": "errors",
    "NodeTimeout": "errors",
    "Pipeline": "running.pipeline",
    "Plan": "plans",
    "PluginError": "errors",
    "Port": "ports",
    "Ports": "ports",
    "Result": "running.result",
    "SourceError": "errors",
    "Space": "ports",
    "Audio": "media",
    "check": "api",
    "component": "kinds",
    "components": "catalog",
    "hookimpl": "hooks",
    "load": "api",
    "open": "api",
    "plan": "api",
    "port": "ports",
    "presets": "catalog",
    "show": "api",
}

__all__ = [
    "ABSENT",
    "Audio",
    "Cancelled",
    "Component",
    "Config",
    "Dim",
    "DocumentError",
    "Event",
    "Graph",
    "GraphError",
    "InputError",
    "ModelgraftError",
    "ModelgraftWarning",
    "NodeError",
    "NodeTimeout",
    "Pipeline",
    "Plan",
    "PluginError",
    "Port",
    "Ports",
    "Result",
    "SourceError",
    "Space",
    "check",
    "component",
    "components",
    "hookimpl",
    "load",
    "open",
    "plan",
    "port",
    "presets",
    "show",
]


def __getattr__(name: str) -> Any:  # Any: the type is that of the name asked for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'modelgraft' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"modelgraft.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
