"""Run the project's own tables, and write them to `results/`.

    python -m benchmarks.bench [--minutes 18] [--tables growth,mapping] [--quick] [--again] [--out FOLDER]

Each table runs in a process of its own, in the surroundings of `measuring.environment`. What is finished is kept beside the
results as it comes: a run that was stopped goes on where it was, on the same commit. `--again` begins anew. With
`--quick` everything is tried and nothing is measured, and the files go to `build/bench`. The environments of the peers are made
first, if they are not there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import machine, measuring, reports, tables
from benchmarks.tables import QUICK_MINUTES, Table, told

TABLES = ("orchestration", "waiting", "families", "backends", "growth", "mapping", "reuse", "startup", "rivals", "training")
BY_HAND = ("goals", "rivals_seeing")  # those that are run where they are asked for by name
SLACK_S = 600  # beyond its minutes, after which a table is ended: it hangs
MINUTES = 18.0  # of all tables together, on two quiet cores; exporting and building add about ten


def table_of(name: str) -> Table:
    """The table of a module."""
    found: Table = import_module(f"benchmarks.{name}").TABLE
    return found


def measured(table: Table, minutes: float, *, is_quick: bool, more: Sequence[str] = ()) -> dict[str, Any]:
    """Run a table, or the part of it that more words name, in a process of its own; gives it as the report has it."""
    start = time.monotonic()
    words = [sys.executable, "-m", f"benchmarks.{table.name}", "--json", "--minutes", f"{minutes:.3f}", *(["--quick"] if is_quick else [])]
    words += more
    rows: list[Any] = []
    why = ""
    with tables.scratch() as folder:
        try:
            done = subprocess.run(
                words, cwd=measuring.ROOT, env=measuring.environment(1, folder / "cache"), capture_output=True, text=True, check=False,
                timeout=minutes * 60 + SLACK_S,
            )  # fmt: skip
            rows, why = (json.loads(done.stdout), "") if not done.returncode else ([], _last(done.stderr))
        except subprocess.TimeoutExpired:
            why = f"it took more than {minutes + SLACK_S / 60:.0f} minutes"
        except json.JSONDecodeError as error:
            why = f"what it printed is not JSON: {error}"
    return {
        "name": table.name,
        "title": table.title,
        "says": table.says,
        "columns": dict(table.columns),
        "rows": rows,
        "why": why,
        "minutes": (time.monotonic() - start) / 60,
        "load": measuring.load(),
    }


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def shares(names: Sequence[str], minutes: float) -> dict[str, float]:
    """The minutes of each table: as it asks, made longer or shorter so that they are the whole."""
    asked = {name: table_of(name).minutes for name in names}
    whole = sum(asked.values())
    return {name: minutes * part / whole if whole else 0.0 for name, part in asked.items()}


class Kept:
    """The tables that a run has finished, on the disk: the same run started again begins after them."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = path, dict(settings)
        self.tables: dict[str, Any] = {}
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["settings"] == self.settings:
                self.tables = found["tables"]

    def keep(self, name: str, table: Mapping[str, Any]) -> None:
        """One that failed is not kept: it is tried again."""
        self.tables[name] = dict(table)
        done = {key: one for key, one in self.tables.items() if not one["why"]}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({"settings": self.settings, "tables": done}), encoding="utf-8")


def measured_in_parts(table: Table, minutes: float, kept: Kept, exports: Path, *, is_quick: bool) -> dict[str, Any]:
    """Run a table part by part, each kept when it is finished; gives it whole, or why a part has failed."""
    found = []
    for part in table.parts:
        key = " ".join((table.name, *part))
        if key not in kept.tables:
            words = (*part, "--kept", str(exports))
            kept.keep(key, measured(table, minutes / len(table.parts), is_quick=is_quick, more=words))
            told(f"  {key}")
        found.append(kept.tables[key])
    return {
        **found[-1],
        "rows": [row for one in found for row in one["rows"]],
        "why": next((one["why"] for one in found if one["why"]), ""),
        "minutes": sum(one["minutes"] for one in found),
        "load": max(one["load"] for one in found),
    }


def run(names: Sequence[str], minutes: float, *, is_quick: bool, again: bool, folder: Path) -> Path:
    """Measure all of them, and write the files; gives the page."""
    here, start = machine.this_machine(), time.monotonic()
    stem = f"{here.date}-{here.slug}"
    settings = {"commit": here.commit, "minutes": minutes, "is_quick": is_quick, "versions": dict(here.versions)}
    aside, exports = folder / f".{here.slug}.part.json", folder / f".{here.slug}.exports"
    if again:
        aside.unlink(missing_ok=True)
        shutil.rmtree(exports, ignore_errors=True)
    kept, found = Kept(aside, settings), []
    for number, (name, share) in enumerate(shares(names, minutes).items(), 1):
        line = f"{number} of {len(names)}: {name}, about {share:.1f} minutes"
        if name in kept.tables:
            told(f"{line}: kept from before")
            found.append(kept.tables[name])
            continue
        told(f"{line} ...")
        table = table_of(name)
        if table.parts:
            one = measured_in_parts(table, share, kept, exports, is_quick=is_quick)
        else:
            one = measured(table, share, is_quick=is_quick)
        told(f"  {one['why'] or str(len(one['rows'])) + ' rows'}; {one['minutes']:.1f} minutes, load {one['load']:.1f}")
        kept.keep(name, one)
        found.append(one)
    found = in_order([*reports.of_page(folder, stem, is_quick=is_quick, but=names), *({**one, "commit": here.commit} for one in found)])
    report = {
        "version": reports.VERSION, "machine": asdict(here), "method": reports.METHOD, "is_quick": is_quick,
        "minutes": sum(one["minutes"] for one in found), "tables": found,
    }  # fmt: skip
    page = reports.write(report, stem, folder=folder)
    aside.unlink(missing_ok=True)
    shutil.rmtree(exports, ignore_errors=True)
    told(f"{page} in {(time.monotonic() - start) / 60:.1f} minutes")
    if failed := [one["name"] for one in found if one["why"] and one["name"] in names]:
        raise SystemExit(f"these tables failed, and the page says why: {', '.join(failed)}")
    return page


def in_order(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """As tables follow each other in a page, whenever they were measured."""
    places = (*TABLES, *BY_HAND)
    return sorted(found, key=lambda one: places.index(one["name"]) if one["name"] in places else len(places))


def _make_peers(names: Sequence[str]) -> None:
    """The environments of others that some tables want, and the weights of their programs, if they are not there yet."""
    from benchmarks.peers import environment, seeing_weights, weights

    if "orchestration" in names:
        environment.make()
    if {"rivals", "rivals_seeing"} & set(names):
        environment.make(environment.THEIRS)
    if "rivals" in names:
        weights.make_all()
    if "rivals_seeing" in names:
        seeing_weights.make_all()


def main() -> None:
    """Read the options, make the peers, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.0, help=f"of all tables together; {MINUTES:.0f} by default")
    parser.add_argument("--tables", default=",".join(TABLES), help="which of them, in which order")
    parser.add_argument("--quick", action="store_true", help="whether everything works; nothing is measured")
    parser.add_argument("--again", action="store_true", help="do not go on where a stopped run was")
    parser.add_argument("--out", type=Path, help="the folder of the results")
    options = parser.parse_args()
    names = options.tables.split(",")
    if unknown := sorted(set(names) - {*TABLES, *BY_HAND}):
        raise SystemExit(f"there are no tables {', '.join(unknown)}; there are: {', '.join((*TABLES, *BY_HAND))}")
    _make_peers(names)
    minutes = options.minutes or (QUICK_MINUTES * len(names) if options.quick else MINUTES)
    folder = options.out or (measuring.ROOT / "build" / "bench" if options.quick else reports.HERE)
    run(names, minutes, is_quick=options.quick, again=options.again, folder=folder)


if __name__ == "__main__":
    main()
