"""Figures, and the parts of the slice viewer: checks, counts, packing and the front end."""
