"""The face for authors: everything that a plugin may import beside `modelgraft` itself and `modelgraft.testing`.

Declarations (`component`, `Config`, `port`, `hookimpl`) are light. The rest is imported on first use, so that a plugin's
`__init__` may import from here without importing torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, which `import modelgraft` does not need

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from typing import Any

    from modelgraft.declaring import component as component
    from modelgraft.engine.backend import Backend as Backend
    from modelgraft.engine.backend import FileCall as FileCall
    from modelgraft.engine.backend import LoadContext as LoadContext
    from modelgraft.engine.backend import Loaded as Loaded
    from modelgraft.engine.backend import StaleLoad as StaleLoad
    from modelgraft.engine.backend import Unfinished as Unfinished
    from modelgraft.engine.backend import bound_function as bound_function
    from modelgraft.engine.backend import open_backend as open_backend
    from modelgraft.engine.backend import starts_new as starts_new
    from modelgraft.engine.driving import driving as driving
    from modelgraft.engine.driving import is_driven as is_driven
    from modelgraft.engine.driving import loop_of as loop_of
    from modelgraft.engine.driving import owner_of as owner_of
    from modelgraft.engine.ledger import Holding as Holding
    from modelgraft.engine.ledger import Ledger as Ledger
    from modelgraft.engine.measuring import note_memory as note_memory
    from modelgraft.engine.modules.building import DTYPES as DTYPES
    from modelgraft.engine.modules.building import parameters_without_memory as parameters_without_memory
    from modelgraft.engine.modules.calling import in_numpy as in_numpy
    from modelgraft.engine.modules.calling import in_torch as in_torch
    from modelgraft.engine.modules.calling import placed as placed
    from modelgraft.engine.modules.examples import CHECKED as CHECKED
    from modelgraft.engine.modules.examples import TRACED as TRACED
    from modelgraft.engine.modules.examples import dynamic_axes as dynamic_axes
    from modelgraft.engine.modules.examples import make_inputs as make_inputs
    from modelgraft.engine.modules.loading import load_driven as load_driven
    from modelgraft.engine.modules.loading import load_module as load_module
    from modelgraft.engine.modules.opened_code import load_code as load_code
    from modelgraft.engine.modules.pages import give_back_file as give_back_file
    from modelgraft.engine.modules.pages import give_back_files as give_back_files
    from modelgraft.engine.modules.pages import give_back_freed as give_back_freed
    from modelgraft.engine.modules.pages import let_go as let_go
    from modelgraft.engine.modules.pages import mappings_change as mappings_change
    from modelgraft.engine.modules.protocol import AfterLoad as AfterLoad
    from modelgraft.engine.modules.protocol import AsGraph as AsGraph
    from modelgraft.engine.modules.protocol import Bind as Bind
    from modelgraft.engine.modules.protocol import Close as Close
    from modelgraft.engine.modules.protocol import ForAdapters as ForAdapters
    from modelgraft.engine.modules.protocol import FromCheckpoint as FromCheckpoint
    from modelgraft.engine.modules.protocol import Gives as Gives
    from modelgraft.engine.modules.protocol import KeepsStored as KeepsStored
    from modelgraft.engine.modules.protocol import OptionalKeys as OptionalKeys
    from modelgraft.engine.modules.protocol import Prepare as Prepare
    from modelgraft.engine.modules.protocol import Warns as Warns
    from modelgraft.engine.modules.seeding import seeded as seeded
    from modelgraft.engine.modules.signatures import Signature as Signature
    from modelgraft.engine.modules.signatures import signature_of as signature_of
    from modelgraft.engine.modules.signatures import wired_inputs as wired_inputs
    from modelgraft.engine.modules.targets import resolve as resolve
    from modelgraft.engine.modules.widened import giving_back as giving_back
    from modelgraft.engine.modules.widened import in_turn as in_turn
    from modelgraft.engine.opened_files import open_file as open_file
    from modelgraft.engine.parity import TOLERANCES as TOLERANCES
    from modelgraft.engine.parity import ExportError as ExportError
    from modelgraft.engine.parity import Parity as Parity
    from modelgraft.engine.parity import parity_of as parity_of
    from modelgraft.engine.run import NodeRuntime as NodeRuntime
    from modelgraft.kernel.checking.matching import choose as choose
    from modelgraft.kernel.language.document import PRECISIONS as PRECISIONS
    from modelgraft.kernel.shelf.hooks import hookimpl as hookimpl
    from modelgraft.kernel.words.errors import GraphError as GraphError
    from modelgraft.kernel.words.errors import InputError as InputError
    from modelgraft.kernel.words.errors import ModelgraftError as ModelgraftError
    from modelgraft.kernel.words.errors import PluginError as PluginError
    from modelgraft.kernel.words.errors import Problem as Problem
    from modelgraft.kernel.words.errors import SourceError as SourceError
    from modelgraft.kernel.words.errors import choices as choices
    from modelgraft.kernel.words.errors import nearest as nearest
    from modelgraft.kernel.words.graph import Adapter as Adapter
    from modelgraft.kernel.words.graph import Node as Node
    from modelgraft.kernel.words.graph import SolvedGraph as SolvedGraph
    from modelgraft.kernel.words.guard import contained as contained
    from modelgraft.kernel.words.guard import said as said
    from modelgraft.kernel.words.kinds import Config as Config
    from modelgraft.kernel.words.kinds import Dim as Dim
    from modelgraft.kernel.words.kinds import SolvedNode as SolvedNode
    from modelgraft.kernel.words.kinds import SpaceOf as SpaceOf
    from modelgraft.kernel.words.kinds import TypeOf as TypeOf
    from modelgraft.kernel.words.kinds import defect_of as defect_of
    from modelgraft.kernel.words.plan import Plan as Plan
    from modelgraft.kernel.words.plan import Step as Step
    from modelgraft.kernel.words.ports import Axis as Axis
    from modelgraft.kernel.words.ports import Port as Port
    from modelgraft.kernel.words.ports import Ports as Ports
    from modelgraft.kernel.words.ports import Space as Space
    from modelgraft.kernel.words.ports import Tensor as Tensor
    from modelgraft.kernel.words.ports import port as port
    from modelgraft.kernel.words.source import Source as Source
    from modelgraft.kernel.words.wording import option as option
    from modelgraft.loops.decoder import Decoder as Decoder
    from modelgraft.loops.decoder import LooksAhead as LooksAhead
    from modelgraft.loops.decoder import Session as Session
    from modelgraft.loops.drafting import Drafting as Drafting
    from modelgraft.loops.drafting import DraftModel as DraftModel
    from modelgraft.loops.driven import Loop as Loop
    from modelgraft.loops.guessing import Guesser as Guesser
    from modelgraft.loops.guessing import Guesses as Guesses
    from modelgraft.loops.guides import Guide as Guide
    from modelgraft.loops.likelihoods import Likelihood as Likelihood
    from modelgraft.loops.loop import Answers as Answers
    from modelgraft.loops.loop import generate as generate
    from modelgraft.loops.module import Driven as Driven
    from modelgraft.loops.module import Traced as Traced
    from modelgraft.loops.prefixes import Remembering as Remembering
    from modelgraft.loops.prompt_places import Places as Places
    from modelgraft.loops.prompt_places import picked as picked
    from modelgraft.loops.settings import Settings as Settings
    from modelgraft.loops.tracing import Assembling as Assembling
    from modelgraft.loops.tracing import Bound as Bound
    from modelgraft.loops.tracing import Graph as Graph
    from modelgraft.loops.tracing import Opened as Opened
    from modelgraft.loops.tracing import Repeatable as Repeatable
    from modelgraft.loops.tracing import Slot as Slot
    from modelgraft.loops.tracing import Tracer as Tracer
    from modelgraft.metric import Metric as Metric
    from modelgraft.records.arrays import Array as Array
    from modelgraft.records.arrays import array_of as array_of
    from modelgraft.records.arrays import as_array as as_array
    from modelgraft.records.arrays import as_tensor as as_tensor
    from modelgraft.records.arrays import on_host as on_host
    from modelgraft.records.depths import Depth as Depth
    from modelgraft.records.heats import Thermal as Thermal
    from modelgraft.records.homes import home_read as home_read
    from modelgraft.records.masks import Mask as Mask
    from modelgraft.records.movements import Imu as Imu
    from modelgraft.records.opening import open_named as open_named
    from modelgraft.records.owning import own as own
    from modelgraft.records.pictures import PICTURE_PIXELS as PICTURE_PIXELS
    from modelgraft.records.pictures import eight_bits as eight_bits
    from modelgraft.records.pictures import on_white as on_white
    from modelgraft.records.publishing import begin_to_send as begin_to_send
    from modelgraft.records.record import Record as Record
    from modelgraft.records.record import Sight as Sight
    from modelgraft.records.record_type import Reading as Reading
    from modelgraft.records.record_type import RecordType as RecordType
    from modelgraft.records.room import refuse_without_room as refuse_without_room
    from modelgraft.records.sounds import Audio as Audio
    from modelgraft.records.sounds import resample as resample
    from modelgraft.records.vectors import Embedding as Embedding
    from modelgraft.records.videos import Video as Video
    from modelgraft.sources import archives as archives
    from modelgraft.sources import kept as kept
    from modelgraft.sources import seals as seals
    from modelgraft.sources import weights as weights
    from modelgraft.sources.cards import AUTO as AUTO
    from modelgraft.sources.cards import EVERY as EVERY
    from modelgraft.sources.cards import FamilyCard as FamilyCard
    from modelgraft.sources.cards import LanguageCard as LanguageCard
    from modelgraft.sources.cards import LayoutCard as LayoutCard
    from modelgraft.sources.cards import PartCard as PartCard
    from modelgraft.sources.cards import PictureCard as PictureCard
    from modelgraft.sources.cards import TensorOrigin as TensorOrigin
    from modelgraft.sources.cards import TowerCard as TowerCard
    from modelgraft.sources.cards import WholeCard as WholeCard
    from modelgraft.sources.families import Families as Families
    from modelgraft.sources.families import families as families
    from modelgraft.sources.headers import damaged as damaged
    from modelgraft.sources.keeping import Keeper as Keeper
    from modelgraft.sources.keeping import KeptItem as KeptItem
    from modelgraft.sources.keeping import complaint_of_note as complaint_of_note
    from modelgraft.sources.progress import current_listener as current_listener
    from modelgraft.sources.published_blocks import PublishedBlocks as PublishedBlocks
    from modelgraft.sources.row_tables import Table as Table
    from modelgraft.sources.row_tables import table_in as table_in
    from modelgraft.sources.row_tables import table_of as table_of
    from modelgraft.sources.storage import cache_in_use as cache_in_use
    from modelgraft.sources.storage import cache_root as cache_root
    from modelgraft.sources.storage import clear_leftovers as clear_leftovers
    from modelgraft.sources.storage import digest_of as digest_of
    from modelgraft.sources.storage import folder_aside as folder_aside
    from modelgraft.sources.storage import locked as locked
    from modelgraft.sources.storage import sha256_of as sha256_of
    from modelgraft.sources.storage import stamp_of as stamp_of
    from modelgraft.sources.weights import Weights as Weights
    from modelgraft.tools.swapping.use_marks import KEPT as KEPT
    from modelgraft.tools.trained_parts import TrainsParts as TrainsParts

# Name -> the module that holds it, or of which it is a part. Resolved on first use.
_HOMES = {
    "AUTO": "sources.cards",
    "Adapter": "kernel.words.graph",
    "AfterLoad": "engine.modules.protocol",
    "AsGraph": "engine.modules.protocol",
    "Answers": "loops.loop",
    "Array": "records.arrays",
    "Assembling": "loops.tracing",
    "Audio": "records.sounds",
    "Axis": "kernel.words.ports",
    "Backend": "engine.backend",
    "Bind": "engine.modules.protocol",
    "Bound": "loops.tracing",
    "CHECKED": "engine.modules.examples",
    "Close": "engine.modules.protocol",
    "Config": "kernel.words.kinds",
    "DTYPES": "engine.modules.building",
    "Decoder": "loops.decoder",
    "Depth": "records.depths",
    "Dim": "kernel.words.kinds",
    "DraftModel": "loops.drafting",
    "Drafting": "loops.drafting",
    "Driven": "loops.module",
    "EVERY": "sources.cards",
    "Embedding": "records.vectors",
    "ExportError": "engine.parity",
    "Families": "sources.families",
    "FamilyCard": "sources.cards",
    "FileCall": "engine.backend",
    "ForAdapters": "engine.modules.protocol",
    "FromCheckpoint": "engine.modules.protocol",
    "Gives": "engine.modules.protocol",
    "Graph": "loops.tracing",
    "GraphError": "kernel.words.errors",
    "Holding": "engine.ledger",
    "Imu": "records.movements",
    "InputError": "kernel.words.errors",
    "KEPT": "tools.swapping.use_marks",
    "Keeper": "sources.keeping",
    "KeepsStored": "engine.modules.protocol",
    "KeptItem": "sources.keeping",
    "LanguageCard": "sources.cards",
    "Guesser": "loops.guessing",
    "Guesses": "loops.guessing",
    "Guide": "loops.guides",
    "Likelihood": "loops.likelihoods",
    "LayoutCard": "sources.cards",
    "Ledger": "engine.ledger",
    "LoadContext": "engine.backend",
    "Loaded": "engine.backend",
    "Unfinished": "engine.backend",
    "Loop": "loops.driven",
    "LooksAhead": "loops.decoder",
    "Mask": "records.masks",
    "Metric": "metric",
    "ModelgraftError": "kernel.words.errors",
    "Node": "kernel.words.graph",
    "NodeRuntime": "engine.run",
    "Opened": "loops.tracing",
    "OptionalKeys": "engine.modules.protocol",
    "PICTURE_PIXELS": "records.pictures",
    "PRECISIONS": "kernel.language.document",
    "Parity": "engine.parity",
    "PartCard": "sources.cards",
    "PictureCard": "sources.cards",
    "Places": "loops.prompt_places",
    "Plan": "kernel.words.plan",
    "PluginError": "kernel.words.errors",
    "PublishedBlocks": "sources.published_blocks",
    "Port": "kernel.words.ports",
    "Ports": "kernel.words.ports",
    "Prepare": "engine.modules.protocol",
    "Problem": "kernel.words.errors",
    "Reading": "records.record_type",
    "Record": "records.record",
    "RecordType": "records.record_type",
    "Remembering": "loops.prefixes",
    "Repeatable": "loops.tracing",
    "Session": "loops.decoder",
    "Settings": "loops.settings",
    "Sight": "records.record",
    "Signature": "engine.modules.signatures",
    "Slot": "loops.tracing",
    "SolvedGraph": "kernel.words.graph",
    "SolvedNode": "kernel.words.kinds",
    "Source": "kernel.words.source",
    "SourceError": "kernel.words.errors",
    "Space": "kernel.words.ports",
    "SpaceOf": "kernel.words.kinds",
    "StaleLoad": "engine.backend",
    "Step": "kernel.words.plan",
    "TOLERANCES": "engine.parity",
    "TRACED": "engine.modules.examples",
    "Table": "sources.row_tables",
    "Tensor": "kernel.words.ports",
    "TensorOrigin": "sources.cards",
    "Thermal": "records.heats",
    "TowerCard": "sources.cards",
    "Traced": "loops.module",
    "Tracer": "loops.tracing",
    "TrainsParts": "tools.trained_parts",
    "TypeOf": "kernel.words.kinds",
    "Video": "records.videos",
    "Warns": "engine.modules.protocol",
    "Weights": "sources.weights",
    "WholeCard": "sources.cards",
    "archives": "sources",
    "array_of": "records.arrays",
    "as_array": "records.arrays",
    "as_tensor": "records.arrays",
    "refuse_without_room": "records.room",
    "begin_to_send": "records.publishing",
    "bound_function": "engine.backend",
    "cache_in_use": "sources.storage",
    "cache_root": "sources.storage",
    "choices": "kernel.words.errors",
    "choose": "kernel.checking.matching",
    "clear_leftovers": "sources.storage",
    "complaint_of_note": "sources.keeping",
    "component": "declaring",
    "contained": "kernel.words.guard",
    "current_listener": "sources.progress",
    "damaged": "sources.headers",
    "defect_of": "kernel.words.kinds",
    "digest_of": "sources.storage",
    "driving": "engine.driving",
    "dynamic_axes": "engine.modules.examples",
    "eight_bits": "records.pictures",
    "families": "sources.families",
    "folder_aside": "sources.storage",
    "generate": "loops.loop",
    "give_back_file": "engine.modules.pages",
    "give_back_files": "engine.modules.pages",
    "give_back_freed": "engine.modules.pages",
    "giving_back": "engine.modules.widened",
    "home_read": "records.homes",
    "hookimpl": "kernel.shelf.hooks",
    "in_numpy": "engine.modules.calling",
    "in_torch": "engine.modules.calling",
    "in_turn": "engine.modules.widened",
    "is_driven": "engine.driving",
    "kept": "sources",
    "let_go": "engine.modules.pages",
    "load_code": "engine.modules.opened_code",
    "load_driven": "engine.modules.loading",
    "load_module": "engine.modules.loading",
    "locked": "sources.storage",
    "loop_of": "engine.driving",
    "make_inputs": "engine.modules.examples",
    "mappings_change": "engine.modules.pages",
    "nearest": "kernel.words.errors",
    "note_memory": "engine.measuring",
    "on_host": "records.arrays",
    "on_white": "records.pictures",
    "open_backend": "engine.backend",
    "open_file": "engine.opened_files",
    "open_named": "records.opening",
    "option": "kernel.words.wording",
    "own": "records.owning",
    "owner_of": "engine.driving",
    "parameters_without_memory": "engine.modules.building",
    "parity_of": "engine.parity",
    "picked": "loops.prompt_places",
    "placed": "engine.modules.calling",
    "port": "kernel.words.ports",
    "resample": "records.sounds",
    "resolve": "engine.modules.targets",
    "said": "kernel.words.guard",
    "seals": "sources",
    "seeded": "engine.modules.seeding",
    "sha256_of": "sources.storage",
    "signature_of": "engine.modules.signatures",
    "stamp_of": "sources.storage",
    "starts_new": "engine.backend",
    "table_in": "sources.row_tables",
    "table_of": "sources.row_tables",
    "weights": "sources",
    "wired_inputs": "engine.modules.signatures",
}

__all__ = [
    "AUTO",
    "CHECKED",
    "DTYPES",
    "EVERY",
    "KEPT",
    "PICTURE_PIXELS",
    "PRECISIONS",
    "TOLERANCES",
    "TRACED",
    "Adapter",
    "AfterLoad",
    "Answers",
    "Array",
    "AsGraph",
    "Assembling",
    "Audio",
    "Axis",
    "Backend",
    "Bind",
    "Bound",
    "Close",
    "Config",
    "Decoder",
    "Depth",
    "Dim",
    "DraftModel",
    "Drafting",
    "Driven",
    "Embedding",
    "ExportError",
    "Families",
    "FamilyCard",
    "FileCall",
    "ForAdapters",
    "FromCheckpoint",
    "Gives",
    "Graph",
    "GraphError",
    "Guide",
    "Holding",
    "Imu",
    "InputError",
    "Keeper",
    "KeepsStored",
    "KeptItem",
    "LanguageCard",
    "LayoutCard",
    "Ledger",
    "Likelihood",
    "LoadContext",
    "Loaded",
    "Loop",
    "Mask",
    "Metric",
    "ModelgraftError",
    "Node",
    "NodeRuntime",
    "Opened",
    "OptionalKeys",
    "Parity",
    "PartCard",
    "PictureCard",
    "Places",
    "Plan",
    "PluginError",
    "Port",
    "Ports",
    "Prepare",
    "Problem",
    "PublishedBlocks",
    "Reading",
    "Record",
    "RecordType",
    "Remembering",
    "Repeatable",
    "Session",
    "Settings",
    "Sight",
    "Signature",
    "Slot",
    "SolvedGraph",
    "SolvedNode",
    "Source",
    "SourceError",
    "Space",
    "SpaceOf",
    "StaleLoad",
    "Step",
    "Table",
    "Tensor",
    "TensorOrigin",
    "Thermal",
    "TowerCard",
    "Traced",
    "Tracer",
    "TrainsParts",
    "TypeOf",
    "Unfinished",
    "Video",
    "Warns",
    "Weights",
    "WholeCard",
    "archives",
    "array_of",
    "as_array",
    "as_tensor",
    "begin_to_send",
    "bound_function",
    "cache_in_use",
    "cache_root",
    "choices",
    "choose",
    "clear_leftovers",
    "complaint_of_note",
    "component",
    "contained",
    "current_listener",
    "damaged",
    "defect_of",
    "digest_of",
    "driving",
    "dynamic_axes",
    "eight_bits",
    "families",
    "folder_aside",
    "generate",
    "give_back_file",
    "give_back_files",
    "give_back_freed",
    "giving_back",
    "home_read",
    "hookimpl",
    "in_numpy",
    "in_torch",
    "in_turn",
    "is_driven",
    "kept",
    "let_go",
    "load_code",
    "load_driven",
    "load_module",
    "locked",
    "loop_of",
    "make_inputs",
    "mappings_change",
    "nearest",
    "note_memory",
    "on_host",
    "on_white",
    "open_backend",
    "open_file",
    "open_named",
    "option",
    "own",
    "owner_of",
    "parameters_without_memory",
    "parity_of",
    "picked",
    "placed",
    "port",
    "refuse_without_room",
    "resample",
    "resolve",
    "said",
    "seals",
    "seeded",
    "sha256_of",
    "signature_of",
    "stamp_of",
    "starts_new",
    "table_in",
    "table_of",
    "weights",
    "wired_inputs",
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
