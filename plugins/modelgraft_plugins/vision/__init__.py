"""Pictures: preparing pixels and encoding them."""
