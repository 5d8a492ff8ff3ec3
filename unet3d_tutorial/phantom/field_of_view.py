"""The field of view: how much of the patient the scanner sees."""

from dataclasses import dataclass

import numpy as np

from .patient import Patient

#: The image's width relative to the body's: 0.82 cuts off the skin, 1.35 shows the arms.
RELATIVE_WIDTH = (0.82, 1.35)
NARROWEST_MM, WIDEST_MM = 240, 500  #: what scanners offer
#: How far the image extends below the lower dome of the diaphragm, in mm.
BELOW_DOMES_MM = (40, 190)
#: How far it extends above the apices of the lungs, in mm: usually, and in scans of neck and chest.
ABOVE_APEX_MM = (-8, 40)
ABOVE_APEX_WITH_NECK_MM = (40, 180)
WITHOUT_NECK = 0.75  #: share of the scans that leave out the neck
OFF_CENTRE = 0.03  #: standard deviation of the image's centre from the carina, in image widths


@dataclass(frozen=True)
class FieldOfView:
    """The grid of a scan, before the patient is tilted."""

    shape: tuple[int, ...]  #: number of voxels along x, y and z
    spacing_mm: float  #: distance between voxels, equal along all axes
    centre: np.ndarray  #: x, y, z of the grid's centre, in mm from the carina

    @classmethod
    def draw(cls, patient: Patient, rng: np.random.Generator, spacing_mm: float) -> "FieldOfView":
        """Draw a field of view for a patient: from tight around the lungs to 500 mm wide.

        In the axial plane it is square, as scanners reconstruct it. Along the body it always
        extends from near the apices of the lungs down into the abdomen, and in some scans up to
        the neck. ``spacing_mm`` is the distance between voxels along all axes.
        """
        body_width = 2 * (patient.cavity[0] + patient.wall + patient.fat)
        width = np.clip(rng.uniform(*RELATIVE_WIDTH) * body_width, NARROWEST_MM, WIDEST_MM)
        bottom = patient.domes.min() - rng.uniform(*BELOW_DOMES_MM)
        above = ABOVE_APEX_MM if rng.random() < WITHOUT_NECK else ABOVE_APEX_WITH_NECK_MM
        top = patient.apex + rng.uniform(*above)

        extents = (width, width, top - bottom)
        shape = tuple(int(round(extent / spacing_mm)) for extent in extents)
        sideways, backwards = rng.normal(0, OFF_CENTRE * width, 2)
        return cls(shape, spacing_mm, np.array([sideways, backwards, (top + bottom) / 2]))
