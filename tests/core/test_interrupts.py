"""Ctrl-C while libraries are imported: they may swallow it, or fail in their own way."""

from __future__ import annotations

import contextlib
import signal

import pytest

from modelgraft.cli import main
from modelgraft.cli.interrupts import Interrupts
from support import toys


def test_an_interrupt_that_was_swallowed_is_remembered():
    """As torch does with one that comes while it starts numpy."""
    interrupts = Interrupts()
    with interrupts.noted(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupts.raise_if_heard()


def test_nothing_is_remembered_when_nothing_came():
    """And the handler of before is there again."""
    interrupts = Interrupts()
    with interrupts.noted():
        pass
    interrupts.raise_if_heard()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handler_of_another_program_is_left_alone():
    """Where Ctrl-C is ignored, it stays ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts().noted():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_that_became_another_error_gives_130(monkeypatch, tmp_path, capsys):
    """A library that is interrupted while it is imported may fail in any way; the user pressed Ctrl-C, and reads that."""

    def interrupted(*_args, **_options):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RecursionError

    monkeypatch.setattr("modelgraft.installed.discovery.discover", toys.registry)
    monkeypatch.setattr("modelgraft.api.open", interrupted)
    graph = tmp_path / "capitals.yaml"
    graph.write_text("modelgraft: 1\ninputs: {text: text}\nnodes: {big: {use: toy/upper, in: {text: inputs.text}}}\noutputs: {text: big}\n")
    assert main(["run", str(graph), "--input", "text=a"]) == 130
    assert capsys.readouterr() == ("", "stopped\n")
