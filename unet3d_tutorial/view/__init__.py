"""Figures, and the JavaScript and styles of the slice viewer."""
