"""The file that MMBench's server takes: a row for each row of the data, with what the graph wrote; a workbook, and a table of text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelgraft.commands import write_value
from modelgraft_plugins.evaluating.mmbench.reading import LETTERS
from modelgraft_plugins.evaluating.suites import Answer, Note

NAME = "submission"
FIRST = ("index", "question")
KEPT = ("hint", "answer", "category", "l2-category", "split")  # what the toolkit leaves in the file as well
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")  # what a workbook cannot hold


def rows_of(answers: Sequence[Answer]) -> tuple[list[str], list[list[Any]]]:
    """The heading and the rows."""
    facts = [answer.facts for answer in answers]
    letters = [letter for letter in LETTERS if any(letter in one["options"] for one in facts)]
    kept = [name for name in KEPT if any(one.get(name) for one in facts)]
    return [*FIRST, *letters, *kept, "prediction"], [_row(answer, letters, kept) for answer in answers]


def _row(answer: Answer, letters: Sequence[str], kept: Sequence[str]) -> list[Any]:
    facts: Mapping[str, Any] = answer.facts
    options = [facts["options"].get(letter, "") for letter in letters]
    return [facts["index"], facts["question"], *options, *(facts.get(name, "") for name in kept), str(answer.outputs.get("answer", ""))]


def write(answers: Sequence[Answer], folder: Path, *, note: Note) -> list[Path]:
    """Write both files. Without openpyxl the workbook is left out, and that is said."""
    heading, rows = rows_of(answers)
    table = io.StringIO()
    csv.writer(table, delimiter="\t", lineterminator="\n").writerows([heading, *rows])
    text, workbook = folder / f"{NAME}.tsv", folder / f"{NAME}.xlsx"
    write_value(table.getvalue().removesuffix("\n"), text)
    try:
        import openpyxl
    except ImportError:
        note(f"{workbook.name} is not written: workbooks need openpyxl: pip install 'modelgraft[eval]'; {text.name} holds the same")
        return [text]
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("predictions")
    for row in [heading, *rows]:
        sheet.append([_cell(sheet, value) for value in row])
    whole = io.BytesIO()
    book.save(whole)
    write_value(whole.getvalue(), workbook)
    return [text, workbook]


def _cell(sheet: Any, value: Any) -> Any:  # Any: openpyxl has no types
    """A cell that holds a text as it is, also one that begins like a formula."""
    from openpyxl.cell import WriteOnlyCell

    if not isinstance(value, str):
        return value
    cell = WriteOnlyCell(sheet, value=_NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value))
    cell.data_type = "s"
    return cell
