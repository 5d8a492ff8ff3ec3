"""Synthetic chest CTs with exact labels; :mod:`.recipe` is where to begin."""

from .recipe import generate, write_luna16

__all__ = ["generate", "write_luna16"]
