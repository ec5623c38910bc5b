"""Pictures of any size, as many patches as they have."""
