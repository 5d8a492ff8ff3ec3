"""The brightness of a phantom's tissues, in Hounsfield units (HU), without contrast agent.

Ranges are ``(lowest, highest)``; values are drawn from them uniformly.
"""

Range = tuple[float, float]

AIR = -1000.0
FAT = -95.0
SKIN = 20.0
MUSCLE = 50.0
BONE = 350.0
SOFT_TISSUE = 30.0  #: walls of hollow organs, and other unnamed tissue

#: Share of the blood's HU that is added to the HU of an organ with a rich blood supply.
ENHANCEMENT = 0.2
