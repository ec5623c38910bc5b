"""Adapters that are grafted into a host node."""
