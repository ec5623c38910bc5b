"""Qwen-VL of 2023: its eye, its adapter and its boxes."""
