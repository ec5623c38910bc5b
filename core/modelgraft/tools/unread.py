"""What a graph leaves unread of the checkpoints that it takes apart: a tower that no node uses, a tensor that lies beside all parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from modelgraft.kernel.words.graph import Node, SolvedGraph
from modelgraft.kernel.words.source import Source

BESIDE = ("tokenizer", "preprocess")  # kinds that read files beside the weights
AROUND = ("model", "module")  # steps of a key that say nothing of what the tensor is for


def unread_parts(graph: SolvedGraph) -> Mapping[str, Mapping[str, int]]:
    """By source: the parts whose tensors no node reads, and how many tensors each has.

    Only sources of which nodes use several parts: one that gives a single part was never meant to be used whole. A
    checkpoint that does not say its keys without being read is left out.
    """
    views: dict[tuple[object, ...], list[Source]] = {}
    for view in _read(graph.nodes.values()):
        views.setdefault(tuple(view.weight_files), []).append(view)
    found: dict[str, Mapping[str, int]] = {}
    for files, parts in views.items():
        if not files or len({view.part for view in parts}) < 2:
            continue
        whole = parts[0].at("")
        used = {key for view in parts for key in view.keys.values()}
        left = Counter(_part_of(key) for key in whole.keys.values() if key not in used)
        if left:
            found[whole.whole] = dict(sorted(left.items()))
    return found


def _read(nodes: Iterable[Node]) -> Iterator[Source]:
    """The sources whose tensors the nodes, and what is grafted into them, read."""
    for node in nodes:
        if node.source is not None and node.component.function is None and node.component.kind not in BESIDE:
            yield node.source
        yield from (adapter.source for adapter in node.adapters if adapter.source is not None)


def _part_of(key: str) -> str:
    steps = key.split(".")
    return steps[1] if steps[0] in AROUND and len(steps) > 2 else steps[0]


def told(parts: Mapping[str, int]) -> str:
    """The parts as one text: "text_model (148 tensors), logit_scale"."""
    return ", ".join(part if count == 1 else f"{part} ({count} tensors)" for part, count in parts.items())
