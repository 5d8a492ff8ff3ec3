"""LUNA16: download its archives, unpack them, convert the scans, check what came out."""

from .conversion import ConversionError, ConversionReport, convert

__all__ = ["ConversionError", "ConversionReport", "convert"]
