"""How well does the graft name and find drawings of hands that it never saw, beside what needs no training?

    python -m benchmarks.drawings emoji/128 [--vendors fluent-emoji,fxemoji] [--captions 50] [--slow 20] [--seen FILE] [--also GRAPH]
                                            [--seed 0] [--json]

The folder is what `modelgraft drawings emoji` made. For each vendor that trains nothing, drawings of concepts that were trained on and of
the 200 that were not are counted apart:

    R@1, R@5         the right name is the nearest, or among the five nearest, of all names that were trained on, or of the 200
    of all           the same of all names together, trained on or not
    nearest          word F1 of the nearest of all names, without any language model
    glimpse          word F1 (metric/word_f1) of what `glimpse` writes, of as many drawings as --captions says, drawn by the seed; so are:
    nearest of these
    GRAPH            the same of a graph of one's own that makes `text` of `seen`, what the eye gave: asks for --seen
    most frequent    of the one name that most training drawings have
                     and, of as many of them as --slow says, because each takes seconds:
    labels           of `describe`: the guesses of the same eye about its 1,000 classes, made a sentence by the same language model
    untrained        of `glimpse` with a head of random numbers of the same seed
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.measuring import print_table

VENDORS = ("fluent-emoji", "fxemoji", "emojione-v1", "openmoji")
SPLITS = ("test", "held_out")
UNTRAINED = {"nodes.look.from": None, "nodes.look.with": {"over": "vector", "norm": True, "hidden_features": 1024, "out_features": 384}}
HEAD = "preset:drawings-look"
Line = Mapping[str, Any]  # Any: a line of JSON


def lines_of(path: Path) -> list[Line]:
    """The lines of a file of JSON lines, pictures named from anywhere."""
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{**line, "image": str(path.parent / line["image"])} if "image" in line else line for line in found]


def word_f1(said: Sequence[str], wanted: Sequence[str]) -> float:
    """The mean of `metric/word_f1`."""
    from modelgraft_plugins.metrics import WordF1
    from modelgraft_plugins.metrics.answers import word_f1 as load

    score = load(WordF1(), None)  # type: ignore[arg-type]  # it reads nothing of a context
    rows = score(list(said), [[one] for one in wanted])
    return sum(row[0] for row in rows) / len(rows)


def kept_vectors(files: Sequence[Path]) -> Iterator[tuple[tuple[str, str], list[float]]]:
    """What the eye gave of each drawing, by vendor and concept: lines of `modelgraft map grafted/see`."""
    for path in files:
        with path.open(encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                yield (line["vendor"], line["concept"]), line["seen"][0]


def share_below(ranks: Sequence[int], most: int) -> float:
    """How often the right name is among the nearest."""
    return sum(rank < most for rank in ranks) / len(ranks)


class Judge:
    """What is asked of every set of drawings, with everything opened once."""

    def __init__(self, folder: Path, *, captions: int, slow: int, seed: int, seen: Sequence[Path] = (), also: Sequence[str] = ()) -> None:
        import modelgraft as mg

        self.kept = dict(kept_vectors(seen))
        self.count, self.slow, self.seed = captions, min(slow, captions), seed
        self.names = lines_of(folder / "captions.jsonl")
        train = Counter(line["caption"] for line in lines_of(folder / "train.jsonl"))
        self.most_frequent = max(train, key=lambda name: (train[name], name))
        self.glimpse = mg.open("glimpse", seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mg.ModelgraftWarning)  # that the head is random is what is asked for
            self.untrained = mg.open(mg.load("glimpse", params=UNTRAINED), seed=seed)
        self.describe = mg.open("describe", seed=seed)
        self.also = {name: mg.open(name, seed=seed) for name in also}
        with mg.open("grafted/read") as reader:
            found = list(reader.map([{"caption": line["caption"]} for line in self.names], batch_size=64))
        self.read = [result["read"] for result in found]

    def row(self, lines: Sequence[Line], state: str) -> dict[str, Any]:
        """All figures of a set of drawings whose right names are those of `state`."""
        seen, wanted = self._seen(lines), [line["caption"] for line in lines]
        ranks = self._ranks(seen, wanted, [state])
        all_ranks, nearest = self._ranks(seen, wanted, None), self._nearest(seen, None)
        drawn = random.Random(self.seed).sample(range(len(lines)), min(self.count, len(lines)))
        some, right = [lines[index] for index in drawn], [wanted[index] for index in drawn]
        few, right_of_few = some[: self.slow], right[: self.slow]
        return {
            "drawings": len(lines),
            "R@1": share_below(ranks, 1),
            "R@5": share_below(ranks, 5),
            "R@1 of all": share_below(all_ranks, 1),
            "R@5 of all": share_below(all_ranks, 5),
            "nearest": word_f1(nearest, wanted),
            "captions": len(some),
            "glimpse": word_f1(self._say(self.glimpse, some), right),
            "nearest of these": word_f1([nearest[index] for index in drawn], right),
            **{name: word_f1(self._say_seen(graph, some), right) for name, graph in self.also.items()},
            "most frequent": word_f1([self.most_frequent] * len(some), right),
            "slow": len(few),
            "labels": word_f1(self._say(self.describe, few), right_of_few) if few else None,
            "untrained": word_f1(self._say(self.untrained, few), right_of_few) if few else None,
        }

    def _seen(self, lines: Sequence[Line]) -> Tensor:
        """float[drawings 384]: what the head makes of each."""
        import torch

        import modelgraft as mg

        if not self.kept:
            records = [{"image": line["image"]} for line in lines]
            return torch.stack([one["vector"].flatten() for one in self.glimpse.map(records, batch_size=32, outputs=["vector"])])
        graph = mg.Graph("head")
        look = graph.node("projector/mlp", source=HEAD, config={"over": "vector"}, x=graph.input("seen", "float[batch 1280]"))
        graph.output("vector", look)
        with mg.open(graph) as head:
            return head.run(seen=torch.tensor([self.kept[line["vendor"], line["concept"]] for line in lines]))["vector"]  # type: ignore[no-any-return]

    def _names(self, states: Sequence[str] | None) -> tuple[list[str], Tensor]:
        """The names of these states, None for all, and their vectors of length 1."""
        import torch

        kept = [index for index, line in enumerate(self.names) if states is None or line["state"] in states]
        keys = torch.stack([self.read[index].flatten() for index in kept])
        return [self.names[index]["caption"] for index in kept], torch.nn.functional.normalize(keys, dim=-1)

    def _ranks(self, seen: Tensor, wanted: Sequence[str], states: Sequence[str] | None) -> list[int]:
        """How many names of these states lie nearer to each drawing than its own."""
        import torch

        names, keys = self._names(states)
        scores = seen @ keys.mT
        own = scores.gather(1, torch.tensor([[names.index(name)] for name in wanted]))
        return (scores > own).sum(1).tolist()

    def _nearest(self, seen: Tensor, states: Sequence[str] | None) -> list[str]:
        """The name of these states that lies nearest to each drawing."""
        names, keys = self._names(states)
        return [names[index] for index in (seen @ keys.mT).argmax(1).tolist()]

    @staticmethod
    def _say(pipeline: Any, lines: Sequence[Line]) -> list[str]:  # Any: a Pipeline
        return [result["text"] for result in pipeline.map([{"image": line["image"]} for line in lines], batch_size=16, outputs=["text"])]

    def _say_seen(self, pipeline: Any, lines: Sequence[Line]) -> list[str]:  # Any: a Pipeline
        records = [{"seen": [self.kept[line["vendor"], line["concept"]]]} for line in lines]
        return [result["text"] for result in pipeline.map(records, batch_size=16, outputs=["text"])]


def rows(judge: Judge, folder: Path, vendors: Sequence[str]) -> Iterator[dict[str, Any]]:
    """A row for each vendor and split that has drawings."""
    for split in SPLITS:
        for vendor in vendors:
            lines = lines_of(folder / f"{split}.{vendor}.jsonl")
            yield {"vendor": vendor, "concepts": split, **judge.row(lines, "trained" if split == "test" else "held_out")}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vendors", default=",".join(VENDORS))
    parser.add_argument("--captions", type=int, default=50)
    parser.add_argument("--slow", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--seen", type=Path, action="append", default=[], help="what `map grafted/see` wrote of the same drawings: not seen again"
    )
    parser.add_argument("--also", metavar="GRAPH", action="append", default=[], help="another graph from `seen` to `text`")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.also and not given.seen:
        parser.error("--also takes what the eye gave from --seen: name the files that `modelgraft map grafted/see` wrote")
    found = []
    judge = Judge(given.folder, captions=given.captions, slow=given.slow, seed=given.seed, seen=given.seen, also=given.also)
    for row in rows(judge, given.folder, given.vendors.split(",")):
        found.append({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
        print(json.dumps(found[-1]), file=sys.stdout if given.json else sys.stderr, flush=True)
    if not given.json:
        print_table(list(found[0]), [[str(value) for value in row.values()] for row in found])


if __name__ == "__main__":
    main()
