"""Figures, and what the slice viewer is made of: checks, counts, packing, and the front end."""
