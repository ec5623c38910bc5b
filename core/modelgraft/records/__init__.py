"""What travels on wires: records of each medium and batches of them."""
