"""What is said beyond what is wrong: where numbers come from, ways out, and what works but not as one may expect.

The kernel finds problems and asks `Advice` for the rest (`kernel/checking/adviser.py`); this is the advice of modelgraft, which
looks at what is installed and at what a run will need. What explains problems is imported when there is one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from modelgraft.kernel.checking.adviser import Advice
from modelgraft.tools.advice.asks import check_asks
from modelgraft.tools.advice.forecasts import forecasts
from modelgraft.tools.advice.routes import check_routes
from modelgraft.tools.advice.shares import check_shares
from modelgraft.tools.advice.twins import twins


def _of(module: str, name: str) -> Callable[..., Any]:  # Any: each explains something else
    """A function of a module here, which is imported with the first call."""

    def explain(*found: Any) -> Any:
        return getattr(import_module(f"{__name__}.{module}"), name)(*found)

    return explain


ADVICE = Advice(
    missing=_of("missing", "explain_missing"),
    makers=_of("proposals", "makers"),
    feeding=_of("feeding", "feeding"),
    between=_of("ways_out", "between_ranks"),
    apart=_of("ways_out", "apart"),
    bound=_of("ways_out", "bound"),
    derived=_of("ways_out", "derived"),
    fact=_of("facts", "behind_fact"),
    space=_of("facts", "one_source"),
    reviews=(check_asks, check_routes, check_shares),
    warnings=twins,
    forecasts=forecasts,
)
