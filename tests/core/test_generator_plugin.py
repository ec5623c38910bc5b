"""The generator of plugins/README.md: a whole plugin as it stands there, asked several times, in its own graph."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy
import pytest

import modelgraft as mg
from modelgraft.installed.discovery import assemble
from modelgraft.testing import conform
from modelgraft_plugins import routers
from modelgraft_plugins import torch as torch_backend
from support.running import graph_of

SECTION = (
    (Path(__file__).parents[2] / "plugins" / "README.md")
    .read_text(encoding="utf-8")
    .partition("\n## A generator\n")[2]
    .partition("\n## ")[0]
)
(CODE,) = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
(GRAPH,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def scribble(tmp_path, monkeypatch):
    (tmp_path / "scribble.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "scribble", raising=False)
    yield importlib.import_module("scribble")
    sys.modules.pop("scribble", None)


@pytest.fixture
def pipeline(scribble, tmp_path):
    registry = assemble({"routers": routers, "torch": torch_backend, "scribble": scribble})
    assert not registry.quarantined()
    with mg.open(graph_of(registry, tmp_path, GRAPH), seed=3, cache_bytes=0) as found:
        yield found


def pixels(pictures):
    return [numpy.asarray(picture) for picture in pictures]


def test_the_readme_counts_its_lines():
    assert f"{len(CODE.splitlines())} lines" in SECTION


def test_it_conforms(scribble):
    conform(scribble.Draw)


def test_takes_differ_and_a_batch_draws_what_its_records_draw_alone(pipeline):
    whole = pipeline.run(prompt=["a", "b"])["images"]
    alone = [pipeline.run(prompt=prompt)["images"] for prompt in ("a", "b")]
    for mine, theirs in zip(map(pixels, whole), map(pixels, alone), strict=True):
        assert [one.shape for one in mine] == [(64, 64, 3)] * 3
        assert all(numpy.array_equal(one, other) for one, other in zip(mine, theirs, strict=True))
        assert not numpy.array_equal(mine[0], mine[1])
    other = pipeline.run(prompt="a", seed=4)["images"]
    assert not numpy.array_equal(pixels(other)[0], pixels(whole[0])[0])


def test_one_loop_for_all_takes_of_all_records_and_it_can_be_left(pipeline):
    with pipeline.stream(prompt=["a", "b"]) as events:
        steps = [(event.done, event.total) for event in events if event.kind == "progress"]
    assert steps == [(step + 1, 8) for step in range(8)]
    with pipeline.stream(prompt=["a", "b"]) as events:
        next(event for event in events if event.kind == "progress")
    with pytest.raises(mg.ModelgraftError):  # the run was stopped at its next step
        _ = events.result


def test_a_picture_that_fails_costs_itself_alone(pipeline, scribble, monkeypatch):
    drawn = scribble.Drawing.noise

    def refuse(self, prompt, number):
        if (prompt, number) == ("b", 1):
            raise MemoryError("no room")
        return drawn(self, prompt, number)

    monkeypatch.setattr(scribble.Drawing, "noise", refuse)
    result = pipeline.run(prompt=["a", "b"])
    assert [len(pictures) for pictures in result["images"]] == [3, 2]
    assert result.warnings == ("draw: failed, and the run goes on without what it would have given: MemoryError: no room",)
