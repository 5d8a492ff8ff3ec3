"""MindSpore set up for a run: device, mode and seed."""

import unet3d_tutorial.environment  # noqa: F401

import mindspore as ms

from ..cpu import runtime


def setup(*, seed: int = 1, device_target: str = "CPU", device_id: int | None = None) -> None:
    """Choose the device, PyNative mode (each operation runs at once) and MindSpore's seed.

    Same seed, same machine: the same bits. NumPy needs no seed here: the package draws from
    generators of its own. Warns if oneDNN's slow kernels can no longer be avoided in this process.
    """
    # MindSpore refuses any choice once it has run something.
    if ms.get_context("device_target") != device_target or device_id:
        number = () if device_id is None else (device_id,)
        ms.set_device(device_target, *number)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if device_target == "CPU":
        runtime.prepare()
    ms.set_seed(seed)
