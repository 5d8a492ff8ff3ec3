"""A trained network as a function on NumPy arrays.

This module imports only what that needs, so that a prediction starts quickly.
"""

import unet3d_tutorial.environment  # noqa: F401

from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from ..config import Config
from ..cpu import accelerate
from ..inference import Predictor
from ..model import SegmentationNetwork, make_network
from .checkpoints import FINAL, load_weights
from .device import setup


def build_network(config: Config) -> SegmentationNetwork:
    """Build the network that ``config.model`` describes, with random weights.

    On a CPU, faster oneDNN kernels are used where possible.
    """
    model = config.model
    network = make_network(
        model.name, model.in_channels, model.num_classes, model.channels, model.norm
    )
    return accelerate(network)


def load_network(config: Config, checkpoint: str | Path) -> SegmentationNetwork:
    """Build the network with the weights of ``checkpoint``, in evaluation mode.

    Evaluation mode matters: in training mode batch-norm uses the statistics of the current scan,
    and the result is wrong. Raises ``FileNotFoundError`` if the checkpoint is missing, and
    ``ValueError`` if it belongs to another network.
    """
    network = build_network(config)
    load_weights(network, checkpoint)
    network.set_train(False)
    return network


def predictor(network: nn.Cell) -> Predictor:
    """Wrap a network as a function on NumPy arrays.

    It takes ``(N, C, D, H, W)`` and returns logits ``(N, K, D, H, W)``, K being the classes.
    """

    def predict(batch: np.ndarray) -> np.ndarray:
        return network(Tensor(np.ascontiguousarray(batch, np.float32))).asnumpy()

    return predict


def trained_predictor(config: Config, checkpoint: str | Path | None = None) -> Predictor:
    """Load the trained network of a run as a function on NumPy arrays: see :func:`predictor`.

    ``checkpoint`` is the file with the weights; ``None`` takes the final weights of the run.
    """
    setup(seed=config.train.seed, device_target=config.train.device_target)
    if checkpoint is None:
        checkpoint = Path(config.train.output_path) / FINAL
    return predictor(load_network(config, checkpoint))
