"""PaLI: a vision transformer and mT5, joined in both readings of the paper (arXiv 2209.06794)."""
