"""MMBench's tables: tab-separated, a row for each question and rotation, pictures as base64 or as the index of the row that has one.

Columns are `index`, `question`, `image` and the options from `A` on; `hint`, `answer`, `category`, `l2-category`, `split`, `source` and
`comment` may be missing, as `answer` is where a server keeps it. The files of version 1.1 and the Chinese ones have the same form.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelgraft.plugin import InputError, choices, home_read

LETTERS = string.ascii_uppercase
NEEDED = ("index", "question", "image", "A", "B")
REFERENCE = 64  # letters: a shorter cell of `image` is the index of another row
MOST_TOLD = 5  # rows that an error lists
CELL = 1 << 28  # letters of a cell: a picture of 200 MB
# What stands for nothing in a cell, as pandas reads tables, with which the official files are written and read.
MISSING = frozenset(
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "n/a", "null"]
)
MISSING_ANYHOW = frozenset(["nan", "none"])  # whatever their capitals, as LLaVA's reader has it


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    place    such as "dev.tsv:12", the line on which it starts
    picture  base64, or the index of another row
    others   the columns that are neither options nor the picture; an empty cell is left out
    """

    index: int
    place: str
    question: str
    options: Mapping[str, str]
    picture: str
    others: Mapping[str, str]

    @property
    def answer(self) -> str:
        """The letter of the right option; "" where the table does not say it."""
        return self.others.get("answer", "")

    @property
    def picture_of(self) -> str:
        """The index of the row that has its picture; "" when it has one itself."""
        return self.picture if 0 < len(self.picture) <= REFERENCE else ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose form is sound: every index is there once, and each picture that is spoken of is there.

    options  how many each row has, by its index, in the order of the rows
    lent     the indices of rows whose pictures others use
    """

    path: Path
    digest: str
    options: Mapping[int, int]
    columns: tuple[str, ...]
    lent: frozenset[str]

    def read(self) -> Iterator[Row]:
        """The rows in their order, each with a picture of its own."""
        lent = {str(row.index): row.picture for row in read_rows(self.path) if str(row.index) in self.lent} if self.lent else {}
        for row in read_rows(self.path):
            if row.picture_of:
                row = Row(row.index, row.place, row.question, row.options, lent[row.picture_of], row.others)  # noqa: PLW2901
            yield row


def open_table(name: str) -> Table:
    """Look at a table. Raises InputError with the rows that are wrong, the first few in words."""
    path = home_read(name)
    columns = _columns(path)
    seen: dict[str, str] = {}
    options: dict[int, int] = {}
    lenders, problems, asked = set[str](), list[str](), dict[str, str]()
    for row in read_rows(path, problems):
        index = str(row.index)
        if index in seen:
            problems.append(f"{row.place}: the index {index} stands in {seen[index]} already")
        seen.setdefault(index, row.place)
        options[row.index] = len(row.options)
        problems += [f"{row.place}: {problem}" for problem in _wrong_with(row)]
        if row.picture_of:
            asked.setdefault(row.picture_of, row.place)
        elif row.picture:
            lenders.add(index)
    for index, place in asked.items():
        if index not in seen:
            problems.append(f"{place}: its picture is that of the row {index!r}, and there is no such row")
        elif index not in lenders:
            problems.append(f"{place}: its picture is that of the row {index}, and {seen[index]} has none of its own")
    if problems:
        more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        raise InputError(f"the data '{path}' cannot be used: {'; '.join(problems[:MOST_TOLD])}{more}")
    if not seen:
        raise InputError(f"the data '{path}' hold no question: there is a heading and nothing below it")
    return Table(path, hashlib.sha256(path.read_bytes()).hexdigest(), options, columns, frozenset(asked))


def _columns(path: Path) -> tuple[str, ...]:
    """The heading. Raises InputError for a file that cannot be read, and for one without the columns that are needed."""
    heading = next(_cells(path), (0, []))[1]
    lacking = [name for name in NEEDED if name not in heading]
    if lacking:
        found = choices(heading, sort=False) if heading and any(heading) else "nothing"
        wanted = "MMBench's tables are tab-separated, with the columns index, question, image, A, B, ..."
        raise InputError(f"the data '{path}' lack the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}; found: {found}. {wanted}")
    twice = [name for name in heading if heading.count(name) > 1]
    if twice:
        raise InputError(f"the data '{path}' have the column '{twice[0]}' twice")
    return tuple(heading)


def read_rows(path: Path, problems: list[str] | None = None) -> Iterator[Row]:
    """The rows as they stand. `problems` takes those that are none; without it they are left out."""
    cells = _cells(path)
    heading = next(cells)[1]
    for line, found in cells:
        place = f"{path.name}:{line}"
        if len(found) != len(heading):
            problem = f"{place}: this row has {len(found)} cells, and the heading {len(heading)}"
        elif not _is_whole_number(index := found[heading.index("index")]):
            problem = f"{place}: the index is {index!r}; wanted: a whole number"
        else:
            yield _row(place, dict(zip(heading, found, strict=True)))
            continue
        if problems is not None:
            problems.append(problem)


def _row(place: str, cells: dict[str, str]) -> Row:
    index = int(float(cells.pop("index")))
    picture, question = cells.pop("image"), cells.pop("question")
    there = {name: cell for name, cell in cells.items() if not is_missing(cell)}
    options = {letter: there[letter] for letter in LETTERS if letter in there}
    others = {name: cell for name, cell in there.items() if name not in LETTERS}
    return Row(index, place, question, options, "" if is_missing(picture) else picture.strip(), others)


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is nothing."""
    word = cell.strip()
    return word in MISSING or word.lower() in MISSING_ANYHOW


def _is_whole_number(cell: str) -> bool:
    """Whether a cell is one, also as a table of numbers with gaps writes it: 12.0."""
    whole, _, rest = cell.strip().partition(".")
    return whole.isascii() and whole.isdigit() and not rest.strip("0")


def _wrong_with(row: Row) -> Iterator[str]:
    if is_missing(row.question):
        yield "the question is empty"
    if not row.options:
        yield "there is no option"
    if row.answer and row.answer not in row.options:
        yield f"the answer is {row.answer!r}, and the options are {', '.join(row.options)}"


def picture_bytes(row: Row) -> bytes:
    """The file of the picture. Raises InputError for what is no base64, without the place of the row."""
    if not row.picture:
        raise InputError("it has no picture")
    try:
        return base64.b64decode(row.picture, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"its picture is no base64: {error}") from error


def _cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, with the line on which it starts."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            while True:
                line = reader.line_num + 1
                before = csv.field_size_limit(CELL)  # it holds for the whole process: pictures are larger than cells usually are
                try:
                    cells = next(reader, None)
                finally:
                    csv.field_size_limit(before)
                if cells is None:
                    return
                if cells:
                    yield line, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the data '{path}' cannot be read: {getattr(error, 'strerror', None) or error}") from error
