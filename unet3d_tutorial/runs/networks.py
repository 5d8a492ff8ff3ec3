"""A trained network as a function on NumPy arrays.

Imports no more than that needs, so that a prediction starts soon.
"""

import unet3d_tutorial.environment  # noqa: F401

from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from ..config import Config
from ..cpu import accelerate
from ..inference import Predictor
from ..model import SegmentationNetwork, make_network
from ..runs.device import setup
from .checkpoints import FINAL, load_weights


def build_network(config: Config) -> SegmentationNetwork:
    """The network that ``config.model`` describes, freshly initialised, and as fast as this device
    allows.
    """
    model = config.model
    network = make_network(
        model.name, model.in_channels, model.num_classes, model.channels, model.norm
    )
    return accelerate(network)


def load_network(config: Config, checkpoint: str | Path) -> SegmentationNetwork:
    """The network with the weights of ``checkpoint``, in evaluation mode.

    Evaluation mode matters: in training mode batch-norm uses the statistics of the scan at hand,
    and the result is ruined. Raises ``ValueError`` if the checkpoint belongs to another network.
    """
    network = build_network(config)
    load_weights(network, checkpoint)
    network.set_train(False)
    return network


def predictor(network: nn.Cell) -> Predictor:
    """The network as a function on NumPy arrays: ``(N, C, D, H, W)`` to logits ``(N, K, D, H, W)``."""
    return lambda batch: network(Tensor(np.ascontiguousarray(batch, np.float32))).asnumpy()


def trained_predictor(config: Config, checkpoint: str | Path | None = None) -> Predictor:
    """The trained network of a run as a function on NumPy arrays;

    ``checkpoint`` in place of the run's own weights.
    """
    setup(seed=config.train.seed, device_target=config.train.device_target)
    return predictor(load_network(config, checkpoint or Path(config.train.output_path) / FINAL))
