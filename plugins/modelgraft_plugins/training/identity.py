"""What a run is: its graph, data and settings, so that a resumed one is the same or is told what differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelgraft.commands import STAGE_KEYS, Resolved, file_aside
from modelgraft.plugin import GraphError, InputError, SolvedGraph, contained, option

RUN = "run.json"
MOST_TOLD = 12  # differences in a message
FREE = ("doc", "save")  # keys of a stage that change no number


def identity_of(resolved: Resolved, solved: SolvedGraph, *, data: str, valid: str, records: int) -> dict[str, Any]:
    """Plain facts of a run by dotted key."""
    stage = resolved.stage
    facts: dict[str, Any] = {"data.digest": data, "data.records": records, "valid.digest": valid}
    facts |= {f"stage.{key}": _plain(stage[key]) for key in STAGE_KEYS if key not in FREE}
    facts |= {f"trained.{name}": [one.kind, list(one.parts), one.rate, one.decay] for name, one in resolved.trained.items()}
    facts |= {f"losses.{name}": [str(ref), weight] for name, (ref, weight) in resolved.losses.items()}
    for name in sorted(resolved.needed):
        node = solved.nodes[name]
        facts[f"nodes.{name}.use"] = f"{node.component.id}@{node.component.version}"
        facts[f"nodes.{name}.in"] = {port: [str(ref) for ref in refs] for port, refs in node.wired.items()}
        facts |= {f"nodes.{name}.with.{key}": value for key, value in node.config.model_dump(mode="json").items()}
        facts[f"nodes.{name}.from"] = _weights_of(node.source)
        for number, adapter in enumerate(node.adapters):
            facts[f"nodes.{name}.adapters.{number}"] = [
                adapter.component.id,
                adapter.config.model_dump(mode="json"),
                _weights_of(adapter.source),
            ]
    return json.loads(json.dumps(facts, sort_keys=True, default=str))  # type: ignore[no-any-return]  # as it will be read again


def digest_of(facts: Mapping[str, Any], *begins: str) -> str:
    """A digest of those facts whose key begins with one of these words."""
    chosen = {key: value for key, value in facts.items() if key.startswith(begins)}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, a line each."""
    keys = sorted({*before} | {*now})
    return [
        f"{key}: {_shown(before, key)} -> {_shown(now, key)}"
        for key in keys
        if before.get(key) != now.get(key) or (key in before) != (key in now)
    ]


def read_identity(folder: Path) -> dict[str, Any] | None:
    """What the run in a folder was; None where there was none. Raises InputError for a file that cannot be read."""
    path = folder / RUN
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}; name another folder as out, or begin anew: {option('force')} without {option('resume')}"
        ) from error
    return found if isinstance(found, dict) else {}


def write_identity(folder: Path, facts: Mapping[str, Any]) -> None:
    """Note what a run is."""
    with file_aside(folder / RUN) as aside:
        aside.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def refuse_other(before: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path) -> None:
    """Raise InputError for a run that was another one, with what differs."""
    changed = differences(before, now)
    if not changed:
        return
    more = [f"and {len(changed) - MOST_TOLD} more"] if len(changed) > MOST_TOLD else []
    lines = "\n    ".join([*changed[:MOST_TOLD], *more])
    way = f"{option('force')} goes on all the same, with the weights that are there; another folder as out begins anew"
    raise InputError(f"the run in {folder} was another one:\n    {lines}\n    {way}")


def _weights_of(source: Any) -> str | None:
    """What tells the weights of a source from others."""
    if source is None:
        return None
    try:
        with contained():
            return str(source.identity())
    except (GraphError, OSError):
        return str(source.text)
    except Exception:  # noqa: BLE001 what a reader of weights cannot tell is known by its name
        return str(source.text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _shown(facts: Mapping[str, Any], key: str) -> str:
    text = json.dumps(facts[key]) if key in facts else "not there"
    return text if len(text) <= 60 else f"{text[:57]}..."
