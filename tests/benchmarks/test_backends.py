"""Cells of `modelgraft bench` become rows of a table."""

from __future__ import annotations

from benchmarks import backends, tables
from modelgraft_plugins.benching.results import Cell, Memory, Ratio, Reason, Spread


def plain(**found: object) -> dict[str, object]:
    """A cell as a file of results has it."""
    from pydantic import TypeAdapter

    values = {"backend": "onnx", "precision": "int8"}
    cell = Cell(id="c", key="k", values=values, command="", graph="vit", **found)  # type: ignore[arg-type]
    return TypeAdapter(Cell).dump_python(cell, mode="json")


def test_a_measured_cell_is_a_row_with_intervals() -> None:
    ratio = Ratio(wall=Spread(value=0.5, low=0.4, high=0.6, n=9), cpu=Spread(value=0.7), verdict="faster")
    found = backends.row("eye", plain(
        state="measured", wall_s=Spread(value=0.25, low=0.2, high=0.3, n=9), ratio=ratio, parity={"logits": 0.001}, agreement=0.5,
        memory=Memory(measured=3_000_000),
    ))  # fmt: skip
    told = ("case", "backend", "precision", "wall_ms", "wall", "cpu", "weights_mb", "parity", "agree")
    assert [tables.shown(found[name]) for name in told] == [
        "eye", "onnx", "int8", "250 [200, 300]", "0.5 [0.4, 0.6]", "0.7", "3.00", "0.001", "50%",
    ]  # fmt: skip


def test_a_cell_that_does_not_fit_is_a_row_with_its_reason() -> None:
    reason = Reason(code="wrong-option", text="llm: the torch backend has no precision 'int8'")
    found = backends.row("tongue", plain(state="pruned", reasons=(reason, reason)))
    assert found["why"] == "pruned: llm: the torch backend has no precision 'int8'"
