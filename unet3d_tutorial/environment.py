"""Environment variables that MindSpore's libraries read once, so they are set before its import.

Every module of the package that imports MindSpore imports this one first. If MindSpore is already
loaded, nothing is changed: the program that loaded it has made its choice. A value that the user
has set is kept. :mod:`.cpu.runtime` explains the settings.
"""

import os
import sys

DEFAULTS = {
    # Without it, on a CPU with AVX-512, oneDNN runs MindSpore 2.10's 3-D convolutions with its
    # reference kernel, a plain loop that is many times slower. Read before the first convolution.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # Idle threads of oneDNN sleep instead of spinning, because MindSpore's threads need the same
    # cores. Read when the library is loaded.
    "OMP_WAIT_POLICY": "passive",
}


def set_defaults() -> None:
    """Put :data:`DEFAULTS` into the environment of this process and its children."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


if "mindspore" not in sys.modules:
    set_defaults()
