"""Kosmos: a decoder with sub-layer norms and xPos, and a picture that stands among its words."""
