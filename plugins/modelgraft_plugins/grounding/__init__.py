"""Phrases and boxes: read out of answers, written into prompts, drawn into pictures."""
