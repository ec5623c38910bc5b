"""BEiT-3: a multiway transformer in its five uses, and the VQ-KD tokenizer of pictures of BEiT v2 (arXiv 2208.10442, 2208.06366)."""
