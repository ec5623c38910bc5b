"""Programs that read pictures are given the same files, and what they answer is held against transformers'."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import checkpoints, rivals_seeing
from benchmarks.peers import environment, seeing, seeing_weights, weights
from benchmarks.peers.packages import Package
from benchmarks.peers.seeing import SEERS
from benchmarks.rivals_seeing import BATCHES, OURS, SIDES, Side
from benchmarks.tables import Asked


@pytest.mark.slow
def test_what_is_exported_for_others_gives_the_vectors_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches of another size than the export had, and by the session's defaults."""
    monkeypatch.setenv("MODELGRAFT_PEERS", str(tmp_path / "peers"))
    source, target = checkpoints.make("vit", tmp_path, layers=1), tmp_path / "eye.onnx"
    seeing_weights._exported(source, target, "float32")
    given = rivals_seeing.pixels(tmp_path, 0, 3)
    into = {"theirs": tmp_path / "theirs.npy", "others": tmp_path / "others.npy"}
    looks = {"theirs": seeing.transformers_encoder(str(source), 1), "others": seeing.onnxruntime_encoder(str(target), 1)}
    for name, look in looks.items():
        assert look({"given": str(given), "into": str(into[name])})["wall"] > 0
    expected, found = np.load(into["theirs"]), np.load(into["others"])
    assert expected.shape == (3, 197, 768)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_every_side_has_weights_that_somebody_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELGRAFT_PEERS", str(tmp_path))
    (seeing_weights._folder() / f"vit-{checkpoints.LAYERS}").mkdir(parents=True)
    (seeing_weights._folder() / f"llava-{checkpoints.LAYERS}").mkdir()
    for side in SIDES:
        if SEERS[side.model][side.program].environment:
            assert callable(seeing_weights._maker(side.model, side.program, side.precision)[1])
            with pytest.raises(weights.NotMade, match="not installed: python -m benchmarks"):
                seeing_weights.of(side.model, side.program, side.precision)
        else:
            assert seeing_weights.of(side.model, side.program, side.precision, build=False)
    assert len({side.name for side in SIDES}) == len(SIDES)
    assert {(side.model, side.bits) for side in SIDES} == {(side.model, side.bits) for side in SIDES if side.program == OURS}


def test_a_program_is_looked_for_in_an_environment_that_was_made_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of the others stays as it is."""
    monkeypatch.setattr(environment, "_python", lambda _folder: Path(sys.executable))
    (tmp_path / "found.json").write_text(json.dumps({"old": {"version": "1", "why": ""}}), encoding="utf-8")
    environment._look_for(tmp_path, {"old": Package("e", "pytest", "pytest", ""), "new": Package("e", "pytest", "pytest", "")})
    environment._look_for(tmp_path, {"absent": Package("e", "pytest", "no_such_module_at_all", "")})
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found["old"] == {"version": "1", "why": ""}
    assert found["new"] == {"version": pytest.__version__, "why": ""}
    assert "no_such_module_at_all" in found["absent"]["why"]


class Pretended:
    """A worker that answers at once, and says how long it took."""

    def __init__(self, seconds: float, vectors: Callable[[Any], Any], text: str) -> None:
        self.seconds, self.vectors, self.text = seconds, vectors, text

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"wall": self.seconds, "anonymous": 100.4, "peak": 200.0}
        if "picture" in request:
            assert np.load(request["picture"]).shape == (224, 224, 3)
            return found | {"texts": [self.text]}
        pixels = np.load(request["given"])
        if request["into"]:
            np.save(request["into"], self.vectors(pixels.reshape(len(pixels), -1)[:, :4]))
        return found | {"wall": self.seconds * len(pixels)}

    def close(self) -> None:
        """Nothing is open."""


SIDE_OF_TEST = {
    OURS: (0.4, lambda pixels: pixels, "a b c"),
    "transformers": (0.8, lambda pixels: pixels, "a b c"),
    "OpenVINO": (0.2, lambda pixels: pixels + 0.5 * np.abs(pixels).max(), "a b x"),
}


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, rivals_seeing.Row]:
    """Of three programs that pretend, and one whose weights are not there."""

    def of(model: str, program: str, precision: str, **_: Any) -> str:
        if program == "onnxruntime":
            raise weights.NotMade("its weights are not made")
        return f"{model} {precision}"

    monkeypatch.setattr(seeing_weights, "of", of)
    monkeypatch.setattr(rivals_seeing, "REST_S", 0.0)
    monkeypatch.setattr(rivals_seeing.Bench, "worker", lambda _self, side, _threads, **_: Pretended(*SIDE_OF_TEST[side.program]))
    sides = [Side(model, program, "float32", 32) for model in SEERS for program in SIDE_OF_TEST]
    sides.append(Side("ViT-B/16", "onnxruntime", "float32", 32))
    found = rivals_seeing.measure(Asked(tmp_path, 0.0), sides)
    return {side.name: row for side, row in zip(sides, found, strict=True)}


def test_a_ratio_is_ours_over_theirs_and_above_one_where_the_other_is_faster(rows: dict[str, rivals_seeing.Row]) -> None:
    """In every case that a model has; ours has none."""
    for model, batches in BATCHES.items():
        for batch in batches:
            key = f"many_{batch}"
            assert rows[f"{model}: OpenVINO float32"][f"{key}_ratio"].median == pytest.approx(2)
            assert rows[f"{model}: transformers float32"][f"{key}_ratio"].median == pytest.approx(0.5)
            assert rows[f"{model}: {OURS} float32"][key].median == pytest.approx(400 * batch)
            assert f"{key}_ratio" not in rows[f"{model}: {OURS} float32"]
    assert rows["ViT-B/16: OpenVINO float32"]["mb"] == 100


def test_answers_are_held_against_those_of_transformers(rows: dict[str, rivals_seeing.Row]) -> None:
    assert rows["LLaVA: OpenVINO float32"]["same"] == "0 of 3, 80%"
    assert rows[f"LLaVA: {OURS} float32"]["same"] == "3 of 3, 100%"
    assert rows["ViT-B/16: OpenVINO float32"]["same"] == "5.0e-01 apart"
    assert rows[f"ViT-B/16: {OURS} float32"]["same"] == "0.0e+00 apart"


def test_a_side_without_weights_is_a_row_that_says_why(rows: dict[str, rivals_seeing.Row]) -> None:
    row = rows["ViT-B/16: onnxruntime float32"]
    assert {key: row[key] for key in ("model", "program", "weights", "why")} == {
        "model": "ViT-B/16", "program": "onnxruntime", "weights": "float32", "why": "its weights are not made"
    }  # fmt: skip
    assert "many_1" not in row
