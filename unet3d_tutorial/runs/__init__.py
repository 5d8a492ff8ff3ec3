"""What a training run keeps and survives: its folder, checkpoints, history, curves, workers,
processes and stores.
"""
