"""From scan files to mask files: the commands ``predict`` and ``evaluate``, and their engines."""
