"""What fits in place of a node, and what that changes."""
