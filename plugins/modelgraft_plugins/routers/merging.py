"""The work of router/merge."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from modelgraft.plugin import LoadContext, Tensor, port

if TYPE_CHECKING:
    from modelgraft_plugins.routers import Merge


def merge(config: Merge, _context: LoadContext) -> Callable[[list[Any]], Any]:
    """Make the function from the options that are present to the first of them.

    It is called once for each group of records that went the same ways: with a list of options per record, or, for tensors,
    with a list of batches.
    """
    if isinstance(port(config.type or "object").type, Tensor):
        return lambda batches: batches[0]
    return lambda records: [options[0] for options in records]
