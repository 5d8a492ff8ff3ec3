"""A phantom's lungs: parenchyma, that is lung tissue full of air, and the vessels in it.

Both paint in the patient's frame: mm from the carina, x to the left, y to the back, z to the head.
"""

import numpy as np

from ..labels import LEFT_LUNG, RIGHT_LUNG
from .canvas import Canvas
from .patient import Patient

DARKEST_HU, BRIGHTEST_HU = -990, -400  #: limits of the lung tissue between the vessels
#: How brightness increases towards the lower side, in HU per mm: weight compresses the lung.
GRAVITY_HU_A_MM = (0, 0.7)

VESSELS = (6, 14)  #: number of vessels that leave one hilum; the upper limit is excluded
HILUM = np.array([30.0, 0.0, -20.0])  #: mm, of the left lung, at scale 1
VESSEL_RADIUS_MM = (2.5, 6.0)
FORKS = 4  #: generations of branches that are painted
FORK_NARROWING = 0.72  #: radius of a branch, relative to that of its stem


def paint_lungs(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, lung: np.ndarray
) -> None:
    """Paint both lungs with their texture and vessels, and label them: left is where x > 0.

    ``lung`` is the signed distance to both lungs in mm.
    """
    paint_parenchyma(canvas, patient, rng, lung)
    canvas.label[(lung < 0) & (canvas.x > 0)] = LEFT_LUNG
    canvas.label[(lung < 0) & (canvas.x <= 0)] = RIGHT_LUNG
    inside = lung < -0.5
    for side in (-1, 1):
        hilum = HILUM * [side, 1, 1] * patient.scale
        for _ in range(rng.integers(*VESSELS)):
            grow_vessel(canvas, patient, rng, hilum, side, inside)


def paint_parenchyma(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, lung: np.ndarray
) -> None:
    """Paint lung tissue: fine and coarse texture, brighter towards the lower side."""
    fine = rng.uniform(5, 25) * canvas.noise(rng, 10)
    coarse = rng.uniform(5, 35) * canvas.noise(rng, 45)
    gravity = patient.down * rng.uniform(*GRAVITY_HU_A_MM) * canvas.y
    hu = patient.lung_hu + gravity + (fine + coarse)
    canvas.paint(lung, np.clip(hu, DARKEST_HU, BRIGHTEST_HU))


def grow_vessel(
    canvas: Canvas,
    patient: Patient,
    rng: np.random.Generator,
    root: np.ndarray,
    side: int,
    inside: np.ndarray,
) -> None:
    """Paint one vessel that starts at the hilum ``root``, runs outwards and repeatedly forks.

    ``side`` is 1 for the left lung, -1 for the right. ``inside`` is the mask of the lungs, which
    vessels do not leave. Vessels keep the lung's label.
    """
    direction = rng.normal(0, 1, 3) * [0.5, 1, 1.2] + [side * 0.8, 0, 0]
    branches = [(root, _unit(direction), rng.uniform(*VESSEL_RADIUS_MM))]
    for _ in range(FORKS):
        next_branches = []
        for start, heading, radius in branches:
            end = start + heading * rng.uniform(14, 30) * patient.scale
            canvas.tube([start, end], radius, patient.blood_hu, inside=inside)
            for _ in range(2):
                turned = heading + rng.normal(0, 0.45, 3)
                next_branches.append((end, _unit(turned), radius * FORK_NARROWING))
        branches = next_branches


def _unit(direction: np.ndarray) -> np.ndarray:
    """The direction, scaled to length 1."""
    return direction / np.linalg.norm(direction)
