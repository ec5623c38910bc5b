"""CoCa: a picture and its caption in one space, and captions written from it (arXiv 2205.01917)."""
