"""Make networks fast on a CPU, without any change to the code in :mod:`unet3d_tutorial.model`.

The function that builds networks from a configuration,
:func:`unet3d_tutorial.runs.networks.build_network`, calls :func:`accelerate`. If you build a
network by hand, call it yourself::

    network = accelerate(ResidualUNet3D())

Parameters, their names, checkpoints, graphs and exported files do not change. Results agree with
the plain network's to within rounding.
"""

import unet3d_tutorial.environment  # noqa: F401

import mindspore as ms
from mindspore import nn

from .forward import make_one_program
from .layers import exchange_convolutions, kernels
from .runtime import settle
from .tiles import tile_outputs
from .units import fuse


def accelerate(network: nn.Cell) -> nn.Cell:
    """Make ``network``, or one block of it, fast on a CPU, in place, and return it.

    On other devices nothing is changed. A second call has no effect.
    """
    if ms.get_context("device_target") != "CPU":
        return network
    settle()
    if kernels() == "onednn":
        exchange_convolutions(network)
        fuse(network)
        make_one_program(network)
    else:
        tile_outputs(network)
    return network
