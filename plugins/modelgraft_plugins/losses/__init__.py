"""Losses: what compares an answer with the wanted one."""
