"""What a user gets of a run: each output once it is what was declared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from modelgraft.engine.binding import show
from modelgraft.engine.outputs import to_be_read
from modelgraft.engine.prepared import Outlet
from modelgraft.engine.run import Run
from modelgraft.kernel.words.errors import NodeError
from modelgraft.kernel.words.guard import contained, said
from modelgraft.records.batch import Batch


def taken(outlets: Sequence[Outlet], found: Sequence[Any], run: Run) -> Mapping[str, Any]:
    """The outputs by name, of what travelled on their wires. Raises NodeError for what is not as declared, or cannot be looked at."""
    outputs = dict[str, Any]()
    is_one = run.count == 1 and run.is_single
    for outlet, value in zip(outlets, found):  # noqa: B905 as many as were asked for, and saying so costs as much as the rest
        if is_one and type(value) is list and len(value) == 1 and type(value[0]) in outlet.plain:  # the commonest
            outputs[outlet.name] = value[0]
            continue
        try:
            outputs[outlet.name] = _taken(run, outlet, value)
        except NodeError:
            raise
        except BaseException as error:  # noqa: BLE001 a value of a plugin may do anything when it is looked at
            _refuse(outlet, error)
    return to_be_read(outputs)


def _taken(run: Run, outlet: Outlet, value: Any) -> Any:
    """What the user gets for an output, once it is what was declared."""
    if outlet.check is not None and not isinstance(value, Batch):
        outlet.check(value, run.count)
    return show(run, outlet.port, value)


def _refuse(outlet: Outlet, error: BaseException) -> NoReturn:
    """Raise what an output raised when it was looked at: as in a node."""
    try:
        with contained():
            raise error
    except Exception as found:
        raise NodeError(f"what {outlet.ref} gave cannot be taken: {said(found)}", node=outlet.ref.node) from found
