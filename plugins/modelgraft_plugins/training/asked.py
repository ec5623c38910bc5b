"""What is asked of a training beside its graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelgraft.commands import Screen
    from modelgraft_plugins.training.shared import Shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of a training beside its graph.

    out       where it writes, a folder for each stage;  device  "cpu", "cuda:0"; None: what accelerate takes
    resumes   goes on after a run that was stopped;  forces  goes on where it was another one, or writes over what is there
    skips     records that do not fit are left out
    tensorboard  events for it are written as well
    home      where features lie; None: in `out`;  shared  what the variants of a sweep have in common; None: it stands alone
    note      hears what is told;  screen  shows how far it is; None: nobody looks
    """

    out: Path
    device: str | None = None
    init: str | None = None
    resumes: bool = False
    forces: bool = False
    skips: bool = False
    offline: bool = False
    note: Callable[[str], None] = field(default=lambda _text: None)
    screen: Screen | None = None
    tensorboard: bool = False
    home: Path | None = None
    shared: Shared | None = None
