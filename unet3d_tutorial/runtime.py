"""MindSpore set up for this book: one call for device, mode and seeds. (The package itself sets oneDNN's kernel family.)"""

import mindspore as ms


def setup(*, seed: int = 1, device_target: str = "CPU", device_id: int | None = None) -> None:
    """Choose the device, PyNative mode (each operation runs at once) and seed MindSpore's random numbers.

    Same seed, same machine: the same bits. NumPy needs no seed here: the package draws from generators of its own.
    """
    ms.set_device(device_target, *(() if device_id is None else (device_id,)))
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if device_target == "CPU":
        ms.runtime.launch_blocking()  # the launch queue stalls where few cores share the work
    ms.set_seed(seed)
