"""The sweep of real parts: its data say what the photographs are, and what does not fit is what should not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.sweeps import ingredients
from modelgraft.installed.discovery import discover
from modelgraft_plugins.benching.checking import check_cells
from modelgraft_plugins.benching.sweep_files import sweep_in

ROOT = Path(__file__).parents[2]
SWEEP = "benchmarks/sweeps/eyes_and_tongues.yaml"


def test_every_photograph_is_in_a_package_and_has_two_captions():
    """So that each record can be scored, and nobody needs to fetch a picture."""
    pytest.importorskip("skimage", reason="the photographs ship with scikit-image")
    pytest.importorskip("sklearn", reason="the photographs ship with scikit-learn")
    records = [json.loads(line) for line in (ROOT / "benchmarks/sweeps/photographs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({record["image"] for record in records}) == len(records) == 16
    for record in records:
        assert ingredients.source_of(Path(record["image"]).stem).is_file()
        assert len(set(record["captions"])) == 2


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(900)
def test_real_parts_fit_where_they_should(monkeypatch):
    """An ear is no eye, Whisper's decoder reads no words, and pictures of another size or mean are not what the network takes."""
    monkeypatch.chdir(ROOT)
    ingredients.main()
    found = check_cells(sweep_in(SWEEP), discover(), offline=False, tell=lambda done, of: None)
    fitting = {(cell.values["eye"], cell.values["tongue"]) for cell in found.fitting}
    assert fitting == {
        (eye, tongue)
        for eye in ("usual", "small", "large", "reader", "both")
        for tongue in ("as_it_is", "nearest", "instruction", "examples")
    }
    codes = {(cell.values["eye"], cell.values["tongue"]): {reason.code for reason in cell.reasons} for cell in found.pruned}
    assert codes["unsized", "as_it_is"] == {"dim-mismatch"}
    assert codes["bright", "as_it_is"] == {"space-mismatch"}
    assert "modality-mismatch" in codes["ear", "as_it_is"]
    assert codes["usual", "whisper"] == {"modality-mismatch"}
