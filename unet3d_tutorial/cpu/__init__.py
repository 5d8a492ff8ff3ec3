"""What makes a network fast on a CPU, put on from outside: nothing in :mod:`.model` knows of it.

:func:`accelerate` is called in the one place that builds networks from a configuration,
:func:`unet3d_tutorial.runs.networks.build_network`. Whoever builds a network by hand calls it too::

    network = accelerate(ResidualUNet3D())

Parameters, their names, checkpoints, graphs and exported files stay what they are. Results agree
with the plain network's to rounding.
"""

import unet3d_tutorial.environment  # noqa: F401

import mindspore as ms
from mindspore import nn

from .forward import make_one_program
from .layers import exchange_convolutions, kernels
from .runtime import prepare
from .tiles import tile_outputs
from .units import fuse


def accelerate(network: nn.Cell) -> nn.Cell:
    """Make ``network``, or one block of it, fast on a CPU, in place, and give it back.

    On another device nothing is changed. Done twice it is done once.
    """
    if ms.get_context("device_target") != "CPU":
        return network
    prepare()
    if kernels() == "onednn":
        exchange_convolutions(network)
        fuse(network)
        make_one_program(network)
    else:
        tile_outputs(network)
    return network
