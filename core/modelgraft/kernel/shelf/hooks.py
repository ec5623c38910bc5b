"""The hooks that a plugin may implement, and nothing else. A plugin is a module named by an entry point `modelgraft`.

Plugins come in the order of precedence: those of modelgraft, then the others by the names of their distributions. A name that is
taken stays with who has it. Registering hooks must not import torch, read files or use the network. Observing hooks (`before_node`
and on) are called on the thread that runs the node; one that raises is a warning of the run, and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("modelgraft")
hookimpl = pluggy.HookimplMarker("modelgraft")


@hookspec
def register_components(register: Callable[[Any], None]) -> None:
    """Offer components: call `register(subject)` once for each function or Config class that `@component` decorated."""


@hookspec
def register_record_types(register: Callable[[Any], None]) -> None:
    """Offer media beside the built-in ones: call `register(kind)` with an object of a `modelgraft.plugin.RecordType` for each.

    What it says of itself is all that is known of the medium: how its records are read, told from others, written, shown and made up.
    """


@hookspec
def register_port_types(register: Callable[[str, str], None]) -> None:
    """Once offered a name without a reader: tells what is missing. Implement `register_record_types` instead."""


@hookspec
def register_recorded_configs(register: Callable[[str, Any], None]) -> None:
    """Offer configs of published checkpoints, so that graphs can be checked without them.

    Call `register(source, folder)`: `source` is a hub id, a `pypi:` reference without its hash or `preset:name`, and
    `folder` the path of a folder with its `config.json` and, where they matter, `preprocessor_config.json` and
    `tokenizer_config.json`. The folder of a preset may hold `model.safetensors`, others no weights.
    """


@hookspec
def register_weight_readers(register: Callable[[str, str], None]) -> None:
    """Offer readers of weight files: call `register(suffix, "package.module:function")`, e.g. for `.gguf`.

    `function(path, folder)` converts the file into the empty `folder` in Hugging Face layout (`config.json`,
    `model.safetensors`, tokenizer files); it is called once per file and the result is cached. It raises ValueError with
    what is wrong with the file. Its module is light to import, and may hold `peek(path)`, which gives the content of `config.json`
    without reading tensors; `blocks(path)`, which gives what reads the matrices that the file holds in blocks (see `conversions.py`);
    and `VERSION`, a number to raise when the reader gives other results than before.
    """


@hookspec
def register_backends(register: Callable[..., None]) -> None:
    """Offer backends: call `register(name, "package.module:Class")`; the class is a `modelgraft.plugin.Backend`.

    What else it says of itself is asked before any of its code is imported (`BackendCard` in kernel/words/backends.py):
    `precisions` and `devices` that it knows, others are refused by the check; `fuses=True`, so that connected exportable nodes on it
    become one node with `parts`, which it loads as one call; `exports=True` when it writes what it runs for others; with `heeds` the keys
    of `runtime` that it obeys beyond those that each does, such as "threads"; with `opens` the endings of files that parts compute with.
    """


@hookspec
def register_families(register: Callable[[Any], None]) -> None:
    """Offer cards of checkpoint families: call `register(card)` once for each `FamilyCard`.

    A card is data: what the files of a family leave out, its parts, how its towers are run, the graph that it becomes. See
    `modelgraft_plugins/families/README.md`.
    """


@hookspec
def register_keepers(register: Callable[[str, str], None]) -> None:
    """Tell of a kind of things that the plugin keeps on this machine: call `register(kind, "package.module:Class")`.

    The class is a `modelgraft.plugin.Keeper`, in a module that is light to import. `modelgraft cache` lists, proves and
    deletes what it keeps.
    """


@hookspec
def register_commands(app: Any) -> None:
    """Offer commands of the command line: add them to the typer app, which is the plugin's own.

    A command says its exit code by `raise typer.Exit(code)`.
    """


@hookspec
def before_node(node: str, component: str) -> None:
    """See that a node is about to run."""


@hookspec
def after_node(node: str, component: str, seconds: float, outputs: Mapping[str, Any]) -> None:
    """See what a node gave. The outputs are the values themselves: do not change them."""


@hookspec
def on_node_error(node: str, component: str, error: BaseException) -> None:
    """See that a node failed; the error is raised afterwards."""


@hookspec
def on_node_load(node: str, component: str, seconds: float) -> None:
    """See that the weights of a node were loaded."""


@hookspec
def on_event(event: Any) -> None:
    """See everything that happens during a run, as `Pipeline.stream` tells it: see `modelgraft.Event`. Be quick: the run waits."""
