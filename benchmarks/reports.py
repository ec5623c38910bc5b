"""The files of `results/`: what a run found as JSON, a page of it, and the summary that lists the pages by processor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables

VERSION = 1  # of the layout of the JSON
HERE = Path(__file__).resolve().parent / "results"
SUMMARY = "README.md"
METHOD = (
    "Alternatives take turns within a round, in an order that turns round; a ratio is taken within each round. A figure is the median of "
    "the rounds with its lowest and highest tenth (round brackets). A ratio is given with the 95 % interval of its median, by bootstrap "
    "over rounds [square brackets], where there were at least six, and with its tenths otherwise. Threads wait without spinning, nothing "
    "comes from the network, and caches are those of the run alone."
)
Report = Mapping[
    str, Any
]  # as JSON has it: {"version", "machine", "method", "tables": [{"name", "title", "says", "columns", "rows", ...}]}


def write(report: Report, stem: str, *, folder: Path = HERE) -> Path:
    """Write a run as `stem`.json and `stem`.md, and the summary anew; gives the page."""
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / f"{stem}.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    page = folder / f"{stem}.md"
    _replace(page, page_of(report))
    _replace(folder / SUMMARY, summary_of(folder))
    return page


def of_page(folder: Path, stem: str, *, is_quick: bool, but: Sequence[str]) -> list[dict[str, Any]]:
    """The tables that a page of this stem has, but for these names, each with its commit; none where there is no such page."""
    file = folder / f"{stem}.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if found.get("version") != VERSION or found["is_quick"] is not is_quick:
        return []
    return [{"commit": found["machine"]["commit"], **table} for table in found["tables"] if table["name"] not in but]


def _replace(path: Path, text: str) -> None:
    """A reader sees the old file or the new one."""
    aside = path.with_suffix(f"{path.suffix}.part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def page_of(report: Report) -> str:
    """The page of a run."""
    machine = report["machine"]
    trial = "; a trial with --quick, whose figures say nothing" if report["is_quick"] else ""
    features = ", ".join(machine["features"]) or "no known features"
    lines = [
        f"# {machine['processor']}, {machine['date']}",
        "",
        f"Written by `make bench` from the JSON beside it{trial}.",
        "",
        f"- {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; {features}",
        f"- {', '.join(f'{name} {version}' for name, version in machine['versions'].items())}; commit {machine['commit'] or 'unknown'}",
        f"- load before: {machine['load_before']:.1f}; {report['minutes']:.1f} minutes in all",
        f"- {report['method']}",
    ]
    for table in report["tables"]:
        lines += ["", f"## {table['title']}", "", table["says"], "", *_table(table), "", _under(table, machine["commit"])]
    return "\n".join(lines) + "\n"


def _under(table: Mapping[str, Any], commit: str) -> str:
    if table.get("why"):
        return f"This table failed: {table['why']}"
    own = table.get("commit", commit)
    of = "" if own == commit else f"Of commit {own}. "
    return (
        f"{of}{table['minutes']:.1f} minutes; load over the last of them {table['load']:.1f}. Alone: `python -m benchmarks.{table['name']}`"
    )


def _table(table: Mapping[str, Any]) -> list[str]:
    """As markdown: the first column to the left, what follows to the right."""
    rows = table["rows"]
    if not rows:
        return ["(no rows)"]
    heads = tables.headings(table["columns"], rows)
    lines = [_line(heads), "|" + "|".join(["---", *(["---:"] * (len(heads) - 1))]) + "|"]
    return [*lines, *(_line(cells) for cells in tables.cells(table["columns"], rows))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


def reports_in(folder: Path) -> dict[str, Report]:
    """The runs of a folder by the stem of their files, the newest first."""
    paths = sorted(folder.glob("[0-9]*.json"), reverse=True)
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def summary_of(folder: Path) -> str:
    """The page that lists the runs by processor, those that multiply 8-bit numbers and those that do not apart."""
    found = reports_in(folder)
    lines = [
        "# Results",
        "",
        "What `make bench` wrote, by processor. Figures of one page were taken in one run; those of two pages may not be compared but by",
        "their ratios. Every page is written from the JSON beside it. [history.md](history.md) holds what was measured by hand before.",
    ]
    kinds = {True: "Processors with products of 8-bit numbers (VNNI or the like)", False: "Processors without"}
    for has, heading in kinds.items():
        runs = {stem: run for stem, run in found.items() if stem.endswith("-no-vnni") is not has}
        lines += ["", f"## {heading}", "", *(_listed(runs) if runs else ["None yet: `make bench` on such a machine adds its page."])]
    return "\n".join(lines) + "\n"


def _listed(runs: Mapping[str, Report]) -> list[str]:
    lines = ["| run | processor | cores | commit | tables |", "|---|---|---:|---|---|"]
    for stem, run in runs.items():
        machine = run["machine"]
        names = ", ".join(table["name"] for table in run["tables"] if table["rows"])
        cells = (
            f"[{machine['date']}]({stem}.md) ([JSON]({stem}.json))",
            machine["processor"],
            str(machine["cores"]),
            machine["commit"],
            names,
        )
        lines.append(_line(cells))
    return lines
