"""Programs of others are asked for what ours is asked for, and one that cannot be had is a row that says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import checkpoints, measuring, rivals, workers
from benchmarks.peers import environment, programs, weights
from benchmarks.peers.programs import PROGRAMS
from benchmarks.rivals import CASES, OURS, SIDES, Measured, Side


@pytest.mark.slow
def test_ours_and_theirs_write_the_same_text_for_the_same_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone and in a batch, with as many tokens as were asked for: transformers' `generate` is what the others are compared with."""
    monkeypatch.setenv("MODELGRAFT_CACHE", str(tmp_path / "cache"))
    folder = checkpoints.make("tiny", tmp_path, layers=2)
    words = checkpoints.tokenizer(320)
    texts = ["a first prompt!", "another prompt."]
    asked = [{"text": text, "ids": words(text)["input_ids"]} for text in texts]
    theirs, ours = programs.transformers_eager(str(folder), 1), programs.modelgraft_torch(f"{folder}|", 1)
    for rows in (asked[:1], asked):
        expected, found = theirs(rows, 6), ours(rows, 6)
        assert [len(row) for row in expected["ids"]] == [6] * len(rows)
        assert found["texts"] == [words.decode(row, skip_special_tokens=True) for row in expected["ids"]]
        assert min(expected["prefill"], expected["decode"], found["prefill"], found["decode"]) > 0


def test_a_program_that_cuts_prompts_into_other_tokens_is_not_compared() -> None:
    """It would be asked for more or less than the others are."""
    asked = [{"text": "ab", "ids": [1, 2]}, {"text": "c", "ids": [3]}]
    assert programs._cut(asked, lambda text: [ord(letter) - 96 for letter in text]) == [[1, 2], [3]]
    with pytest.raises(RuntimeError, match="into other tokens"):
        programs._cut(asked, lambda text: [0, *map(ord, text)])


def test_every_side_has_weights_that_somebody_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every side: those of our own name their source, the others are made by a builder or are the published file."""
    model = weights.Original("a source", Path("a.gguf"), Path("checkpoint"))
    there = environment.Place("there/bin/python", "1.2")
    monkeypatch.setattr(environment, "found", lambda _: dict.fromkeys(PROGRAMS, there))
    for side in SIDES:
        if side.precision == "q4_1" or (not PROGRAMS[side.program].environment and side.program != "modelgraft, llamacpp"):
            assert weights.of(side.program, side.precision, model)
        else:
            assert callable(weights._maker(side.program, side.precision)[1])


def test_a_program_that_is_not_installed_has_no_weights_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it reads the published file, which is there: whoever opened it would start a process of no program."""
    model = weights.Original("a source", Path("a.gguf"), Path("checkpoint"))
    monkeypatch.setattr(environment, "found", lambda _: dict.fromkeys(PROGRAMS, environment.Place(why="not installed")))
    for side in SIDES:
        if PROGRAMS[side.program].environment:
            with pytest.raises(weights.NotMade, match="not installed"):
                weights.of(side.program, side.precision, model, build=False)
    assert len({side.name for side in SIDES}) == len(SIDES)
    assert set(OURS.values()) <= {side.name for side in SIDES}


def test_weights_that_cannot_be_made_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELGRAFT_PEERS", str(tmp_path))
    model = weights.Original("a source", Path("a.gguf"), Path("checkpoint"))
    with pytest.raises(weights.NotMade, match="not installed: python -m benchmarks"):
        weights.of("llama.cpp", "q8_0", model)
    with pytest.raises(weights.NotMade, match="its builder ended with 3: it is full"):
        weights.run([sys.executable, "-c", "import sys; print('it is full', file=sys.stderr); sys.exit(3)"])


def test_a_side_without_figures_is_a_row_that_says_why() -> None:
    found = {"llama.cpp q8_0": Measured(why="its process ended with 1"), OURS[8]: Measured()}
    row = rivals.row(Side("llama.cpp", "q8_0", 8), found, environment.Place(version="1.2"), {})
    assert row == {"program": "llama.cpp", "how": "1.2, " + PROGRAMS["llama.cpp"].how, "weights": "q8_0", "why": "its process ended with 1"}


def test_a_ratio_is_ours_over_theirs_and_above_one_where_the_other_is_faster() -> None:
    """In 31 steps after the first token: 2 s are 15.5 tokens a second, for batches of four 62."""
    first, second = CASES[0], CASES[1]

    def answers(seconds: float) -> dict[tuple[int, int], list[dict[str, float]]]:
        sample = {"prefill": 0.5, "decode": seconds, "anonymous": 100.4, "peak": 200.0}
        return {first: [sample] * 6, second: [sample] * 6}

    found = {"llama.cpp q8_0": Measured(answers(2.0)), OURS[8]: Measured(answers(4.0))}
    row = rivals.row(Side("llama.cpp", "q8_0", 8), found, environment.Place(version="1.2"), {})
    assert row["many_1"].median == pytest.approx(15.5)
    assert row["many_4"].median == pytest.approx(62)
    assert row["many_1_ratio"].median == row["many_4_ratio"].median == pytest.approx(2)
    assert row["prompt"].median == pytest.approx(512)
    assert row["mb"] == 100


def test_texts_are_equal_or_part_somewhere() -> None:
    assert rivals.same({0: "abcd", 1: "abxx", 7: "?"}, {0: "abcd", 1: "abcd"}) == "1 of 2, 75%"
    assert rivals.same({}, {0: "abcd"}) == ""


def test_a_worker_answers_line_by_line_and_tells_why_it_ended(tmp_path: Path) -> None:
    code = "import json, sys\nfor line in sys.stdin:\n    print(json.dumps({'n': 6 // json.loads(line)['n']}), flush=True)"
    worker = workers.Worker([sys.executable, "-c", code], measuring.environment(1, tmp_path), log=tmp_path / "log")
    assert worker.ask({"n": 3}) == {"n": 2}
    assert "ZeroDivisionError" in worker.ask({"n": 0})["why"]
    worker.close()


def test_a_worker_that_hangs_is_ended(tmp_path: Path) -> None:
    worker = workers.Worker([sys.executable, "-c", "import time; time.sleep(60)"], measuring.environment(1, tmp_path), patience=0.2)
    assert worker.ask({}) == {"why": "it did not answer within 0 s"}
    worker.close()
