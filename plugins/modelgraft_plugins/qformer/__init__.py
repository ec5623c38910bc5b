"""Query transformers: a fixed number of vectors from any number."""
