"""modelgraft: composable multimodal model pipelines from typed parts."""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which is not imported here: until the command line listens, Ctrl-C is a traceback

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from typing import Any

    from modelgraft.api import check as check
    from modelgraft.api import load as load
    from modelgraft.api import open as open
    from modelgraft.api import plan as plan
    from modelgraft.api import show as show
    from modelgraft.api import train as train
    from modelgraft.building import Graph as Graph
    from modelgraft.declaring import component as component
    from modelgraft.engine.events import Event as Event
    from modelgraft.engine.pipeline import Pipeline as Pipeline
    from modelgraft.engine.result import Result as Result
    from modelgraft.kernel.shelf.hooks import hookimpl as hookimpl
    from modelgraft.kernel.words.errors import Cancelled as Cancelled
    from modelgraft.kernel.words.errors import DocumentError as DocumentError
    from modelgraft.kernel.words.errors import GraphError as GraphError
    from modelgraft.kernel.words.errors import InputError as InputError
    from modelgraft.kernel.words.errors import ModelgraftError as ModelgraftError
    from modelgraft.kernel.words.errors import ModelgraftWarning as ModelgraftWarning
    from modelgraft.kernel.words.errors import NodeError as NodeError
    from modelgraft.kernel.words.errors import NodeTimeout as NodeTimeout
    from modelgraft.kernel.words.errors import PluginError as PluginError
    from modelgraft.kernel.words.errors import SourceError as SourceError
    from modelgraft.kernel.words.kinds import Component as Component
    from modelgraft.kernel.words.kinds import Config as Config
    from modelgraft.kernel.words.kinds import Dim as Dim
    from modelgraft.kernel.words.plan import Plan as Plan
    from modelgraft.kernel.words.ports import Port as Port
    from modelgraft.kernel.words.ports import Ports as Ports
    from modelgraft.kernel.words.ports import Space as Space
    from modelgraft.kernel.words.ports import port as port
    from modelgraft.records.absence import ABSENT as ABSENT
    from modelgraft.records.depths import Depth as Depth
    from modelgraft.records.heats import Thermal as Thermal
    from modelgraft.records.masks import Mask as Mask
    from modelgraft.records.movements import Imu as Imu
    from modelgraft.records.sounds import Audio as Audio
    from modelgraft.records.vectors import Embedding as Embedding
    from modelgraft.records.videos import Video as Video
    from modelgraft.tools.catalog import components as components
    from modelgraft.tools.catalog import presets as presets

# Public name -> the module that holds it. Resolved on first use, so that `import modelgraft` stays light.
_HOMES = {
    "ABSENT": "records.absence",
    "Cancelled": "kernel.words.errors",
    "Component": "kernel.words.kinds",
    "Config": "kernel.words.kinds",
    "Dim": "kernel.words.kinds",
    "DocumentError": "kernel.words.errors",
    "Event": "engine.events",
    "Graph": "building",
    "GraphError": "kernel.words.errors",
    "InputError": "kernel.words.errors",
    "ModelgraftError": "kernel.words.errors",
    "ModelgraftWarning": "kernel.words.errors",
    "NodeError": "kernel.words.errors",
    "NodeTimeout": "kernel.words.errors",
    "Pipeline": "engine.pipeline",
    "Plan": "kernel.words.plan",
    "PluginError": "kernel.words.errors",
    "Port": "kernel.words.ports",
    "Ports": "kernel.words.ports",
    "Result": "engine.result",
    "SourceError": "kernel.words.errors",
    "Space": "kernel.words.ports",
    "Audio": "records.sounds",
    "Depth": "records.depths",
    "Embedding": "records.vectors",
    "Imu": "records.movements",
    "Mask": "records.masks",
    "Thermal": "records.heats",
    "Video": "records.videos",
    "check": "api",
    "component": "declaring",
    "components": "tools.catalog",
    "hookimpl": "kernel.shelf.hooks",
    "load": "api",
    "open": "api",
    "plan": "api",
    "port": "kernel.words.ports",
    "presets": "tools.catalog",
    "show": "api",
    "train": "api",
}

__all__ = [
    "ABSENT",
    "Audio",
    "Cancelled",
    "Component",
    "Config",
    "Depth",
    "Dim",
    "DocumentError",
    "Embedding",
    "Event",
    "Graph",
    "GraphError",
    "Imu",
    "InputError",
    "Mask",
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
    "Thermal",
    "Video",
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
    "train",
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
