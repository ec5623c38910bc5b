"""What is said beyond what is wrong: where numbers come from, ways out, and what works but not as one may expect.

The kernel finds problems and asks `Advice` for the rest (`kernel/checking/adviser.py`); this is the advice of modelgraft, which
looks at what is installed and at what a run will need.
"""

from __future__ import annotations

from modelgraft.kernel.checking.adviser import Advice
from modelgraft.tools.advice.facts import behind_fact, one_source
from modelgraft.tools.advice.feeding import feeding
from modelgraft.tools.advice.forecasts import forecasts
from modelgraft.tools.advice.missing import explain_missing
from modelgraft.tools.advice.proposals import makers
from modelgraft.tools.advice.routes import check_routes
from modelgraft.tools.advice.shares import check_shares
from modelgraft.tools.advice.twins import twins
from modelgraft.tools.advice.ways_out import apart, between_ranks, bound, derived

ADVICE = Advice(
    missing=explain_missing,
    makers=makers,
    feeding=feeding,
    between=between_ranks,
    apart=apart,
    bound=bound,
    derived=derived,
    fact=behind_fact,
    space=one_source,
    reviews=(check_routes, check_shares),
    warnings=twins,
    forecasts=forecasts,
)
