"""A 3D U-Net for chest CT in MindSpore: the package behind the book. Importing it is cheap: MindSpore comes on use."""

import os

# oneDNN reads this once, before its first convolution. Without it MindSpore 2.10 runs 3-D convolutions on a CPU that has
# AVX-512 through oneDNN's reference kernel, which is many times slower. A value that the user set stays.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
# Threads of oneDNN that have nothing to do sleep rather than wait busily: MindSpore's threads need the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
