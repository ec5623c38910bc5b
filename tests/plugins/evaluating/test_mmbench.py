"""`modelgraft eval mmbench`: from a table to scores and a submission, with graphs that know the answers and graphs that do not."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import openpyxl
import pytest

import modelgraft_plugins.evaluating as evaluating
from modelgraft.cli import main
from modelgraft.installed.discovery import assemble
from support import answering
from support.mmbench_mini import MINI, QUESTIONS

ROWS = sum(len(options) for _, _, _, options, _ in QUESTIONS)


@pytest.fixture
def quiz(monkeypatch, tmp_path, capsys):
    """Evaluate a graph of a style in an empty folder; gives the exit code, the document and stderr."""
    registry = assemble({"answering": answering, "evaluating": evaluating})
    monkeypatch.setattr("modelgraft.installed.discovery.discover", lambda only=None: registry)
    monkeypatch.chdir(tmp_path)
    Path("judge.yaml").write_text(answering.JUDGE)

    def run(style, *words, data=MINI):
        Path(f"{style}.yaml").write_text(answering.GRAPH.format(style=style))
        code = main(["eval", "mmbench", f"{style}.yaml", "--data", str(data), "--out", "found", "--json", *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, json.loads(out), err

    return run


def scores(found):
    """The scores by what they are of; the headline has no group."""
    return {(score["metric"], score["group"]): score["value"] for score in found["scores"]}


def lines(name):
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


@pytest.mark.parametrize("style", ["letter", "wording"])
def test_who_knows_the_answers_has_them_all_right(quiz, style):
    """By the letter or in words, under every rotation, in every ability."""
    code, found, _ = quiz(style)
    assert (code, found["records"], found["counts"]["questions"]) == (0, ROWS, len(QUESTIONS))
    assert set(scores(found).values()) == {1.0}
    assert {score["group"] for score in found["scores"] if score["group"].startswith("ability")} == {
        f"ability {name}" for name in ("attribute_reasoning", "coarse_perception", "finegrained_perception (cross-instance)",
                                       "finegrained_perception (instance-level)", "logic_reasoning", "relation_reasoning")
    }  # fmt: skip
    assert found["settings"] == {"prompt": "default", "mode": "generate", "judge": "", "copies": "file"}


def test_who_always_says_the_same_letter_gets_nothing(quiz):
    """And by vanilla accuracy what the first letter happens to get."""
    _, found, _ = quiz("first")
    firsts = sum(options[0].startswith("*") for _, _, _, options, _ in QUESTIONS)
    assert scores(found)["CircularEval accuracy", ""] == 0.0
    assert scores(found)["vanilla accuracy", ""] == pytest.approx(firsts / len(QUESTIONS))
    assert scores(found)["accuracy of all rows", ""] == pytest.approx(len(QUESTIONS) / ROWS)  # each option stands first once


def test_intervals_are_over_pictures(quiz):
    """Questions about one picture are drawn together: with five of them there is no interval."""
    _, found, _ = quiz("first", "--limit", "6")
    one = next(score for score in found["scores"] if score["metric"] == "accuracy of all rows")
    assert (found["counts"]["questions"], one["low"] is not None) == (6, True)
    _, found, _ = quiz("first", "--limit", "5")
    assert next(score for score in found["scores"])["low"] is None


def test_what_no_rule_reads_is_wrong_without_a_judge_and_read_with_one(quiz):
    """The judge reads what decides something, in as many tries as it needs, and the predictions are not made again."""
    code, found, _ = quiz("vague")
    assert (code, scores(found)["CircularEval accuracy", ""]) == (0, 0.0)
    assert found["counts"]["answers that no rule reads"] == ROWS
    code, found, err = quiz("vague", "--judge", "judge.yaml", "--resume")
    assert (code, scores(found)["CircularEval accuracy", ""]) == (0, 1.0)
    assert found["counts"]["answers that a judge has read"] == ROWS
    assert f"predictions: {ROWS} records were done before" in err
    assert len(lines("found/judge-1.jsonl")) == ROWS
    assert not Path("found/judge-2.jsonl").exists()


def test_a_report_with_a_judge_is_made_again_without_asking_it(quiz, monkeypatch):
    """Of its replies, which are kept."""
    quiz("vague", "--judge", "judge.yaml")
    monkeypatch.setattr("modelgraft_plugins.evaluating.running.opened", lambda *_, **__: pytest.fail("a graph runs"))
    code, found, _ = quiz("vague", "--report-only")
    assert (code, scores(found)["CircularEval accuracy", ""]) == (0, 1.0)


@pytest.mark.parametrize(("judge", "told"), [("nobody.yaml", "nobody.yaml"), ("letter.yaml", "the graph needs its input 'image'")])
def test_a_judge_that_cannot_judge_is_told_before_anything_runs(quiz, monkeypatch, judge, told):
    """Also where the rules would have read every answer."""
    monkeypatch.setattr("modelgraft_plugins.evaluating.running.opened", lambda *_, **__: pytest.fail("a graph runs"))
    code, found, _ = quiz("letter", "--judge", judge)
    assert (code, told in found["error"]["message"]) == (1, True), found


@pytest.mark.parametrize(("words", "count"), [((), ROWS), (("--limit", "2"), 8)])
def test_how_many_records_there_are_is_known_before_they_are_read(quiz, monkeypatch, words, count):
    """Those of the first questions alone, under a limit."""
    monkeypatch.setattr("modelgraft.cli.pacing.EVERY_S", 0.0)
    _, found, err = quiz("letter", *words)
    assert (found["records"], f"{count - 1} of {count} records" in err) == (count, True)


def test_a_judge_is_not_asked_where_a_rule_has_decided(quiz):
    """A question with one wrong letter is lost, whatever the judge would read in the others."""
    _, found, _ = quiz("odd", "--judge", "judge.yaml")
    rights = {question: next(one for one in options if one.startswith("*"))[1:] for _, _, question, options, _ in QUESTIONS}
    unread = [row for row in lines("found/predictions.jsonl") if row["text"].startswith("the third")]
    lost = [row for row in unread if len(rights[row["facts"]["question"]]) % 2]
    asked = lines("found/judge-1.jsonl")
    assert {row["id"] for row in asked} == {row["id"] for row in unread} - {row["id"] for row in lost}
    assert found["counts"]["answers that no rule reads"] == len(unread) > len(asked) > 0
    assert len(lines("found/judge-3.jsonl")) == len(asked)  # it never understands them
    assert found["counts"]["answers that are none of the options"] == len(asked)


def test_a_judge_that_does_not_take_text_is_told_before_it_runs(quiz):
    """In the words of the checker."""
    Path("blind.yaml").write_text(
        "modelgraft: 1\ninputs: {image: image}\nnodes: {see: {use: quiz/see, in: {image: inputs.image}}}\noutputs: {text: see}\n"
    )
    code, found, _ = quiz("vague", "--judge", "blind.yaml")
    assert code == 1
    assert "the graph has no input 'question'" in found["error"]["message"]


def test_the_submission_has_a_row_for_each_row(quiz):
    """As a workbook and as a table of text; an answer that looks like a formula is a text."""
    quiz("wording")
    with Path("found/submission.tsv").open(newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    sheet = openpyxl.load_workbook("found/submission.xlsx").active
    cells = [["" if value is None else str(value) for value in row] for row in sheet.iter_rows(values_only=True)]
    assert cells == [list(table[0]), *([*row.values()] for row in table)]
    assert [row["index"] for row in table] == [row["id"] for row in lines("found/predictions.jsonl")]
    assert table[0]["prediction"] == "It is a cat!"
    assert {"index", "question", "A", "B", "C", "D", "prediction"} <= set(table[0])
    assert "image" not in table[0]


def rewrite(name, change):
    """The small table with every row changed by a function, which may leave it out."""
    with MINI.open(newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        found = [row for row in map(change, reader) if row is not None]
    with Path(name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    return name


def test_a_table_without_answers_gives_a_submission_and_no_score(quiz):
    """As the test split is."""
    code, found, _ = quiz("letter", data=rewrite("test.tsv", lambda row: {**row, "answer": "", "split": "test"}))
    assert (code, found["scores"], found["counts"]["questions"]) == (0, [], 0)
    assert "the data say no right answers: there is nothing to score" in found["notes"]
    assert len(Path("found/submission.tsv").read_text().splitlines()) == ROWS + 1
    code, _, _ = quiz("letter", "--report-only")
    assert code == 0


def test_splits_are_told_apart(quiz):
    """Abilities and categories are those within each."""
    _, found, _ = quiz("letter", data=rewrite("two.tsv", lambda row: {**row, "split": "dev" if int(row["index"]) % 2 else "test"}))
    groups = {score["group"] for score in found["scores"]}
    assert {"", "split dev", "split test", "ability coarse_perception of dev", "category ocr of test"} <= groups
    assert "category ocr" not in groups


def test_groups_that_are_not_whole_are_told(quiz):
    """A missing copy is not looked for; copies without their question are left out."""
    lost = {"1", "1000002"}
    _, found, _ = quiz("letter", data=rewrite("part.tsv", lambda row: None if row["index"] in lost or row["image"] == "1" else row))
    notes = " ".join(found["notes"])
    assert "1 questions have fewer rows than options" in notes
    assert found["counts"]["questions"] < len(QUESTIONS)


def test_copies_of_a_question_whose_first_row_is_missing_are_left_out(quiz):
    """As the toolkit does, and that is said."""
    last = str(len(QUESTIONS))
    _, found, _ = quiz("letter", data=rewrite("part.tsv", lambda row: None if row["index"] == last else row))
    assert "3 rows are copies of questions whose first row is missing" in " ".join(found["notes"])
    assert found["counts"]["questions"] == len(QUESTIONS) - 1


def test_a_table_with_each_question_once_can_be_rotated_here(quiz):
    """Otherwise CircularEval is plain accuracy, which is said."""
    once = rewrite("once.tsv", lambda row: row if int(row["index"]) < 1_000_000 else None)
    _, found, err = quiz("first", data=once)
    assert "--copies made makes the rotated copies" in err
    assert scores(found)["CircularEval accuracy", ""] > 0
    _, found, _ = quiz("first", "--copies", "made", data=once)
    assert (found["records"], scores(found)["CircularEval accuracy", ""]) == (ROWS, 0.0)
    code, found, _ = quiz("first", "--copies", "made")
    assert (code, "have rotated copies of their own" in found["error"]["message"]) == (1, True)


def test_a_picture_that_is_none_fails_its_record_alone(quiz):
    """It is counted and listed, and its question is wrong, not left out."""
    code, found, err = quiz("letter", data=rewrite("bad.tsv", lambda row: {**row, "image": "!" * 80} if row["index"] == "40" else row))
    assert code == 1
    assert [one["id"] for one in found["failed"]] == ["40"]
    assert found["failed"][0]["error"].startswith("bad.tsv:41: its picture is no base64")
    assert "hold records that failed, and count as wrong" in " ".join(found["notes"])
    assert scores(found)["CircularEval accuracy", ""] == pytest.approx(1 - 1 / len(QUESTIONS))
    assert "no base64" in err


def test_a_file_that_is_no_picture_fails_its_record_alone(quiz):
    """What is told names the row."""
    broken = "bm8gcGljdHVyZSBhdCBhbGwsIGJ1dCBhIHRleHQgdGhhdCBpcyBsb25nIGVub3VnaCB0byBiZSB0YWtlbiBmb3IgaXQ="
    code, found, _ = quiz("letter", data=rewrite("bad.tsv", lambda row: {**row, "image": broken} if row["index"] == "38" else row))
    assert code == 1
    assert all("bad.tsv:" in one["error"] for one in found["failed"])


def test_the_prompt_is_chosen_by_the_graph_or_the_user_and_recorded(quiz):
    """Predictions under another prompt are others."""
    _, found, _ = quiz("letter", "--prompt", "llava")
    assert found["settings"]["prompt"] == "llava"
    assert "prompt llava" in found["notes"][0]
    code, found, _ = quiz("letter", "--prompt", "qwen_vl", "--resume")
    assert (code, "made of something else" in found["error"]["message"]) == (1, True)


def test_a_graph_without_a_language_model_cannot_rank(quiz):
    """Told before anything runs."""
    code, found, _ = quiz("letter", "--mode", "rank")
    assert (code, "can judge texts" in found["error"]["message"]) == (1, True)


def test_no_output_replaces_the_data(quiz):
    """Also where they lie in the folder of the results."""
    Path("found").mkdir()
    rewrite("found/submission.tsv", lambda row: row)
    before = Path("found/submission.tsv").read_bytes()
    code, found, _ = quiz("letter", data="found/submission.tsv")
    assert (code, "would replace the data" in found["error"]["message"]) == (1, True)
    assert Path("found/submission.tsv").read_bytes() == before
