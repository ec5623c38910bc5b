"""A node that answers in another way until what it wants is there: see `Unfinished`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from modelgraft.engine.backend import Call, Loaded

LOOK_S = 0.5  # between two looks at whether it is there
WAITS = object()  # it is not there yet

Renew = Callable[[], Any]  # gives WAITS; or the node as it was loaded anew; or None, when nothing will come any more


class StandIn:
    """Hands calls to the node as it is loaded now, and looks between them whether it can be had as it was wanted.

    It is called in turns, so nothing of the first is at work when the other takes its place.
    """

    def __init__(self, first: Loaded, renew: Renew) -> None:
        self._now, self._renew = first, renew
        self._calls: dict[frozenset[str] | None, Call] = {}
        self._is_final, self._looked = False, time.monotonic()

    def loaded(self) -> Loaded:
        """What a pipeline keeps of it. Nobody takes weights from it: they are another's soon."""
        giving = None if self._now.giving is None else lambda wanted: partial(self._call, wanted)
        return replace(self._now, call=partial(self._call, None), giving=giving, close=self._close, state=None, is_shared=False)

    def _call(self, wanted: frozenset[str] | None, *values: Any) -> Any:
        if not self._is_final and time.monotonic() - self._looked > LOOK_S:
            self._look()
        call = self._calls.get(wanted)
        if call is None:
            giving = self._now.giving
            call = self._calls[wanted] = self._now.call if wanted is None or giving is None else giving(wanted)
        return call(*values)

    def _look(self) -> None:
        found = self._renew()
        self._looked = time.monotonic()
        if found is WAITS:
            return
        self._is_final = True
        if found is not None:
            before, self._now = self._now, found
            self._calls.clear()
            before.close()

    def _close(self) -> None:
        self._is_final = True
        self._now.close()
