"""OmniMAE: pictures and films rebuilt from a few of their patches (arXiv 2206.08356)."""
