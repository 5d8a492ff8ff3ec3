"""The brightness of a phantom's tissues, in Hounsfield units (HU), without contrast agent.

Ranges are ``(least, most)`` and are drawn from evenly.
"""

Range = tuple[float, float]

AIR = -1000.0
FAT = -95.0
SKIN = 20.0
MUSCLE = 50.0
BONE = 350.0
SOFT_TISSUE = 30.0  #: walls of hollow organs, and what has no name of its own

#: Share of the blood's HU that an organ with a rich blood supply adds to its own.
ENHANCEMENT = 0.2
