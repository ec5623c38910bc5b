"""Write a memory of vectors for projector/memory: `python -m modelgraft_plugins.projectors.vector_file READ.jsonl COLUMN --out FILE`.

READ.jsonl  lines with `caption`, `read`, its vector, and another vector in COLUMN, as `modelgraft map grafted/kinds captions.jsonl` writes
            them: what is near `read` recalls the other, at the length 1. Lines without it, whose COLUMN is 0, recall `read`
--lift N    what is added to the cosine of names whose `state` is not `trained`, as in `memory_file`
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modelgraft_plugins.projectors.read_lines import read_lines, save, told


def write(read: Path, column: str, out: Path, *, lift: float) -> int:
    """Write the memory in float16 and give how many vectors it holds. Raises InputError where READ.jsonl has none."""
    import torch

    lines = {line["caption"]: line for line in read_lines(read, ["read", column])}
    keys, values = (torch.tensor([line[name][0] for line in lines.values()]) for name in ("read", column))
    values = torch.where(values.any(-1, keepdim=True), values, keys)
    priors = torch.tensor([0.0 if line.get("state", "trained") == "trained" else lift for line in lines.values()])
    unit = torch.nn.functional.normalize
    floats = {"keys": unit(keys, dim=-1), "rows": unit(values, dim=-1), "priors": priors}
    save({**{name: one.to(torch.float16) for name, one in floats.items()}, "places": torch.arange(len(lines))[:, None]}, out)
    return len(lines)


def main() -> None:
    """Write a memory, as the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("read", type=Path)
    parser.add_argument("column")
    parser.add_argument("--lift", type=float, default=0.0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    told(lambda: f"{write(given.read, given.column, given.out, lift=given.lift):,} vectors; wrote {given.out}")


if __name__ == "__main__":
    main()
