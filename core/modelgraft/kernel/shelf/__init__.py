"""What is installed: the hooks that a plugin may implement, and the registry of what plugins offer."""
