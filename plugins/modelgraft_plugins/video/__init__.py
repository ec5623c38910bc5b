"""Films: frames taken out of them, prepared for encoders."""
