"""What modelgraft costs, measured beside alternatives: see README.md here. Not part of the wheel."""
