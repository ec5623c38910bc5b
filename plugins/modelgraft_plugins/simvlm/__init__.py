"""SimVLM: a convolutional stem and an encoder-decoder with one objective (arXiv 2108.10904)."""
