"""Settings of the process that MindSpore's libraries read once, so they must come before it.

Every module of the package that imports MindSpore imports this one first. Nothing happens where
MindSpore is loaded already: then the program that loaded it has chosen. A value that the user set
stays. :mod:`.cpu.runtime` says what the settings do.
"""

import os
import sys

DEFAULTS = {
    # Without it, oneDNN runs MindSpore 2.10's 3-D convolutions on a CPU that has AVX-512 through its
    # reference kernel, a plain loop that is many times slower. Read before the first convolution.
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # Threads of oneDNN that have nothing to do sleep rather than wait busily: MindSpore's threads
    # need the same cores. Read when the library is loaded.
    "OMP_WAIT_POLICY": "passive",
}


def set_defaults() -> None:
    """Put :data:`DEFAULTS` into the environment of this process and its children."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)


if "mindspore" not in sys.modules:
    set_defaults()
