"""MMBench's tables: pictures lent from row to row, cells that say nothing, and what is wrong with a table, in a sentence with its row."""

from __future__ import annotations

import base64
import csv
import io

import pytest
from PIL import Image

from modelgraft.plugin import InputError
from modelgraft_plugins.evaluating.mmbench.reading import is_missing, open_table, picture_bytes
from modelgraft_plugins.evaluating.mmbench.suite import rotations
from support.mmbench_mini import ABILITIES, HEADING, MINI, QUESTIONS, rows

PICTURE = base64.b64encode(b"a picture that is long enough to be one, in bytes that nobody decodes").decode()
COLUMNS = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "l2-category", "split"]


def table(tmp_path, *lines, columns=COLUMNS, name="dev.tsv", **written):
    """A table of rows that are given as what differs from a plain one."""
    usual = {"index": 1, "question": "What?", "A": "a cat", "B": "a dog", "answer": "A", "category": "c", "image": PICTURE}
    path = tmp_path / name
    with path.open("w", newline="", encoding=written.get("encoding", "utf-8")) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([[{**usual, **line}.get(column, "") for column in columns] for line in lines])
    return path


def read(path):
    return list(open_table(str(path)).read())


def test_absent_options_are_those_that_say_nothing(tmp_path):
    """However that is written; an option may be missing in the middle, and be a number."""
    path = table(
        tmp_path, {"C": "nan", "D": "NaN"}, {"index": 2, "C": "None", "D": ""}, {"index": 3, "B": "", "C": "3", "hint": "nan", "A": "N/A!"}
    )
    found = read(path)
    assert [dict(row.options) for row in found] == [{"A": "a cat", "B": "a dog"}] * 2 + [{"A": "N/A!", "C": "3"}]
    assert "hint" not in found[2].others


def test_words_that_only_look_like_nothing_are_options():
    """A table is read as pandas reads it."""
    assert not any(map(is_missing, ("none of them", "Nancy", "0", "-", "NANA", "Null island")))
    assert all(map(is_missing, ("", " ", "nan", "NULL", "n/a", "<NA>", "None", "NONE")))


def test_a_picture_is_lent_by_index_whatever_the_order(tmp_path):
    """Also by a row that comes later."""
    path = table(tmp_path, {"index": 1_000_007, "image": "7"}, {"index": 7}, {"index": 2_000_007, "image": " 7 "})
    assert [picture_bytes(row) for row in read(path)] == [base64.b64decode(PICTURE)] * 3


def test_cells_may_hold_lines_and_quotes_and_large_pictures(tmp_path):
    """A place is the line on which a row starts, and the limit of other tables is as it was."""
    before = csv.field_size_limit()
    large = base64.b64encode(bytes(200_000)).decode()
    path = table(tmp_path, {"question": 'Two\nlines and a "quote"', "image": large}, {"index": 2})
    first, second = read(path)
    assert (first.question, first.place, second.place) == ('Two\nlines and a "quote"', "dev.tsv:2", "dev.tsv:4")
    assert len(picture_bytes(first)) == 200_000
    assert csv.field_size_limit() == before


def test_a_table_with_a_mark_of_its_encoding_and_numbers_with_points_is_read(tmp_path):
    """As spreadsheets write them."""
    assert [row.index for row in read(table(tmp_path, {"index": "12.0"}, encoding="utf-8-sig"))] == [12]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([{}, {"A": "b"}], "dev.tsv:3: the index 1 stands in dev.tsv:2 already"),
        ([{"index": "one"}], "dev.tsv:2: the index is 'one'; wanted: a whole number"),
        ([{"index": ""}], "dev.tsv:2: the index is ''"),
        ([{"image": "99"}], "dev.tsv:2: its picture is that of the row '99', and there is no such row"),
        (
            [{}, {"index": 2, "image": "1"}, {"index": 3, "image": "2"}],
            "dev.tsv:4: its picture is that of the row 2, and dev.tsv:3 has none",
        ),
        ([{"question": "nan"}], "dev.tsv:2: the question is empty"),
        ([{"A": "", "B": "", "answer": ""}], "dev.tsv:2: there is no option"),
        ([{"answer": "D"}], "dev.tsv:2: the answer is 'D', and the options are A, B"),
        ([{"index": f"x{number}"} for number in range(7)], "; and 2 more"),
        ([], "hold no question"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_with_its_rows(tmp_path, lines, told):
    """All of it at once, the first few in words, before anything runs."""
    with pytest.raises(InputError, match=r"dev\.tsv") as failure:
        open_table(str(table(tmp_path, *lines)))
    assert told in str(failure.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "lack the columns index, question, image, A, B; found: nothing"),
        (b"index,question\n1,what\n", "lack the columns index, question, image, A, B; found: index,question"),
        (b"index\tquestion\timage\tA\tB\tB\n", "have the column 'B' twice"),
        (b"index\tquestion\timage\tA\tB\n1\tWhat?\n", "dev.tsv:2: this row has 2 cells, and the heading 5"),
        (b"index\tquestion\timage\tA\tB\n1\t\xff\tx\ty\tz\n", "cannot be read"),
    ],
)
def test_a_file_that_is_no_such_table_is_told(tmp_path, content, told):
    """With what was found."""
    (tmp_path / "dev.tsv").write_bytes(content)
    with pytest.raises(InputError) as failure:
        open_table(str(tmp_path / "dev.tsv"))
    assert told in str(failure.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    """In a sentence."""
    with pytest.raises(InputError, match="cannot be read: No such file"):
        open_table(str(tmp_path / "none.tsv"))


@pytest.mark.parametrize(("picture", "told"), [("!" * 80, "^its picture is no base64"), ("", "^it has no picture")])
def test_a_picture_that_is_none_belongs_to_its_record(tmp_path, picture, told):
    """The table is sound without it."""
    (row,) = read(table(tmp_path, {"image": picture}))
    with pytest.raises(InputError, match=told):
        picture_bytes(row)


def test_rotations_are_those_of_the_official_tables(tmp_path):
    """Options k places to the left in the k-th, with the right letter; each once."""
    (row,) = read(table(tmp_path, {"index": 7, "A": "one", "B": "two", "C": "three", "answer": "A"}))
    found = list(rotations(row))
    assert [one.index for one in found] == [7, 1_000_007, 2_000_007]
    assert ["".join(option[0] + option[1] for option in one.options.values()) for one in found] == ["ontwth", "twthon", "thontw"]
    assert [one.answer for one in found] == ["A", "C", "B"]
    assert all(one.options[one.answer] == "one" for one in found)


# -- the table of the tests -----------------------------------------------------------------------------------------------


def test_the_small_table_is_what_its_script_makes():
    """But for the pictures, whose bytes depend on who writes them."""
    picture = HEADING.index("image")
    with MINI.open(encoding="utf-8", newline="") as file:
        written = list(csv.reader(file, delimiter="\t"))
    made = [HEADING, *rows(dict.fromkeys((question[0] for question in QUESTIONS), b"x" * 100))]
    assert [row[:picture] + row[picture + 1 :] for row in written] == [row[:picture] + row[picture + 1 :] for row in made]


def test_the_small_table_is_whole():
    """Small, of all six abilities, with hints, lent pictures, and a rotation for each option; the pictures are pictures."""
    found = read(MINI)
    assert MINI.stat().st_size < 600_000
    assert {row.others["l2-category"] for row in found} == set(ABILITIES.values())
    assert any("hint" in row.others for row in found)
    first = [row for row in found if row.index < 1_000_000]
    assert 40 <= len(first) == len(QUESTIONS)
    by_hand = {one.index: one for row in first for one in rotations(row)}
    assert {row.index: (row.options, row.answer) for row in found} == {index: (row.options, row.answer) for index, row in by_hand.items()}
    assert all(min(Image.open(io.BytesIO(picture_bytes(row))).size) > 90 for row in first)
