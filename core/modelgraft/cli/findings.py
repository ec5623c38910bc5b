"""What `modelgraft plugins check` tells of each thing that it looked at: light, because the command line imports it."""

from __future__ import annotations

from dataclasses import dataclass

from modelgraft.kernel.words.errors import Place

OK, FAILED, NOT_RUN = "ok", "failed", "not run"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about one thing.

    what     "import", "hooks", a component, or another offer such as "backend vllm";  status  "ok", "failed" or "not run"
    message  what is wrong, or why it was not run;  file, line  of the author's code, where that is known
    """

    what: str
    status: str = OK
    message: str = ""
    file: str | None = None
    line: int | None = None


def failed(what: str, message: str, place: Place | None = None) -> Finding:
    """A finding of something that is wrong."""
    return Finding(what, FAILED, message, place.file if place else None, place.line if place else None)
