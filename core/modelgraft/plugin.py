"""The face for authors: everything that a plugin may import beside `modelgraft` itself and `modelgraft.testing`.

Declarations (`component`, `Config`, `port`, `hookimpl`) are light. The rest is imported on first use, so that a plugin's
`__init__` may import from here without importing torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which `import modelgraft` does not need

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from typing import Any

    from modelgraft.backends.base import LoadContext as LoadContext
    from modelgraft.backends.base import NodeRuntime as NodeRuntime
    from modelgraft.backends.seeding import seeded as seeded
    from modelgraft.backends.torch import parameters_without_memory as parameters_without_memory
    from modelgraft.kernel.language.document import PRECISIONS as PRECISIONS
    from modelgraft.kernel.shelf.hooks import hookimpl as hookimpl
    from modelgraft.kernel.words.errors import InputError as InputError
    from modelgraft.kernel.words.errors import ModelgraftError as ModelgraftError
    from modelgraft.kernel.words.errors import PluginError as PluginError
    from modelgraft.kernel.words.errors import Problem as Problem
    from modelgraft.kernel.words.errors import SourceError as SourceError
    from modelgraft.kernel.words.errors import choices as choices
    from modelgraft.kernel.words.errors import nearest as nearest
    from modelgraft.kernel.words.kinds import Config as Config
    from modelgraft.kernel.words.kinds import Dim as Dim
    from modelgraft.kernel.words.kinds import SolvedNode as SolvedNode
    from modelgraft.kernel.words.kinds import SpaceOf as SpaceOf
    from modelgraft.kernel.words.kinds import TypeOf as TypeOf
    from modelgraft.kernel.words.kinds import component as component
    from modelgraft.kernel.words.ports import Port as Port
    from modelgraft.kernel.words.ports import Ports as Ports
    from modelgraft.kernel.words.ports import Space as Space
    from modelgraft.kernel.words.ports import Tensor as Tensor
    from modelgraft.kernel.words.ports import port as port
    from modelgraft.loops.decoder import Decoder as Decoder
    from modelgraft.loops.loop import Answers as Answers
    from modelgraft.loops.loop import generate as generate
    from modelgraft.loops.settings import Settings as Settings
    from modelgraft.records.media import Audio as Audio
    from modelgraft.records.media import resample as resample
    from modelgraft.records.pictures import PICTURE_PIXELS as PICTURE_PIXELS
    from modelgraft.records.pictures import eight_bits as eight_bits
    from modelgraft.records.pictures import on_white as on_white
    from modelgraft.sources import archives as archives
    from modelgraft.sources import kept as kept
    from modelgraft.sources import seals as seals
    from modelgraft.sources.headers import damaged as damaged
    from modelgraft.sources.sources import SourceView as SourceView
    from modelgraft.sources.storage import cache_root as cache_root
    from modelgraft.sources.storage import digest_of as digest_of
    from modelgraft.sources.storage import sha256_of as sha256_of
    from modelgraft.sources.weights import Weights as Weights

# Name -> the module that holds it, or of which it is a part. Resolved on first use.
_HOMES = {
    "Answers": "loops.loop",
    "Audio": "records.media",
    "Config": "kernel.words.kinds",
    "Decoder": "loops.decoder",
    "Dim": "kernel.words.kinds",
    "InputError": "kernel.words.errors",
    "LoadContext": "backends.base",
    "ModelgraftError": "kernel.words.errors",
    "NodeRuntime": "backends.base",
    "PICTURE_PIXELS": "records.pictures",
    "PRECISIONS": "kernel.language.document",
    "PluginError": "kernel.words.errors",
    "Port": "kernel.words.ports",
    "Ports": "kernel.words.ports",
    "Problem": "kernel.words.errors",
    "Settings": "loops.settings",
    "SolvedNode": "kernel.words.kinds",
    "SourceError": "kernel.words.errors",
    "SourceView": "sources.sources",
    "Space": "kernel.words.ports",
    "SpaceOf": "kernel.words.kinds",
    "Tensor": "kernel.words.ports",
    "TypeOf": "kernel.words.kinds",
    "Weights": "sources.weights",
    "archives": "sources",
    "cache_root": "sources.storage",
    "choices": "kernel.words.errors",
    "component": "kernel.words.kinds",
    "damaged": "sources.headers",
    "digest_of": "sources.storage",
    "eight_bits": "records.pictures",
    "generate": "loops.loop",
    "hookimpl": "kernel.shelf.hooks",
    "kept": "sources",
    "nearest": "kernel.words.errors",
    "on_white": "records.pictures",
    "parameters_without_memory": "backends.torch",
    "port": "kernel.words.ports",
    "resample": "records.media",
    "seals": "sources",
    "seeded": "backends.seeding",
    "sha256_of": "sources.storage",
}

__all__ = [
    "PICTURE_PIXELS",
    "PRECISIONS",
    "Answers",
    "Audio",
    "Config",
    "Decoder",
    "Dim",
    "InputError",
    "LoadContext",
    "ModelgraftError",
    "NodeRuntime",
    "PluginError",
    "Port",
    "Ports",
    "Problem",
    "Settings",
    "SolvedNode",
    "SourceError",
    "SourceView",
    "Space",
    "SpaceOf",
    "Tensor",
    "TypeOf",
    "Weights",
    "archives",
    "cache_root",
    "choices",
    "component",
    "damaged",
    "digest_of",
    "eight_bits",
    "generate",
    "hookimpl",
    "kept",
    "nearest",
    "on_white",
    "parameters_without_memory",
    "port",
    "resample",
    "seals",
    "seeded",
    "sha256_of",
]


def __getattr__(name: str) -> Any:  # Any: the type is that of the name asked for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'modelgraft.plugin' has no attribute '{name}'")
    from importlib import import_module

    holder = import_module(f"modelgraft.{home}")
    value = getattr(holder, name, None)
    if value is None:  # a module of its own
        value = import_module(f"modelgraft.{home}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
