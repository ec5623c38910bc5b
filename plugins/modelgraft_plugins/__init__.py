"""First-party plugins: components that come through the same door as everyone's."""
