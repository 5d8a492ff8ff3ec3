"""What a training run keeps and survives.

Its folder, tables and checkpoints; signals, killed workers, several processes; copies in stores.
"""
