"""What of a graph a chat talks to: the input that takes words, those that take files, where the conversation goes in, and what answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelgraft.data.cells import record_kind
from modelgraft.data.naming import is_file
from modelgraft.kernel.words.errors import InputError, choices
from modelgraft.kernel.words.graph import GraphInput, Node, Ref, SolvedGraph
from modelgraft.kernel.words.ports import ListOf, Modality, Port, Tensor

if TYPE_CHECKING:
    from modelgraft.records.record_type import Types

WRITER = "llm"  # the kind of what writes texts piece by piece
ALONE, BESIDE, WHOLE = (
    "alone",
    "beside",
    "whole",
)  # how a conversation is taken: not at all, in an input of its own, or in that of the words


@dataclass(frozen=True, slots=True)
class Doors:
    """The inputs and outputs of a graph that a chat uses; "" where there is none.

        words    the input of what is typed;  history  that of the conversation
        taking   how the conversation goes in: see WRITER = "llm"  # the kind of what writes texts piece by piece
    ALONE, BESIDE, WHOLE
        files    the inputs that take files, and the record type of each;  lists  those of them that take several
        text     the output that is the answer;  talk  that of a conversation that the answer stands in;  media  the outputs that are files
        writers  the nodes whose pieces of text make the answer
    """

    words: str
    history: str
    taking: str
    files: Mapping[str, str]
    lists: frozenset[str]
    text: str
    talk: str
    media: Mapping[str, str]
    writers: frozenset[str]


def doors_of(solved: SolvedGraph, types: Types, *, fixed: Collection[str] = ()) -> Doors:
    """Find the doors of a graph.

    fixed  inputs that have a value for the whole chat

    Raises InputError for a graph that takes neither words nor files, or answers with neither.
    """
    inputs = {name: item for name, item in solved.inputs.items() if name not in fixed}
    history = next((name for name, item in inputs.items() if _is_talk(item.port, types)), "")
    texts = [name for name, item in inputs.items() if _is_words(item.port, types)]
    words = next((name for name in texts if not inputs[name].has_default), next(iter(texts), ""))
    files = {name: kind for name, item in inputs.items() if (kind := _file_of(item.port, types))}
    lists = frozenset(name for name in files if isinstance(record_kind(inputs[name].port), ListOf))
    taking = BESIDE if history and (words or files) else WHOLE if history else ALONE
    outputs = {name: port for name, ref in solved.outputs.items() if (port := solved.port_of(ref)) is not None}
    text = next((name for name, port in outputs.items() if _is_words(port, types)), "")
    talk = next((name for name, port in outputs.items() if _is_talk(port, types)), "")
    media = {name: kind for name, port in outputs.items() if (kind := _file_of(port, types))}
    if not (words or files or history):
        raise InputError(f"{solved.name} takes neither words nor files to talk about; it takes: {choices(solved.inputs, sort=False)}")
    if not (text or talk or media):
        raise InputError(f"{solved.name} answers with neither words nor files; it gives: {choices(solved.outputs, sort=False)}")
    return Doors(words, history, taking, files, lists, text, talk, media, _writers(solved, text or talk))


def with_history(solved: SolvedGraph, doors: Doors, types: Types) -> tuple[SolvedGraph, Doors]:
    """The graph with its words taken as a conversation, where each language model that reads them takes one and reads no other text."""
    readers = _readers(solved, doors.words) if doors.words and doors.taking == ALONE else []
    talk = next((name for name, kind in types.items() if kind.is_talk), "")
    if not talk or not readers or not all(_reads_talk(node, doors.words, types) for node in readers):
        return solved, doors
    item = solved.inputs[doors.words]
    port = Port((Modality(talk),), optional=item.port.optional)
    taken = replace(solved, inputs={**solved.inputs, doors.words: replace(item, port=port)})
    return taken, replace(doors, history=doors.words, taking=WHOLE)


def _readers(solved: SolvedGraph, name: str) -> list[Node]:
    """The nodes that an input of the graph is wired to."""
    return [node for node in solved.nodes.values() if any(_is_input(ref, name) for ref in node.references)]


def _reads_talk(node: Node, name: str, types: Types) -> bool:
    """Whether a node declares that it takes the input as a conversation too, and all else that it is given is numbers."""
    declared = node.config.ports().inputs
    for port, refs in node.wired.items():
        if any(_is_input(ref, name) for ref in refs):
            if port not in declared or not _is_talk(declared[port], types):
                return False
        elif not isinstance(node.in_ports[port].type, Tensor):
            return False
    return True


def _is_input(ref: Ref, name: str) -> bool:
    return ref.is_input and ref.port == name


def _writers(solved: SolvedGraph, output: str) -> frozenset[str]:
    """The nodes whose text an output is: behind it, past routers and other code, the nearest that write piece by piece.

    One that writes for another, as a recogniser does whose words a language model reads, is none of them.
    """
    ref = solved.outputs.get(output)
    found = _behind(solved, [] if ref is None or ref.is_input else [ref.node])
    for name in list(found):
        found -= _behind(solved, [*solved.nodes[name].feeders])
    return frozenset(found)


def _behind(solved: SolvedGraph, names: Iterable[str]) -> set[str]:
    """The nodes that write, among these and what feeds them, as far as none of them stands before another."""
    found, seen, waiting = set[str](), set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in solved.nodes:
            continue
        seen.add(name)
        node = solved.nodes[name]
        if node.component.loop is not None or node.component.kind == WRITER:
            found.add(name)
        else:
            waiting += node.feeders
    return found


def _modalities(port: Port) -> Iterator[str]:
    for kind in port.types:
        item = kind.item if isinstance(kind, ListOf) else kind
        if isinstance(item, Modality):
            yield item.name


def _is_words(port: Port, types: Types) -> bool:
    return any(isinstance(kind, Modality) and types[kind.name].is_text for kind in port.types)


def _is_talk(port: Port, types: Types) -> bool:
    return any(isinstance(kind, Modality) and types[kind.name].is_talk for kind in port.types)


def _file_of(port: Port, types: Types) -> str:
    """The record type of a port whose records are files; "" for any other."""
    return next((name for name in _modalities(port) if is_file(Modality(name), types)), "")


def takes_file(item: GraphInput, file: str, types: Types) -> bool:
    """Whether an input takes a file, by the ending of its name."""
    return any(file.lower().endswith(ending) for name in _modalities(item.port) for ending in types[name].reads)
