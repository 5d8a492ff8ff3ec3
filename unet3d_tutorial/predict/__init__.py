"""Scan files to mask files: the commands ``predict`` and ``evaluate``, and the engines that run a
network.
"""
