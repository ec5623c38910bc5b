"""Does `find` know kinds of things? Of 20 queries, how many of the five nearest drawings fit (precision@5)?

    python -m benchmarks.kinds emoji/128 --seen FILE [--seen FILE] [--vendors fluent-emoji,fxemoji] [--json]

The folder is what `modelgraft drawings emoji` made, each FILE what `modelgraft map grafted/see` wrote of its `test.jsonl` and
`held_out.jsonl`. A drawing fits a query if one of the query's words is among its keywords in CLDR, and its group is the one that is named,
where one is. No query is the text of a name or keyword. `find` knows the keywords of each name, but has to see what a drawing shows. Its
figures stand beside:

    any   the share of all drawings that fit: what drawings taken at random have
    head  what the head makes of a drawing, without what the names near it recall
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.drawings import HEAD, SPLITS, kept_vectors, lines_of
from benchmarks.measuring import print_table

COUNT = 5
MEMORY = "preset:drawings-kinds"


@dataclass(frozen=True, slots=True)
class Kind:
    """What fits: one of these keywords, in this group; no keywords or no group: any."""

    keywords: frozenset[str] = frozenset()
    group: str = ""

    def fits(self, line: Mapping[str, Any]) -> bool:  # Any: a line of JSON
        """Whether a drawing is of this kind."""
        return (not self.keywords or not self.keywords.isdisjoint(line["keywords"])) and self.group in {"", line["group"]}


def _kind(words: str = "", group: str = "") -> Kind:
    return Kind(frozenset(words.split()), group)


FACES, NATURE, PLACES, THINGS, PEOPLE = "smileys & emotion", "animals & nature", "travel & places", "objects", "people & body"
VEHICLES = (
    "vehicle car automobile bus truck train tram railway boat ship bicycle bike motorcycle aeroplane plane airplane helicopter scooter"
)
QUERIES: Mapping[str, Kind] = {
    "a happy face": _kind("happy smile smiling grin grinning laugh joy", FACES),
    "somebody who feels sad": _kind("sad cry crying tear unhappy", FACES),
    "an angry look": _kind("angry anger mad", FACES),
    "some kind of animal": _kind("animal"),
    "a creature with feathers": _kind("bird ornithology"),
    "creepy crawlies": _kind("insect bug spider worm", NATURE),
    "what lives in the sea": _kind("fish ocean sea whale dolphin shark", NATURE),
    "a vehicle to travel in": _kind(VEHICLES, PLACES),
    "a thing to eat": _kind(group="food & drink"),
    "fruits": _kind("fruit", "food & drink"),
    "something sweet for dessert": _kind("dessert sweet", "food & drink"),
    "something to drink": _kind("drink", "food & drink"),
    "instruments of an orchestra": _kind("instrument", THINGS),
    "something to wear": _kind("clothing clothes shoe hat", THINGS),
    "what a craftsman works with": _kind("tool", THINGS),
    "a house or another building": _kind("building", PLACES),
    "how the weather is": _kind("weather rain snow cloud sun", PLACES),
    "a blossom or a plant": _kind("plant flower tree", NATURE),
    "people doing sports": _kind("sport", PEOPLE),
    "the banner of a country": _kind("flag", "flags"),
}


def looked(seen: Tensor) -> dict[str, Tensor]:
    """What the graph of `find` makes of what the eye gave: float[drawings 384], of the head, and with what the names near it recall."""
    import modelgraft as mg

    shipped, graph = mg.load("grafted/embed").nodes, mg.Graph("head")
    given = {name: {key: value.value for key, value in shipped[name].config.items()} for name in ("look", "recall", "picture")}
    look = graph.node("projector/mlp", source=HEAD, config=given["look"], x=graph.input("seen", "float[batch 1280]"))
    recall = graph.node("projector/memory", source=MEMORY, config=given["recall"], x=look)
    kinds = graph.node("embedding/mean", x=recall)
    picture = graph.node("embedding/combine", config=given["picture"], look=look, kinds=kinds)
    graph.output("head", look)
    graph.output("find", picture["unit"])
    with mg.open(graph) as opened:
        return dict(opened.run(seen=seen))


def rows(lines: Sequence[Mapping[str, Any]], ways: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """A row for each query. ways: float[drawings 384], of `lines`, by what made them."""
    import torch

    import modelgraft as mg

    with mg.open("grafted/read") as reader:
        words = torch.stack([result["read"].flatten() for result in reader.map([{"caption": query} for query in QUERIES])])
    unit = torch.nn.functional.normalize
    nearest = {way: (unit(words, dim=-1) @ unit(one, dim=-1).mT).topk(COUNT).indices.tolist() for way, one in ways.items()}
    found = []
    for place, (query, kind) in enumerate(QUERIES.items()):
        fits = {way: sum(kind.fits(lines[index]) for index in hits[place]) / COUNT for way, hits in nearest.items()}
        names = ", ".join(lines[index]["caption"] for index in nearest["find"][place])
        found.append({"query": query, "any": sum(map(kind.fits, lines)) / len(lines), **fits, "what find finds": names})
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seen", type=Path, action="append", required=True)
    parser.add_argument("--vendors", default="fluent-emoji,fxemoji")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    import torch

    kept = dict(kept_vectors(given.seen))
    vendors = given.vendors.split(",")
    lines = [line for split in SPLITS for vendor in vendors for line in lines_of(given.folder / f"{split}.{vendor}.jsonl")]
    ways = looked(torch.tensor([kept[line["vendor"], line["concept"]] for line in lines]))
    found = rows(lines, ways)
    means = {name: sum(row[name] for row in found) / len(found) for name in ("any", *ways)}
    found.append({"query": f"mean of {len(QUERIES)}", **means, "what find finds": ""})
    found = [{key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()} for row in found]
    if given.json:
        print("\n".join(map(json.dumps, found)))
    else:
        print_table(list(found[0]), [[str(value) for value in row.values()] for row in found])


if __name__ == "__main__":
    main()
