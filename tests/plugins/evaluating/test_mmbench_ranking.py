"""`--mode rank`: the likeliest letter behind the question, of a real graph around a language model (tiny, random)."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

from PIL import Image

import modelgraft as mg
from modelgraft.cli import main
from modelgraft.commands import judging
from support import checkpoints


def picture(shade):
    """A small picture as a table has it."""
    file = io.BytesIO()
    Image.new("RGB", (31, 23), (shade, 90, 255 - shade)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


ROWS = [
    {"index": 1, "question": "Eh?", "A": "x", "B": "y", "C": "", "answer": "A", "image": picture(10)},
    {"index": 2, "question": "Oh?", "A": "u", "B": "v", "C": "w", "answer": "C", "image": picture(200)},
    {"index": 1_000_001, "question": "Eh?", "A": "y", "B": "x", "C": "", "answer": "B", "image": "1"},
]


def test_the_likeliest_letter_is_the_answer(monkeypatch, tmp_path, capsys):
    """As the same graph says when it is asked by itself; records of a batch may have unlike numbers of options."""
    monkeypatch.chdir(tmp_path)
    Path("parts").mkdir()
    checkpoints.llava(Path("parts"))
    with Path("dev.tsv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(ROWS)
    words = ["--data", "dev.tsv", "--set", "checkpoint=./parts", "--mode", "rank", "--prompt", "llava", "--out", "found", "--json"]
    code = main(["eval", "mmbench", "llava", *words])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["settings"]["mode"]) == (0, "rank")
    assert "not comparable with scores of what a graph writes" in found["notes"][0]
    letters = "".join(json.loads(line)["letters"] for line in Path("found/rows.jsonl").read_text().splitlines())
    graph = mg.check(mg.load("llava", params={"checkpoint": "./parts"}))
    with mg.open("llava", params={"checkpoint": "./parts", **judging(graph)}) as pipeline:
        expected = "".join(likeliest(pipeline, ROWS[number], ROWS[0 if number == 2 else number]["image"]) for number in (0, 2, 1))
    assert letters == expected
    submitted = list(csv.DictReader(Path("found/submission.tsv").read_text().splitlines(), delimiter="\t"))
    assert [row["prediction"] for row in submitted] == [expected[0], expected[2], expected[1]]


def likeliest(pipeline, row, image):
    """The letter that a graph finds likeliest."""
    letters = [letter for letter in "ABC" if row[letter]]
    lines = [row["question"], *(f"{letter}. {row[letter]}" for letter in letters)]
    prompt = "\n".join([*lines, "Answer with the option's letter from the given choices directly."])
    result = pipeline.run(image=base64.b64decode(image), prompt=prompt, continuations=[f" {letter}" for letter in letters])
    return letters[int(result["likelihoods"][0].argmax())]
