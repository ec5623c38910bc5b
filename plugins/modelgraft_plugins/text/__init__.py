"""Tokenising, encoding and templating text."""
