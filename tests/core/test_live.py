"""What is told of a run on stderr."""

from __future__ import annotations

import io

import pytest

from modelgraft.cli.live import watching
from modelgraft.cli.screen import Screen
from modelgraft.engine.events import Warned


@pytest.mark.parametrize("is_on", [True, False])
def test_a_node_that_warns_again_in_the_same_words_is_heard_once(is_on):
    """One for each of several sounds says nothing new; other words, and another node, do."""
    err = io.StringIO()
    with watching(Screen(io.StringIO(), err, is_json=False), is_on=is_on) as take:
        for node, text in (("ear", "resampled"), ("ear", "resampled"), ("ear", "mixed"), ("eye", "resampled"), ("ear", "resampled")):
            take(Warned(node=node, text=text))
    assert err.getvalue().splitlines() == ["ear: warning: resampled", "ear: warning: mixed", "eye: warning: resampled"]
