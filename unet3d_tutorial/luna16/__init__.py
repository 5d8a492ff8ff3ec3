"""LUNA16: download its archives, unpack them, convert the scans and check the result."""

from .conversion import ConversionError, ConversionReport, convert

__all__ = ["ConversionError", "ConversionReport", "convert"]
