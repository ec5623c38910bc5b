"""Every engine runs the graph that it is given."""

from __future__ import annotations

import pytest

from benchmarks import orchestration
from benchmarks.orchestrators import ENGINES, NATIVE, SHAPES, bodies, chain, layered
from benchmarks.peers import environment
from benchmarks.peers.engines import PEERS


@pytest.mark.parametrize("name", [name for name in ENGINES if name not in NATIVE])
def test_an_engine_calls_every_node_once_and_hands_on_what_it_got(name: str) -> None:
    shape, payload = layered(2, 3), object()
    assert ENGINES[name](shape, bodies(shape))(payload) is payload
    orchestration.prove(orchestration.engine_of(name), shape)


def test_an_engine_that_leaves_a_node_out_is_found() -> None:
    def build(shape, code):
        return ENGINES["plain calls"](chain(len(shape.parents) - 1), code)

    with pytest.raises(AssertionError, match="it called 4 nodes of 5"):
        orchestration.prove(orchestration.Engine(build), chain(5))


def test_every_value_of_a_layered_graph_is_read() -> None:
    """So that no engine can leave a node out."""
    for name in SHAPES:
        shape = SHAPES[name]()
        assert set(shape.parents) - {read for reads in shape.parents.values() for read in reads} == {shape.last}


def test_every_peer_is_pinned_where_its_environment_says() -> None:
    for peer in (*PEERS.values(), *environment.THEIRS.values()):
        assert f"\n{peer.distribution}==" in environment.pins(peer.environment).read_text(encoding="utf-8")


def test_a_peer_that_is_not_there_is_a_row_that_says_why(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither left out, nor an error of the whole table."""
    monkeypatch.setenv("MODELGRAFT_PEERS", str(tmp_path))
    where = orchestration.places()
    assert {name for name, place in where.items() if place.why} == set(PEERS)
    row = orchestration.row(("one", "text", "Dask"), {}, where["Dask"], where["Dask"].why)
    assert row["engine"] == "Dask"
    assert row["why"] == "not installed: python -m benchmarks.peers.environment makes it"


def test_what_cannot_be_installed_is_told_for_each_peer(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the installer said last; and another time it is found again and not asked for."""
    monkeypatch.setenv("MODELGRAFT_PEERS", str(tmp_path))
    asked: list[list[str]] = []

    def said(command: list[str]) -> str:
        asked.append(command)
        return "" if "venv" in command else "ERROR: no such thing"

    monkeypatch.setattr(environment, "_said", said)
    first = environment.make()
    count = len(asked)
    assert {place.why for place in first.values()} == {"not installed: ERROR: no such thing"}
    assert environment.make() == first
    assert len(asked) == count
