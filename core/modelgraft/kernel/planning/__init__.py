"""From a SolvedGraph to a Plan: what runs, in which order, what it costs, and what is one call."""
