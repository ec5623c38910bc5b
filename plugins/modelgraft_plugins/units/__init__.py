"""Discrete units of speech: clusters of features, and their masked prediction (arXiv 2106.07447)."""
