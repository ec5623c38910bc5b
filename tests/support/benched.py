"""Made results of a bench: figures that nobody measured, with everything that a page, a comparison or a choice may meet."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from modelgraft_plugins.benching.results import (
    VERSION,
    Cell,
    Data,
    Memory,
    Method,
    NodeCost,
    Quality,
    Ratio,
    Reason,
    RecordFailure,
    Results,
    Sample,
    Shares,
    Spread,
    Starts,
    Surroundings,
    Value,
)

EYES = ("clip_tiny", "vit_small", "efficientnet", "siglip", "dino", "mae")
BRIDGES = ("linear", "mlp", "qformer", "resampler")
TONGUES = ("smollm2", "gpt2", "opt", "qwen2", "llama", "pythia")
AXES: Mapping[str, Sequence[Value]] = {"eye": EYES, "bridge": BRIDGES, "tongue": TONGUES}
REST = ("inputs", "scheduler", "copies", "waiting", "outputs")
ROUNDS = 20
APART = Spread(value=0.021, low=-0.013, high=0.052, n=16)  # of a metric, from the baseline


def made_results(axes: Mapping[str, Sequence[Value]] = AXES, *, nodes: int = 5, pruned: int = 0, failed: int = 0, seed: int = 0) -> Results:
    """A finished bench of every combination of the axes: the last ones pruned, those before them failed, the rest measured."""
    chance = random.Random(seed)
    every = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    states = ["measured"] * (len(every) - pruned - failed) + ["failed"] * failed + ["pruned"] * pruned
    makers = {"measured": _measured, "failed": _failed, "pruned": _pruned}
    cells = [
        makers[state](_bare(index, values), axes, nodes, chance) for index, (values, state) in enumerate(zip(every, states, strict=True))
    ]
    first = next((cell for cell in cells if cell.state == "measured"), None)
    compared = [_compared(cell, first, chance) if first and cell.state == "measured" else cell for cell in cells]
    words = ["bench", "describe", *(part for axis, values in axes.items() for part in ("--sweep", f"{axis}={','.join(map(str, values))}"))]
    return Results(
        version=VERSION,
        command=["modelgraft", *words, "--records", "pictures.jsonl", "--metric", "word_f1"],
        surroundings=_surroundings(),
        method=Method(seed=seed, rounds=ROUNDS, warm_ups=3, cold=1, precision_target=0.03, stopped_by="precision target reached"),
        data=Data(
            name="pictures.jsonl", digest="b3:0a1b2c3d", records=16, failed=[RecordFailure(record=5, place="eye", text="no picture")]
        ),
        axes=axes,
        cells=compared,
        baseline=first.id if first else "",
        is_finished=True,
        warnings=["the load was 3.1 on 2 cores during the rounds"],
    )


def _bare(index: int, values: Mapping[str, Value]) -> Cell:
    command = "modelgraft bench describe " + " ".join(f"--set {axis}={value}" for axis, value in values.items())
    more = " --records pictures.jsonl --metric word_f1 --batch 1 --threads 2 --seed 0"
    key = f"{index:016x}"
    return Cell(id=f"c{index + 1}", key=key, values=values, command=command + more, state="unfinished", graph="describe", digest=key)


def _weight(value: Value, values: Sequence[Value]) -> float:
    return 1.7 ** values.index(value)


def _measured(cell: Cell, axes: Mapping[str, Sequence[Value]], nodes: int, chance: random.Random) -> Cell:
    size = math.prod(_weight(cell.values[axis], axes[axis]) for axis in axes) ** 0.7
    wall = 0.012 * size * chance.uniform(0.8, 1.3)
    samples = [
        Sample(
            round=index, records=1, wall_s=wall * chance.uniform(0.95, 1.1), cpu_s=1.8 * wall, first_token_s=wall / 3, per_token_s=wall / 30
        )
        for index in range(80)
    ]
    good = 1 - math.exp(-0.5 - 0.25 * math.log(size) - chance.uniform(0, 0.4))
    return replace(
        cell,
        state="measured",
        parameters=int(5e6 * size * chance.uniform(0.7, 1.4)),
        nodes=list(_nodes(nodes, size)),
        memory=Memory(planned=int(2e7 * size), measured=int(2.1e7 * size), resident=int(3e8 + 2.2e7 * size)),
        start=Starts(cold=Spread(value=4 + wall * 20), warm=Spread(value=2 + wall * 10)),
        samples=samples,
        wall_s=Spread(value=wall, low=wall * 0.97, high=wall * 1.04, n=80),
        cpu_s=Spread(value=wall * 1.8, n=80),
        p={"50": wall, "90": wall * 1.08},
        first_token_s=Spread(value=wall / 3, n=80),
        per_token_s=Spread(value=wall / 30, n=80),
        per_second=Spread(value=1 / wall, n=80),
        shares=_shares(nodes, wall, chance),
        edges={f"n{index}.y -> n{index + 1}.x": 4096 * (index + 1) for index in range(nodes - 1)},
        cached={"n0": 3},
        parity={"text": 0.0},
        agreement=round(chance.uniform(0.5, 1), 3),
        quality=[
            Quality(
                metric="word_f1",
                output="text",
                better="higher",
                value=good,
                low=good - 0.06,
                high=good + 0.06,
                difference=APART,
                n=16,
                clusters=12,
            ),
            Quality(
                metric="wer", output="text", better="lower", value=1.2 - good, low=1.1 - good, high=1.3 - good, n=16, unit="errors a word"
            ),
        ],
        untaken={"device": "no device with memory of its own"},
    )


def _nodes(count: int, size: float) -> Iterator[NodeCost]:
    for index in range(count):
        yield NodeCost(node=f"n{index}", component="projector/linear", backend="torch", parameters=int(1e5 * size), bytes=int(4e5 * size))


def _shares(count: int, wall: float, chance: random.Random) -> Shares:
    parts = {f"n{index}": chance.random() ** 3 for index in range(count)} | {name: chance.random() * 0.1 for name in REST}
    whole = sum(parts.values())
    spent = {name: part / whole * wall for name, part in parts.items()}
    return Shares(
        wall_s=math.fsum(spent.values()),
        nodes={name: time for name, time in spent.items() if name not in REST},
        rest={name: spent[name] for name in REST},
    )


def _failed(cell: Cell, axes: Mapping[str, Sequence[Value]], nodes: int, chance: random.Random) -> Cell:
    why = Reason(code="NodeError", text="tongue: CUDA is out of memory", place="tongue")
    return replace(cell, state="failed", reasons=[why], failures=[RecordFailure(record=3, place="eye", text="the picture is empty")])


def _pruned(cell: Cell, axes: Mapping[str, Sequence[Value]], nodes: int, chance: random.Random) -> Cell:
    widths = [64 * (values.index(cell.values[axis]) + 1) for axis, values in axes.items()][:2]
    text = f"eye gives d={widths[0]}, but bridge.x takes d={widths[-1]}"
    return replace(cell, state="pruned", reasons=[Reason(code="dim-mismatch", text=text, place="describe.yaml:14")])


def _compared(cell: Cell, first: Cell, chance: random.Random) -> Cell:
    assert cell.wall_s is not None
    assert first.wall_s is not None
    value = cell.wall_s.value / first.wall_s.value
    spread = Spread(value=value, low=value * 0.96, high=value * 1.05, n=ROUNDS)
    assert spread.low is not None
    assert spread.high is not None
    seen = "slower" if spread.low > 1 else "faster" if spread.high < 1 else "no difference seen"
    warning = "wall and CPU part" if chance.random() < 0.05 else ""
    is_first = cell is first
    return replace(
        cell,
        ratio=Ratio(
            wall=Spread(value=1.0, n=ROUNDS) if is_first else spread,
            cpu=Spread(value=1.0, n=ROUNDS) if is_first else replace(spread, value=value * 0.99),
            verdict="baseline" if is_first else seen,
            warning=warning,
        ),
    )


def _surroundings() -> Surroundings:
    return Surroundings(
        date="2026-11-28 23:45:00",
        versions={"modelgraft": "0.1.0", "python": "3.11.7", "torch": "2.14.0", "onnxruntime": "1.27.0"},
        processor="A made processor at 2.50 GHz",
        features=["avx2", "avx512_vnni"],
        cores=2,
        memory=16 << 30,
        system="Linux 6.1",
        variables={"OMP_NUM_THREADS": "2"},
        load_before=0.4,
        load_during=3.1,
    )
