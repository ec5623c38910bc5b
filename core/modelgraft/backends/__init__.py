"""Backends: what loads and runs one node. Imported by name on first use, so that everything before stays light."""
