"""Readers of weight file formats, and configs of published checkpoints."""
