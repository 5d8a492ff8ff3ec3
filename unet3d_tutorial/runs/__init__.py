"""What a training run stores, and how it survives interruptions.

This covers its folder, tables and checkpoints; signals, killed workers and several processes; and
copies in remote stores.
"""
