"""Where weights and configs come from: sources, archives, formats, and tensors mapped from files."""
