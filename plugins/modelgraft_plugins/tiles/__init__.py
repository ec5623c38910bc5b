"""Pictures cut into tiles of one size, and put together again as vectors."""
