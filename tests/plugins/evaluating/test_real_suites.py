"""Suites over real graphs and photographs: what is said of a picture fits what people say of it better than what they say of another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelgraft import Graph
from modelgraft.cli import main
from modelgraft_plugins import scoring

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.whole(
    "tests/plugins/evaluating/test_suites_of_texts.py::test_captions_in_every_layout_get_the_same_scores",
    "tests/graphs/test_real_graphs.py::test_describe_tells_what_real_photographs_show",
)
@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_captions_of_photographs_fit_their_own_references_best(tmp_path, capsys):
    """`describe` over ten photographs: the report is there, and references of the next picture score less than half as much."""
    skimage = pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    pictures = str(Path(skimage.__file__).parent / "data")
    out = tmp_path / "found"
    words = (
        "eval",
        "captioning",
        "describe",
        "--data",
        str(DATA / "captions-mini.jsonl"),
        "--images",
        pictures,
        "--out",
        str(out),
        "--json",
    )
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["records"], report["failed"]) == (10, [])
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    said, wanted = [row["text"] for row in rows], [row["facts"]["references"] for row in rows]
    measure = scoring.metric_of(Graph("metric").registry, "cider")
    own, others = scoring.score(measure, said, wanted), scoring.score(measure, said, [*wanted[1:], wanted[0]])
    assert own.value == pytest.approx(report["scores"][0]["value"])
    assert others.value < own.value / 2
