"""The spaces of the chest: inside the ribs, above the diaphragm, and the part that is lung.

The only thing painted here is the fat in the chest. Spaces are signed distances in mm, negative
inside, in the patient's frame: mm from the carina, x to the left, y to the back, z to the head.
"""

import numpy as np

from .canvas import Canvas
from .patient import Patient
from .shapes import ramp, superellipse
from .tissues import FAT

FAT_OF_THE_CHEST = FAT + 20  #: HU; vessels and nerves run through it


def rib_cage_distance(canvas: Canvas, patient: Patient) -> np.ndarray:
    """Signed distance to the inside of the rib cage.

    Below the carina it is a single barrel. Above, it splits into two cones with rounded tops at the
    apices of the lungs.
    """
    cavity_width, cavity_depth = patient.cavity
    rise = np.clip((canvas.z + 40) / (patient.apex + 40), 0, 1)  # 0 low in the chest, 1 at the top
    width = np.sqrt(np.maximum(1 - rise**3, 1e-4))
    cone = cavity_width * 0.3 * ramp(canvas.z, 10, patient.apex)  # |x| of the cone's axis
    lateral = np.abs(canvas.x) - cone
    outer = (cavity_width - cone) * width
    inner = np.maximum((cavity_width - cone) * width * 0.6, 12)
    radius = np.where(lateral > 0, outer, inner)
    lateral = np.where((lateral < 0) & (cone < 5), 0, lateral)
    waist = 1 - 0.15 * ramp(-canvas.z, 120, 260)
    return superellipse(
        lateral,
        canvas.y - 8 * rise,
        radius * waist,
        np.maximum(cavity_depth * width, 2),
        patient.squareness,
    )


def pleura_distance(canvas: Canvas, rng: np.random.Generator, rib_cage: np.ndarray) -> np.ndarray:
    """Signed distance to the pleura: the rib cage with the bumps that ribs press into the lungs.

    ``rib_cage`` is the signed distance to the smooth inside. The bumps are a few millimetres high.
    """
    height = rng.uniform(0, 2.5)
    return rib_cage + height * canvas.noise(rng, 22)


def diaphragm_height(canvas: Canvas, patient: Patient) -> np.ndarray:
    """z of the diaphragm above or below each voxel, in mm: two domes that fall off to the ribs.

    The saddle between the domes is smooth over about 20 mm. The diaphragm falls deeper towards the
    back than towards the front.
    """
    left_dome, right_dome = patient.domes
    cavity_width, cavity_depth = patient.cavity
    is_left = canvas.x > 0
    dome = np.where(is_left, left_dome, right_dome)
    towards_other = np.where(is_left, 0.5, -0.5) * np.exp(-np.abs(canvas.x) / 20)
    dome = dome + (right_dome - left_dome) * towards_other

    sideways = ((np.abs(canvas.x) - 0.45 * cavity_width) / (0.62 * cavity_width)) ** 2
    backwards = ((canvas.y + 15) / cavity_depth) ** 2
    from_summit = np.minimum(sideways + backwards, 2.5)
    steepness = np.where(canvas.y > 0, 1.15, 0.75)
    return dome - patient.dome_height * from_summit * steepness


def lung_distance(
    canvas: Canvas,
    patient: Patient,
    pleura: np.ndarray,
    diaphragm: np.ndarray,
    mediastinum: np.ndarray,
) -> np.ndarray:
    """Signed distance to both lungs: the part of the chest that remains for them.

    It is inside the pleura, above the diaphragm, outside the mediastinum and below the apices.
    """
    above_diaphragm = diaphragm - canvas.z
    below_apex = canvas.z - patient.apex
    return np.maximum.reduce([pleura, above_diaphragm, -mediastinum, below_apex])


def paint_chest_fat(canvas: Canvas, pleura: np.ndarray, diaphragm: np.ndarray) -> None:
    """Fill the chest above the diaphragm with fat; everything else there is painted over it."""
    canvas.paint(np.maximum(pleura, diaphragm - canvas.z), FAT_OF_THE_CHEST)
