"""Set up MindSpore for a run: device, mode and seed."""

import unet3d_tutorial.environment  # noqa: F401

import mindspore as ms

from ..cpu import runtime


def setup(*, seed: int = 1, device_target: str = "CPU", device_id: int | None = None) -> None:
    """Choose the device, PyNative mode (operations run one by one) and MindSpore's seed.

    The same seed on the same machine gives bit-identical results. NumPy needs no seed here, because
    the package uses its own generators. ``device_id`` of ``None`` leaves the choice to MindSpore.
    Warns if oneDNN's slow kernels can no longer be avoided in this process.
    """
    # MindSpore refuses another device once it has run an operation.
    if ms.get_context("device_target") != device_target or device_id:
        number = () if device_id is None else (device_id,)
        ms.set_device(device_target, *number)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if device_target == "CPU":
        runtime.settle()
    ms.set_seed(seed)
