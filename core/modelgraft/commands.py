"""The face for authors of commands: what a plugin's command of the command line may import beside the two other faces.

A command reads its data, tells how far it is and answers in the same words as those that come with modelgraft.
Importing this page imports nothing else; each name is imported on first use.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in typing, which `import modelgraft` does not need

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from typing import Any

    from modelgraft.cli.answering import Answering as Answering
    from modelgraft.cli.given import GivenInputs as GivenInputs
    from modelgraft.cli.live import watching as watching
    from modelgraft.cli.mapping import data_named as data_named
    from modelgraft.cli.mapping import map_rows as map_rows
    from modelgraft.cli.options import Allow as Allow
    from modelgraft.cli.options import AsJson as AsJson
    from modelgraft.cli.options import GraphName as GraphName
    from modelgraft.cli.options import SetOptions as SetOptions
    from modelgraft.cli.options import Wanted as Wanted
    from modelgraft.cli.options import as_usage as as_usage
    from modelgraft.cli.options import count as count
    from modelgraft.cli.options import out_file as out_file
    from modelgraft.cli.options import pairs as pairs
    from modelgraft.cli.options import settings_of as settings_of
    from modelgraft.cli.options import whole_number as whole_number
    from modelgraft.cli.options import with_opening as with_opening
    from modelgraft.cli.overwriting import refuse_for_graph as refuse_for_graph
    from modelgraft.cli.overwriting import refuse_to_replace as refuse_to_replace
    from modelgraft.cli.pacing import Pace as Pace
    from modelgraft.cli.pacing import counting as counting
    from modelgraft.cli.running import opened as opened
    from modelgraft.cli.running import quiet_libraries as quiet_libraries
    from modelgraft.cli.screen import Screen as Screen
    from modelgraft.cli.session import CliSession as CliSession
    from modelgraft.cli.session import session_of as session_of
    from modelgraft.data.datasets import DataRow as DataRow
    from modelgraft.data.datasets import Dataset as Dataset
    from modelgraft.data.datasets import open_dataset as open_dataset
    from modelgraft.data.jobs import job_of as job_of
    from modelgraft.data.shards import Shard as Shard
    from modelgraft.data.shards import work_files as work_files
    from modelgraft.data.shards import writing as writing
    from modelgraft.engine.choosing import unready as unready
    from modelgraft.engine.demand import most_demanding as most_demanding
    from modelgraft.engine.fusing import fuse as fuse
    from modelgraft.engine.fusing import segments_of as segments_of
    from modelgraft.engine.learning import Learning as Learning
    from modelgraft.engine.learning import ReadBatch as ReadBatch
    from modelgraft.engine.learning import plan_for as plan_for
    from modelgraft.engine.needs import forecasts as forecasts
    from modelgraft.engine.opening import USUAL_OPENING as USUAL_OPENING
    from modelgraft.engine.opening import Opening as Opening
    from modelgraft.engine.opening import Placing as Placing
    from modelgraft.engine.opening import given_in as given_in
    from modelgraft.kernel.language.document import NODE_KEYS as NODE_KEYS
    from modelgraft.kernel.language.document import SECTIONS as SECTIONS
    from modelgraft.kernel.language.document import described as described
    from modelgraft.kernel.language.document import read_items as read_items
    from modelgraft.kernel.language.overlay import value_of_words as value_of_words
    from modelgraft.kernel.language.shipped_graphs import shipped_graphs as shipped_graphs
    from modelgraft.kernel.language.yaml_reader import Item as Item
    from modelgraft.kernel.shelf.registry import Registry as Registry
    from modelgraft.kernel.words.errors import Collector as Collector
    from modelgraft.kernel.words.errors import DocumentError as DocumentError
    from modelgraft.kernel.words.errors import Place as Place
    from modelgraft.kernel.words.graph import GRAPH_PREFIX as GRAPH_PREFIX
    from modelgraft.kernel.words.graph import GraphInput as GraphInput
    from modelgraft.kernel.words.kinds import Component as Component
    from modelgraft.kernel.words.plan import Plan as Plan
    from modelgraft.records.amounts import in_bytes as in_bytes
    from modelgraft.records.amounts import in_seconds as in_seconds
    from modelgraft.records.amounts import short_count as short_count
    from modelgraft.records.batch import Batch as Batch
    from modelgraft.records.digests import size_bytes as size_bytes
    from modelgraft.records.json_text import json_text as json_text
    from modelgraft.records.publishing import clear_asides as clear_asides
    from modelgraft.records.publishing import discard as discard
    from modelgraft.records.publishing import file_aside as file_aside
    from modelgraft.records.readers import at_command_line as at_command_line
    from modelgraft.records.readers import for_command as for_command
    from modelgraft.records.record_type import types_of as types_of
    from modelgraft.records.showing import plain as plain
    from modelgraft.records.values import read_input as read_input
    from modelgraft.records.writing import check_writable as check_writable
    from modelgraft.records.writing import write_value as write_value
    from modelgraft.sources.storage import folder_aside as folder_aside
    from modelgraft.sources.storage import lock_folder as lock_folder
    from modelgraft.tools.draw.styles import page_colours as page_colours
    from modelgraft.tools.draw.styles import text_width as text_width
    from modelgraft.tools.given_nodes import with_given as with_given
    from modelgraft.tools.judging import judging as judging
    from modelgraft.tools.setting_files import entries_of as entries_of
    from modelgraft.tools.setting_files import path_from_here as path_from_here
    from modelgraft.tools.setting_files import seen_from_here as seen_from_here
    from modelgraft.tools.setting_files import written_out as written_out
    from modelgraft.tools.swapping.names import node_named as node_named
    from modelgraft.tools.training import Resolved as Resolved
    from modelgraft.tools.training import Stage as Stage
    from modelgraft.tools.training import Training as Training
    from modelgraft.tools.training import Tuning as Tuning
    from modelgraft.tools.training import given_over as given_over
    from modelgraft.tools.training import read_training as read_training
    from modelgraft.tools.training import resolve_stage as resolve_stage
    from modelgraft.tools.training.stage_features import keepable as keepable
    from modelgraft.tools.training.stage_files import data_beside as data_beside
    from modelgraft.tools.training.stage_metrics import Measured as Measured
    from modelgraft.tools.training.stage_words import STAGE_KEYS as STAGE_KEYS

_HOMES = {
    "data_beside": "tools.training.stage_files",
    "STAGE_KEYS": "tools.training.stage_words",
    "entries_of": "tools.setting_files",
    "folder_aside": "sources.storage",
    "path_from_here": "tools.setting_files",
    "resolve_stage": "tools.training",
    "read_training": "tools.training",
    "given_over": "tools.training",
    "Tuning": "tools.training",
    "Training": "tools.training",
    "Stage": "tools.training",
    "Resolved": "tools.training",
    "ReadBatch": "engine.learning",
    "plan_for": "engine.learning",
    "Learning": "engine.learning",
    "Measured": "tools.training.stage_metrics",
    "Allow": "cli.options",
    "Answering": "cli.answering",
    "AsJson": "cli.options",
    "CliSession": "cli.session",
    "Batch": "records.batch",
    "Collector": "kernel.words.errors",
    "Component": "kernel.words.kinds",
    "DataRow": "data.datasets",
    "Dataset": "data.datasets",
    "DocumentError": "kernel.words.errors",
    "GRAPH_PREFIX": "kernel.words.graph",
    "GivenInputs": "cli.given",
    "GraphInput": "kernel.words.graph",
    "GraphName": "cli.options",
    "Item": "kernel.language.yaml_reader",
    "NODE_KEYS": "kernel.language.document",
    "Opening": "engine.opening",
    "Pace": "cli.pacing",
    "Place": "kernel.words.errors",
    "Placing": "engine.opening",
    "Plan": "kernel.words.plan",
    "Registry": "kernel.shelf.registry",
    "SECTIONS": "kernel.language.document",
    "Screen": "cli.screen",
    "SetOptions": "cli.options",
    "Shard": "data.shards",
    "USUAL_OPENING": "engine.opening",
    "Wanted": "cli.options",
    "at_command_line": "records.readers",
    "as_usage": "cli.options",
    "check_writable": "records.writing",
    "clear_asides": "records.publishing",
    "count": "cli.options",
    "counting": "cli.pacing",
    "data_named": "cli.mapping",
    "described": "kernel.language.document",
    "discard": "records.publishing",
    "file_aside": "records.publishing",
    "for_command": "records.readers",
    "forecasts": "engine.needs",
    "fuse": "engine.fusing",
    "given_in": "engine.opening",
    "in_bytes": "records.amounts",
    "in_seconds": "records.amounts",
    "job_of": "data.jobs",
    "keepable": "tools.training.stage_features",
    "json_text": "records.json_text",
    "judging": "tools.judging",
    "lock_folder": "sources.storage",
    "map_rows": "cli.mapping",
    "most_demanding": "engine.demand",
    "node_named": "tools.swapping.names",
    "open_dataset": "data.datasets",
    "opened": "cli.running",
    "out_file": "cli.options",
    "page_colours": "tools.draw.styles",
    "pairs": "cli.options",
    "plain": "records.showing",
    "quiet_libraries": "cli.running",
    "read_input": "records.values",
    "read_items": "kernel.language.document",
    "refuse_for_graph": "cli.overwriting",
    "refuse_to_replace": "cli.overwriting",
    "seen_from_here": "tools.setting_files",
    "segments_of": "engine.fusing",
    "session_of": "cli.session",
    "settings_of": "cli.options",
    "short_count": "records.amounts",
    "shipped_graphs": "kernel.language.shipped_graphs",
    "size_bytes": "records.digests",
    "text_width": "tools.draw.styles",
    "types_of": "records.record_type",
    "unready": "engine.choosing",
    "value_of_words": "kernel.language.overlay",
    "watching": "cli.live",
    "whole_number": "cli.options",
    "with_given": "tools.given_nodes",
    "with_opening": "cli.options",
    "work_files": "data.shards",
    "write_value": "records.writing",
    "writing": "data.shards",
    "written_out": "tools.setting_files",
}

__all__ = [*_HOMES]  # noqa: PLE0604 the keys are names


def __getattr__(name: str) -> Any:  # Any: the type is that of the name asked for
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'modelgraft.commands' has no attribute '{name}'")
    value = getattr(import_module(f"modelgraft.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(_HOMES)
