"""Heads: classification, similarity, top labels."""
