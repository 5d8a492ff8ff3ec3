"""Settings of the process that MindSpore's libraries read once, so they must come before it.

Every module of the package that imports MindSpore imports this one first. Nothing happens where
MindSpore is loaded already: then the program that loaded it has chosen. A value that the user set
stays. See :mod:`.cpu.runtime` for what the settings do.
"""

import os
import sys

if "mindspore" not in sys.modules:
    # Without it, oneDNN runs MindSpore 2.10's 3-D convolutions on a CPU that has AVX-512 through
    # its reference kernel, a plain loop that is many times slower.
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

    # Threads of oneDNN that have nothing to do sleep rather than wait busily: MindSpore's threads
    # need the same cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
