"""One evaluation: a graph, a suite and data become predictions, and predictions a report. What is made lies in one folder:

predictions.jsonl  a row for each record: what the report needs of it, and what the graph answered or why it did not
run.json           what was run, with which settings
report.json        the scores
rows.jsonl         the rows of the report, where the suite has some
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modelgraft as mg
from modelgraft.commands import Opening, check_writable, json_text, refuse_for_graph, write_value
from modelgraft.plugin import InputError, SolvedGraph
from modelgraft_plugins.evaluating import reporting
from modelgraft_plugins.evaluating.fitting import Fit, fit_both
from modelgraft_plugins.evaluating.running import Again, Runs, read_answers
from modelgraft_plugins.evaluating.suites import Answer, Suite

if TYPE_CHECKING:
    from modelgraft.commands import CliSession

PREDICTIONS = "predictions"
RUN, REPORT, ROWS = "run.json", "report.json", "rows.jsonl"
WRITTEN = (RUN, REPORT, ROWS, "submission.tsv", "submission.xlsx")  # beside the predictions; none may replace what is read
Make = Callable[[SolvedGraph | None, Mapping[str, Any]], Suite]  # Any: settings as plain values


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a user asks for, before any of it was looked at.

    inputs, outputs  names of the graph by names of the suite
    params           what is set of the graph
    limit            the first groups of records alone
    """

    suite: str
    graph: str
    data: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    limit: int | None = None
    batch_size: int = 8
    opening: Opening
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A run of a suite.

    make  makes the suite for a graph: of what the user set, and of settings that were recorded (then there is no graph)
    """

    session: CliSession
    wanted: Wanted
    make: Make

    def run(self, out: Path | None, *, as_json: bool, is_report_only: bool = False) -> int:
        """Evaluate, say the report, and give the exit code: 1 when records failed."""
        with _folder(out, self.session) as folder:
            suite, facts, answers, again = self._recorded(folder) if is_report_only else self._fresh(folder)
            if not answers:
                where = f"the predictions in '{folder}'" if is_report_only else f"the data '{self.wanted.data}'"
                raise InputError(f"{where} hold no record: there is nothing to report")
            runs = replace(self._runs(folder, is_report_only=is_report_only), same=again)
            answers = list(suite.settle(answers, runs))
            report = suite.report(answers)
            files = suite.submit(answers, folder, note=self.session.screen.note)
            found = reporting.document(facts, report, answers)
            write_value(found, folder / REPORT)
            if report.rows:
                write_value("\n".join(map(json_text, report.rows)), folder / ROWS)
        if as_json:
            kept = {"out": str(out) if out is not None else None, "files": [str(file) for file in files] if out is not None else []}
            self.session.screen.document({"ok": not found["failed"], **found, **kept})
        else:
            reporting.say(self.session, report, answers, told_before=not is_report_only)
            if out is not None:
                self.session.screen.note(f"wrote {out}: {', '.join(sorted(file.name for file in out.iterdir()))}")
        return 1 if found["failed"] else 0

    def _fresh(self, folder: Path) -> tuple[Suite, dict[str, Any], list[Answer], Again]:
        """Run the graph over the data, or what is left of them."""
        wanted, session = self.wanted, self.session
        solved = mg.check(session.load(wanted.graph, wanted.params, wanted.allow), offline=session.offline)
        suite = self.make(solved, {})
        if params := suite.params(solved):
            solved = mg.check(session.load(wanted.graph, {**params, **wanted.params}, wanted.allow), offline=session.offline)
        how, more = fit_both(solved, suite.ports(), suite.more_ports(), inputs=wanted.inputs, outputs=wanted.outputs)
        data = suite.open(wanted.data, note=session.screen.note)
        for name in WRITTEN:
            refuse_for_graph(folder / name, solved, dict.fromkeys(data.files, "the data"))
            check_writable(folder / name)
        for one in (how, more):
            if one.told:
                session.screen.note(one.told)
        facts = {**self._facts(suite, solved, how, data.digest), **({"more_outputs": dict(more.outputs)} if more.outputs else {})}
        runs = self._runs(folder, is_report_only=False)
        suite.prepare(runs)
        meaning = [wanted.suite, suite.version, suite.asking()]
        answers = runs.over(PREDICTIONS, solved, how, data, meaning=meaning, limit=wanted.limit)
        write_value(facts, folder / RUN)
        return suite, facts, answers, Again(solved, more)

    def _facts(self, suite: Suite, solved: SolvedGraph, how: Fit, digest: str) -> dict[str, Any]:
        wanted = self.wanted
        return {
            "suite": wanted.suite,
            "suite_version": suite.version,
            "graph": solved.name,
            "graph_source": wanted.graph,
            "params": dict(wanted.params),
            "settings": suite.settings.model_dump(mode="json"),
            "inputs": dict(how.inputs),
            "outputs": dict(how.outputs),
            "data": {"name": wanted.data, "digest": digest},
            "limit": wanted.limit,
            "seed": wanted.opening.seed,
        }

    def _recorded(self, folder: Path) -> tuple[Suite, dict[str, Any], list[Answer], Again]:
        """The predictions that are there, under the settings that were recorded with them."""
        whole, part = folder / f"{PREDICTIONS}.jsonl", folder / f"{PREDICTIONS}.jsonl.part"
        if part.exists() and not whole.exists():
            raise InputError(
                f"the predictions in '{folder}' are not finished: the same with --resume in place of --report-only finishes them"
            )
        try:
            facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
            of_suite, settings, outputs, more = (
                facts["suite"],
                dict(facts["settings"]),
                dict(facts["outputs"]),
                facts.get("more_outputs", {}),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"'{folder / 'run.json'}' does not say what was run: {error}; run the suite without --report-only") from error
        if of_suite != self.wanted.suite:
            raise InputError(f"'{folder}' holds predictions of the suite '{of_suite}', not of '{self.wanted.suite}'; name its folder")
        if self.wanted.graph not in (facts.get("graph"), facts.get("graph_source")):
            raise InputError(f"'{folder}' holds predictions of the graph '{facts.get('graph_source')}', not of '{self.wanted.graph}'")
        again = Again(None, Fit({}, more))
        return self.make(None, settings), facts, read_answers(whole, outputs), again

    def _runs(self, folder: Path, *, is_report_only: bool) -> Runs:
        wanted = self.wanted
        return Runs(
            session=self.session,
            folder=folder,
            opening=wanted.opening,
            batch_size=wanted.batch_size,
            is_resumed=wanted.is_resumed,
            is_report_only=is_report_only,
        )


@contextmanager
def _folder(out: Path | None, session: CliSession) -> Iterator[Path]:
    """Where files lie while a suite runs: the folder that was named, or one that goes with the command."""
    if out is None:
        with _passing_folder(session) as folder:
            yield folder
        return
    fresh = [one for one in (out, *out.parents) if not one.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output '{out}' is no folder that can be made: {error.strerror}") from error
    try:
        yield out
    finally:
        for folder in fresh:  # of what could not begin nothing is left
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def _passing_folder(session: CliSession) -> Iterator[Path]:
    """A folder that goes with the command, unless it is stopped after it has got answers: they may have taken hours."""
    folder = Path(tempfile.mkdtemp(prefix="modelgraft-eval-"))

    def clear() -> None:
        if not _has_answers(folder):
            shutil.rmtree(folder, ignore_errors=True)

    session.interrupts.clear.append(clear)  # while models load, a process is left on the spot
    try:
        yield folder
    except BaseException:
        clear()
        if folder.exists():
            session.screen.note(f"what was answered lies in {folder}: --out {folder} --resume goes on after it")
        raise
    finally:
        session.interrupts.clear.remove(clear)
    shutil.rmtree(folder, ignore_errors=True)
    session.screen.note("predictions and report are not kept; --out DIR keeps them, and --resume goes on after a stop")


def _has_answers(folder: Path) -> bool:
    """Whether a row of predictions lies there; what they are made of is none."""
    return any(part.stat().st_size for pattern in ("*.jsonl", "*.jsonl.part") for part in folder.glob(pattern))
