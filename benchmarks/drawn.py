"""How often is what `draw` draws found by the words that were asked for, beside what it cannot be worse or better than?

    python -m benchmarks.drawn emoji/128 [--prompts 100] [--names 1000] [--hand noto] [--guidance 1] [--maker draw.safetensors]
                               [--seed 0] [--sheet a.png] [--json]

The folder is what `modelgraft drawings emoji` made. The head of retrieval (`grafted/embed`) judges: of so many names that were trained on,
drawn by the seed, the one that was asked for is to be the nearest (R@1) or among the five nearest (R@5). Prompts are such of these names as
the hand has drawn. Rows:

    draw             the graph with its trained weights
    real             the drawings of that hand themselves, brought to as many pixels: what the judge makes of the size
    any              one of these, drawn by the seed, whatever is asked for
    untrained        the graph with random numbers of the seed in place of the weights
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.drawings import Line, lines_of
from benchmarks.measuring import print_table

BATCH = 32
CELL, COLUMNS = 96, 12  # of a sheet: pixels of a picture, pictures in a row
UNTRAINED = {"nodes.flow.from": None}
Picture = Any  # Any: a picture of Pillow, which is imported where pictures are made


class Judge:
    """The head of retrieval, and the names among which it looks."""

    def __init__(self, names: Sequence[str], *, seed: int) -> None:
        import modelgraft as mg

        self.names = list(names)
        self.embed = mg.open("grafted/embed", seed=seed)
        self.keys = self._vectors([{"text": name} for name in names], "words")

    def ranks(self, pictures: Sequence[Picture], wanted: Sequence[str]) -> list[int]:
        """How many names lie nearer to each picture than the wanted one."""
        scores = self._vectors([{"image": picture} for picture in pictures], "look.y") @ self.keys.mT
        right = scores.gather(1, _column([self.names.index(name) for name in wanted]))
        return [int(count) for count in (scores > right).sum(dim=1)]

    def _vectors(self, records: Sequence[Mapping[str, Any]], output: str) -> Any:  # Any: a tensor
        import torch

        found = self.embed.map(records, batch_size=BATCH, outputs=[output])
        return torch.nn.functional.normalize(torch.stack([result[output].flatten() for result in found]), dim=-1)


def _column(numbers: Sequence[int]) -> Any:  # Any: a tensor
    import torch

    return torch.tensor(numbers)[:, None]


def drawn(prompts: Sequence[str], params: Mapping[str, Any], *, seed: int) -> list[Picture]:
    """What the graph draws of each prompt. The noise is the same for all of them, as the seed says."""
    import modelgraft as mg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mg.ModelgraftWarning)  # that weights are random is what is asked for
        with mg.open(mg.load("draw", params=params), seed=seed) as pipeline:
            return [result["image"] for result in pipeline.map([{"text": prompt} for prompt in prompts], batch_size=BATCH)]


def real(folder: Path, hand: str, *, side: int) -> dict[str, Picture]:
    """The drawings of a hand by their names, so many pixels a side."""
    from PIL import Image

    lines = [line for line in lines_of(folder / "train.jsonl") if line["vendor"] == hand]
    return {line["caption"]: Image.open(line["image"]).convert("RGB").resize((side, side), Image.Resampling.LANCZOS) for line in lines}


def sheet(pictures: Sequence[Picture]) -> Picture:
    """Pictures beside and below each other, enlarged."""
    from PIL import Image

    found = Image.new("RGB", (COLUMNS * CELL, -(-len(pictures) // COLUMNS) * CELL), "white")
    for index, picture in enumerate(pictures):
        found.paste(picture.resize((CELL, CELL), Image.Resampling.BICUBIC), (index % COLUMNS * CELL, index // COLUMNS * CELL))
    return found


def row(maker: str, ranks: Sequence[int]) -> dict[str, Any]:
    """The figures of a maker."""
    return {
        "maker": maker, "prompts": len(ranks),
        "R@1": sum(rank < 1 for rank in ranks) / len(ranks), "R@5": sum(rank < 5 for rank in ranks) / len(ranks),
    }  # fmt: skip


def rows(given: argparse.Namespace, names: Sequence[Line]) -> list[dict[str, Any]]:
    """All makers before the same judge."""
    chance = random.Random(given.seed)
    trained = chance.sample([line["caption"] for line in names if line["state"] == "trained"], given.names)
    params = {"hand": given.hand, "guidance": given.guidance} | ({"maker": given.maker} if given.maker else {})
    theirs = real(given.folder, given.hand, side=SIDE)
    prompts = [name for name in trained if name in theirs][: given.prompts]
    judge = Judge(trained, seed=given.seed)
    made = drawn(prompts, params, seed=given.seed)
    if given.sheet:
        sheet(made).save(given.sheet)
    makers = {
        "draw": made,
        "real": [theirs[name] for name in prompts],
        "any": [theirs[chance.choice(list(theirs))] for _ in prompts],
        "untrained": drawn(prompts, {**params, **UNTRAINED}, seed=given.seed),
    }
    return [row(maker, judge.ranks(pictures, prompts)) for maker, pictures in makers.items()]


SIDE = 32  # of what `draw` draws


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--names", type=int, default=1000)
    parser.add_argument("--hand", default="noto")
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--maker", default="", help="another file of grafted/draw_train's than that which ships")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, default=None, help="where the drawings are shown")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = rows(given, lines_of(given.folder / "captions.jsonl"))
    found = [{key: round(value, 3) if isinstance(value, float) else value for key, value in one.items()} for one in found]
    if given.json:
        print("\n".join(json.dumps(one) for one in found))
    else:
        print_table(list(found[0]), [[str(value) for value in one.values()] for one in found])


if __name__ == "__main__":
    main()
