"""From a GraphSpec to a SolvedGraph: wiring, configs, dimensions, value spaces, budgets, and every problem said."""
