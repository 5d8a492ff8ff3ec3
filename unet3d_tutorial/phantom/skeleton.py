"""A phantom's bones: ribs, spine, sternum, collar bones, shoulder blades.

All functions paint in the patient's frame: mm from the carina, x to the left, y to the back, z to
the head. Bones are not lung, so they get the label of the background.
"""

import numpy as np

from .canvas import BACKGROUND, Canvas
from .patient import Patient
from .tissues import BONE

RIB_HU = (200, 500)
VERTEBRA_HU = (120, 260)
VERTEBRAL_ARCH_HU = (150, 350)
STERNUM_HU = (120, 300)
COLLAR_BONE_HU = (300, 600)
DISC_HU = 90.0
SPINAL_CORD_HU = 20.0

VERTEBRA_PERIOD_MM = 26  #: from disc to disc, at scale 1
VERTEBRAL_ARCH_RADIUS_MM = 14
VERTEBRAL_ARCH_WALL_MM = 6  #: around the spinal canal
STERNUM_RADIUS_MM = 8
SHOULDER_BONE_RADIUS_MM = 6


def paint_bones(
    canvas: Canvas,
    patient: Patient,
    rng: np.random.Generator,
    pleura: np.ndarray,
    spine_y: float,
) -> None:
    """Paint all bones of the trunk.

    ``pleura`` is the signed distance to the inside of the ribs, ``spine_y`` the y of the vertebrae.
    """
    paint_ribs(canvas, patient, rng, pleura)
    paint_spine(canvas, patient, rng, spine_y)
    paint_sternum(canvas, patient, rng)
    for side in (-1, 1):
        paint_shoulder(canvas, patient, rng, side)


def paint_ribs(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, pleura: np.ndarray
) -> None:
    """Paint the ribs: stripes in a shell around the chest, sloping down from back to front."""
    period = rng.uniform(24, 34) * patient.scale
    height = canvas.z + rng.uniform(0.3, 0.7) * -canvas.y  # the same all along a rib
    stripes = np.cos(2 * np.pi * height / period) - rng.uniform(0.0, 0.5)
    shell = np.abs(pleura - rng.uniform(5, 8)) - rng.uniform(3, 5)
    ribs = np.maximum(shell, -stripes * 6)
    below_shoulders = canvas.z - patient.apex - 5
    canvas.paint(np.maximum(ribs, below_shoulders), rng.uniform(*RIB_HU), BACKGROUND)


def paint_spine(canvas: Canvas, patient: Patient, rng: np.random.Generator, spine_y: float) -> None:
    """Paint the spine: vertebrae with discs between them, and an arch around the cord behind."""
    scale = patient.scale
    radius = rng.uniform(14, 19) * scale
    spine = np.hypot(canvas.x / 1.15, canvas.y - spine_y) - radius
    canvas.paint(spine, rng.uniform(*VERTEBRA_HU), BACKGROUND)
    discs = np.cos(2 * np.pi * canvas.z / (VERTEBRA_PERIOD_MM * scale)) * -8 + 6
    canvas.paint(np.maximum(spine, discs), DISC_HU, BACKGROUND)

    behind = canvas.y - spine_y - 30 * scale
    arch = np.hypot(canvas.x, behind) - VERTEBRAL_ARCH_RADIUS_MM
    canvas.paint(arch, rng.uniform(*VERTEBRAL_ARCH_HU), BACKGROUND)
    canvas.paint(arch + VERTEBRAL_ARCH_WALL_MM, SPINAL_CORD_HU, BACKGROUND)


def paint_sternum(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint the sternum: in front of the chest, from 70 mm below the carina to 35 mm above."""
    front = -patient.cavity[1]
    path = [[0, front - 4, -70 * patient.scale], [0, front * 0.8 - 6, 35 * patient.scale]]
    canvas.tube(path, STERNUM_RADIUS_MM, rng.uniform(*STERNUM_HU), BACKGROUND)


def paint_shoulder(canvas: Canvas, patient: Patient, rng: np.random.Generator, side: int) -> None:
    """Paint a collar bone and a shoulder blade; ``side`` is 1 for the left, -1 for the right.

    The collar bone runs from the sternum to the shoulder, at the level of the apices of the lungs.
    The shoulder blade runs from there down the back.
    """
    half_width, half_depth = patient.cavity
    shoulder = np.array([side * half_width * 1.05, -5, patient.apex])
    at_sternum = [side * 18, -half_depth * 0.75, 40 * patient.scale]
    collar_bone_hu = rng.uniform(*COLLAR_BONE_HU)
    collar_bone = np.array([at_sternum, shoulder])
    canvas.tube(collar_bone, SHOULDER_BONE_RADIUS_MM, collar_bone_hu, BACKGROUND)

    upper_end = shoulder + [side * 10, 30, 0]
    lower_end = [side * half_width * 0.75, half_depth + 12, -30]
    shoulder_blade = np.array([upper_end, lower_end])
    canvas.tube(shoulder_blade, SHOULDER_BONE_RADIUS_MM, BONE, BACKGROUND)
