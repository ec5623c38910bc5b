"""Retrieval: indexes of vectors, and what is nearest in them."""
