"""The models of the MMBench table: what was published of each, and what is counted here."""
