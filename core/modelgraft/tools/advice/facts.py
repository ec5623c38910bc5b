"""Where the facts of value spaces come from, and ways out where they differ."""

from __future__ import annotations

from typing import Any

from modelgraft.kernel.checking.drafts import Part
from modelgraft.kernel.words.errors import Place
from modelgraft.kernel.words.guard import contained
from modelgraft.kernel.words.kinds import Config
from modelgraft.kernel.words.source import Source


def behind_fact(part: Part, fact: str, value: Any, near: Place | None) -> str:  # Any: facts are plain values of any kind
    """Where a fact comes from, in brackets behind it."""
    return f" ({_origin(part, fact, value, near)})"


def _origin(part: Part, fact: str, value: Any, near: Place | None) -> str:
    """The config field behind a fact: the one of that name, else the first that holds the value."""
    named = [key for key in part.origins if key == fact or key.endswith(f"_{fact}")]
    holding = [key for key in part.origins if _plain(getattr(part.config, key, None)) == value]
    for key in [*(key for key in named if key in holding), *holding]:
        origin = part.origins[key]
        if origin.layer == "source" and part.source is not None:
            return f"{part.scope}.{key}, from the source {part.source.text}"
        if origin.layer == "default":
            return f"{part.scope}.{key}, the default of {part.component.id}"
        where = origin.place
        same = where is not None and near is not None and where.file == near.file and where.line is not None
        return f"{part.scope}.{key}, {f'line {where.line}' if same and where else origin.unworded}"
    return f"from the source {part.source.text}" if part.source is not None else f"fixed by {part.component.id}"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def one_source(giver: Part, taker: Part, family: str) -> str:
    """A way out where two ends mean other things by their numbers: both from one source, or something between them."""
    if taker.source is not None and (giver.source is None or giver.source.text != taker.source.text) and _reads(giver, taker.source):
        whole = taker.source.whole
        return f"let both come from one source: give {giver.node} from: {whole}"
    return f"put a component between them that gives the {family} that {taker.node} takes, or wire the one that was made for it"


def _reads(part: Part, source: Source) -> bool:
    """Whether the component of a part makes something of a source: centres of clusters, for example, are no encoder."""
    read = part.component.config.from_source
    if getattr(read, "__func__", read) is getattr(Config.from_source, "__func__", None):
        return False  # it reads none
    try:
        with contained():
            read(source)
    except Exception:  # noqa: BLE001 a plugin may raise anything; then the way out is none
        return False
    return True
