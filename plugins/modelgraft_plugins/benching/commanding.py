"""The line for a shell that measures one cell alone."""

from __future__ import annotations

from collections.abc import Iterator

from modelgraft_plugins.benching.cells import WantedCell
from modelgraft_plugins.benching.results import Method
from modelgraft_plugins.benching.sweeps import PLACING, Sweep
from modelgraft_plugins.benching.words import shell_quoted, word_of

USUAL = Method()


def command_for(cell: WantedCell, sweep: Sweep) -> str:
    """`modelgraft bench GRAPH --set ... --backend ...`, with the data, metrics and options of the sweep."""
    words = ["modelgraft", "bench", cell.graph]
    for key, value in cell.settings.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else word_of(value)}"]
    for name in PLACING:
        value = getattr(cell, name)
        if value not in (None, 1 if name == "batch" else None):
            words += [f"--{name}", str(value)]
    words += _of_the_whole(sweep)
    return " ".join(map(shell_quoted, words))


def _of_the_whole(sweep: Sweep) -> Iterator[str]:
    """What holds for every cell: data, metrics, outputs and options."""
    if sweep.records is not None:
        yield from ("--records", sweep.records)
    for name, value in sweep.inputs:
        yield from ("--input", f"{name}={value}")
    for option, values in (("--metric", sweep.metrics), ("--output", sweep.outputs or ()), ("--allow", sweep.allow)):
        for value in values:
            yield from (option, value)
    for name, value in sweep.options.items():
        if value is not None:
            yield from (f"--{name.replace('_', '-')}", str(value))
    if sweep.method.seed != USUAL.seed:
        yield from ("--seed", str(sweep.method.seed))
