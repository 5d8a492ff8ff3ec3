"""LUNA16: fetch its archives, unpack them, convert the scans for training, check what came out."""

from .conversion import convert

__all__ = ["convert"]
