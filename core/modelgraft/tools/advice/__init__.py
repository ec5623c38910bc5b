"""What is said beyond what is wrong: where numbers come from, ways out, and what works but not as one may expect.

The kernel finds problems and asks `Advice` for the rest (`kernel/checking/advice.py`); this is the advice of modelgraft, which
looks at what is installed and at what a run will need.
"""

from __future__ import annotations

from modelgraft.kernel.checking.advice import Advice
from modelgraft.tools.advice.forecasts import forecasts
from modelgraft.tools.advice.missing import explain_missing
from modelgraft.tools.advice.proposals import makers
from modelgraft.tools.advice.twins import twins
from modelgraft.tools.advice.ways_out import apart, between_ranks, bound, derived

ADVICE = Advice(
    missing=explain_missing,
    makers=makers,
    between=between_ranks,
    apart=apart,
    bound=bound,
    derived=derived,
    warnings=twins,
    forecasts=forecasts,
)
