"""Sound: log-mel features and speech encoders."""
