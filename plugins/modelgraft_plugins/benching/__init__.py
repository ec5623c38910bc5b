"""Benchmarks of compositions: the command `bench`."""
