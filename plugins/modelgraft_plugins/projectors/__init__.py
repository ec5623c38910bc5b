"""Projectors between embedding widths."""
