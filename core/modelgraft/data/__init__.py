"""Datasets in, shards out: what goes through a graph record by record, and goes on where it stopped."""
