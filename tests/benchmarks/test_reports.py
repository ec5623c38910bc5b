"""What a run of the tables leaves behind."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import bench, machine, measuring, reports, tables
from benchmarks.measuring import Ratio, Spread
from benchmarks.tables import Table
from support.processors import PLAIN, tell

ROWS = [
    {"way": "one | two", "s": Spread(0.012345, 0.01, 1234.5), "ratio": Ratio(1.5, 1.2, 1.8, 1.4, 1.6, 9, "slower")},
    {"way": "three", "why": "it is not here"},
]
TABLE = Table("ways", "Ways", "What they cost.", {"way": "way", "s": "seconds", "ratio": "times"}, lambda asked: ROWS, 2.0)


def report(rows: object = None, **more: object) -> dict[str, object]:
    """As it is once it was written and read."""
    here = machine.Machine("2026-01-02", "A (R) Chip @ 2 GHz", ["avx2"], 2, 8.0, "Linux 1", {"python": "3.11"}, "abc", 0.5)
    table = {"name": "ways", "title": "Ways", "says": "What.", "columns": dict(TABLE.columns), "rows": rows or ROWS, "why": ""}
    whole = {
        "version": 1, "machine": asdict(here), "method": "m", "is_quick": False, "minutes": 1.0,
        "tables": [{**table, "minutes": 1.0, "load": 1.0}],
    }  # fmt: skip
    return json.loads(json.dumps({**whole, **more}, default=asdict))


def test_a_page_has_figures_with_their_spread_and_says_why_a_row_has_none() -> None:
    page = reports.page_of(report())
    assert "| way | seconds | times | not measured, because |" in page
    assert "| one \\| two | 0.0123 (0.01-1,234) | 1.50 [1.40, 1.60] |  |" in page
    assert "| three |  |  | it is not here |" in page


def test_the_summary_keeps_processors_with_and_without_products_of_bytes_apart(tmp_path: Path) -> None:
    reports.write(report(), "2026-01-02-a-chip-no-vnni", folder=tmp_path)
    reports.write(report(), "2026-01-03-b-chip-vnni", folder=tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    with_them, without = text.split("## Processors without")
    assert "2026-01-03-b-chip-vnni.md" in with_them
    assert "2026-01-02-a-chip-no-vnni.md" in without


@pytest.mark.parametrize(("features", "kind"), [(["avx512_vnni"], "vnni"), (["avx2", "avx512f"], "no-vnni"), ([], "no-vnni")])
def test_the_name_of_a_machine_says_whether_it_multiplies_bytes(features: list[str], kind: str) -> None:
    here = machine.Machine("2026-01-02", "Intel(R) Xeon(R) CPU E5 @ 2.20GHz", features, 2, 8.0, "Linux 1", {}, "", 0.5)
    assert here.slug == f"intel-xeon-e5-{kind}"


def test_processors_of_one_name_and_of_two_designs_have_pages_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine names many of them the same."""
    for family, model in ((23, 49), (25, 1)):
        tell(monkeypatch, tmp_path, f"cpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\n{PLAIN}")
        here = machine.this_machine()
        assert here.processor == f"AMD EPYC (family {family}, model {model})"
        assert here.slug == f"amd-epyc-family-{family}-model-{model}-no-vnni"


def test_every_page_is_what_its_json_says() -> None:
    """No figure of a page was written by hand, and the summary lists them all."""
    found = reports.reports_in(reports.HERE)
    for stem, run in found.items():
        assert (reports.HERE / f"{stem}.md").read_text(encoding="utf-8") == reports.page_of(run)
    assert (reports.HERE / reports.SUMMARY).read_text(encoding="utf-8") == reports.summary_of(reports.HERE)


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_a_page_that_is_written_by_hand_holds_no_measured_time(page: str) -> None:
    """Times, rates and what is how many times another stand in `results/`, where a page is what its JSON says; the rest links to it."""
    text = re.sub(r"```.*?```|`[^`]*`", "", (measuring.ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not re.findall(r"(?<![\w.-])\d[\d.,]* ?(?:ms|µs|us|s|GB/s|GFLOP/s)\b|\d times (?:as|faster|slower)", text)
    assert "results/README.md" in text


def test_every_table_is_one_of_those_that_bench_runs() -> None:
    """By its module's name, with a heading for each column; their minutes fit the whole."""
    for name in (*bench.TABLES, *bench.BY_HAND):
        table = bench.table_of(name)
        assert table.name == name
        assert table.columns
    assert sum(bench.table_of(name).minutes for name in bench.TABLES) <= bench.MINUTES
    assert sum(bench.shares(bench.TABLES, 10.0).values()) == pytest.approx(10.0)


def test_a_run_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished tables are kept on the same commit; one that failed is tried again."""
    asked: list[str] = []

    def measured(table: Table, minutes: float, *, is_quick: bool) -> dict[str, object]:
        asked.append(table.name)
        why = "broken" if table.name == "growth" and asked.count("growth") == 1 else ""
        return {**report()["tables"][0], "name": table.name, "why": why}  # type: ignore[index]

    def stopped(*args: object, **named: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "measured", measured)
    with monkeypatch.context() as patch:
        patch.setattr(reports, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            bench.run(["waiting", "growth"], 1.0, is_quick=True, again=False, folder=tmp_path)
    page = bench.run(["waiting", "growth"], 1.0, is_quick=True, again=False, folder=tmp_path)
    assert asked == ["waiting", "growth", "growth"]
    assert page.is_file()
    assert not list(tmp_path.glob(".*.part.json"))


def test_tables_that_a_page_has_stay_in_it_with_the_commit_that_they_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that is measured again takes the place of the former one; all stand in the order of the tables, not of the runs."""
    here = machine.this_machine()

    def run(commit: str, *names: str) -> Path:
        monkeypatch.setattr(machine, "this_machine", lambda: replace(here, commit=commit))
        made = {**report()["tables"][0], "why": ""}  # type: ignore[index]
        monkeypatch.setattr(
            bench, "measured", lambda table, minutes, *, is_quick: {**made, "name": table.name, "title": f"{table.name} {commit}"}
        )
        return bench.run(names, 1.0, is_quick=False, again=False, folder=tmp_path)

    run("abc", "waiting", "mapping")
    text = run("def", "growth", "mapping").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["waiting abc", "growth def", "mapping def"]
    assert re.findall(r"Of commit (\w+)\..*benchmarks\.(\w+)`", text) == [("abc", "waiting")]


def test_a_table_of_parts_goes_on_between_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each part is asked for once; the rows stand in their order, and what the parts exported is gone at the end."""
    asked: list[Sequence[str]] = []

    def measured(table: Table, minutes: float, *, is_quick: bool, more: Sequence[str] = ()) -> dict[str, object]:
        asked.append(more[:-1])
        Path(more[-1]).mkdir(exist_ok=True)
        if len(asked) == 2:
            raise KeyboardInterrupt
        row = {"program": more[1], "weights": minutes}
        return {**report()["tables"][0], "name": table.name, "rows": [row], "why": "", "minutes": 2.0, "load": 1.0}  # type: ignore[index]

    parts = bench.table_of("rivals").parts
    monkeypatch.setattr(bench, "measured", measured)
    with pytest.raises(KeyboardInterrupt):
        bench.run(["rivals"], 6.0, is_quick=True, again=False, folder=tmp_path)
    page = bench.run(["rivals"], 6.0, is_quick=True, again=False, folder=tmp_path)
    assert asked == [(*part, "--kept") for part in (parts[0], *parts[1:2], *parts[1:])]
    (found,) = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["tables"]
    assert found["rows"] == [{"program": part[1], "weights": 6.0 / len(parts)} for part in parts]
    assert found["minutes"] == 2.0 * len(parts)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_rows_go_through_a_process_and_come_back() -> None:
    """As `python -m benchmarks.waiting --json` prints them."""
    table = bench.measured(bench.table_of("waiting"), 0.1, is_quick=True)
    assert not table["why"]
    rows = table["rows"]
    assert rows
    assert all(set(row) <= set(table["columns"]) and row["wall_ms"]["low"] <= row["wall_ms"]["high"] for row in rows)


def test_a_table_that_breaks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench.measured(Table("no_such_module", "", "", {}, lambda asked: [], 1.0), 0.1, is_quick=True)
    assert "No module named benchmarks.no_such_module" in found["why"]
    assert not found["rows"]


def test_rounds_end_with_the_time_but_not_before_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring.gc, "collect", lambda: 0)  # before each sample, through all that other tests have left
    calls = {"a": 0, "b": 0}

    def counting(name: str):
        def run() -> dict[str, float]:
            calls[name] += 1
            return {"wall": 1.0}

        return run

    measuring.interleave({name: counting(name) for name in calls}, 50, warm=1, seconds=0.0, least=4)
    assert calls == {"a": 5, "b": 5}


def test_a_figure_has_three_digits_that_count() -> None:
    assert [tables.shown(value) for value in (0.00123456, 1.23456, 12.3456, 1234.56, 7, None, "x")] == [
        "0.00123", "1.23", "12.3", "1,235", "7", "", "x",
    ]  # fmt: skip
