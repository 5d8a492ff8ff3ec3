"""What is under a phantom's diaphragm: liver, spleen, fat, and the gas that looks like lung.

All functions paint in the patient's frame: mm from the carina, x to the left, y to the back, z to
the head. ``below`` is the signed distance in mm to the surface of the space inside the ribs and
under the diaphragm, negative inside. Most organs keep a few mm away from this surface.
"""

import numpy as np

from .canvas import Canvas
from .patient import Patient
from .shapes import ellipsoid
from .tissues import AIR, ENHANCEMENT, FAT, MUSCLE, SOFT_TISSUE

LIVER_HU = (40, 75)
SPLEEN_HU = 50
STOMACH_CONTENTS_HU = (-10, 60)
BOWEL_CONTENTS_HU = (-600, 60)
COLON_GAS_HU = (-1000, -900)

STOMACH_CHANCE = 0.75
GAS_CHANCE = 0.7  #: that a loop of bowel holds gas
MOST_BOWEL_LOOPS = 44
MOST_COLON_LENGTHS = 3

STOMACH_WALL_MM = 4
BOWEL_WALL_MM = 3
BOWEL_MARGIN_MM = 30  #: how far a bent loop may extend beyond its box


def paint_abdomen(
    canvas: Canvas,
    patient: Patient,
    rng: np.random.Generator,
    rib_cage: np.ndarray,
    diaphragm: np.ndarray,
) -> None:
    """Paint the organs under the diaphragm, back to front.

    ``rib_cage`` is the signed distance to the inside of the ribs, ``diaphragm`` the z of the
    diaphragm at each voxel.
    """
    inside_ribs = np.maximum(rib_cage, canvas.z - patient.apex)
    below = np.maximum(inside_ribs, canvas.z - diaphragm)
    canvas.paint(below, FAT)
    paint_liver(canvas, patient, rng, below)
    paint_spleen(canvas, patient, rng)
    paint_soft_tissue(canvas, patient, rng, below)
    if rng.random() < STOMACH_CHANCE:
        paint_stomach(canvas, patient, rng, below)
    for _ in range(rng.integers(0, MOST_BOWEL_LOOPS + 1)):
        paint_bowel_loop(canvas, patient, rng, below)
    for _ in range(rng.integers(0, MOST_COLON_LENGTHS + 1)):
        paint_colon(canvas, patient, rng, below)


def paint_liver(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, below: np.ndarray
) -> None:
    """Paint the liver, under the diaphragm from the right side to an uneven border in the middle.

    It reaches 90 to 170 mm below the right dome.
    """
    uneven_x = canvas.x + 10 * canvas.noise(rng, 60)
    border = uneven_x - rng.uniform(-10, 60)
    lower_edge = patient.domes[1] - rng.uniform(90, 170) - canvas.z
    hu = rng.uniform(*LIVER_HU) + ENHANCEMENT * patient.blood_hu
    canvas.paint(np.maximum.reduce([below + 3, border, lower_edge]), hu)


def paint_spleen(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint the spleen: far left, at the back, 50 mm below the left dome."""
    half_width, half_depth = _reach(patient)
    centre = [0.75 * half_width, 0.6 * half_depth, patient.domes[0] - 50]
    radii = rng.uniform(25, 50, 3)
    canvas.ellipsoid(centre, radii, SPLEEN_HU + ENHANCEMENT * patient.blood_hu)


def paint_soft_tissue(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, below: np.ndarray
) -> None:
    """Paint folds of soft tissue into the fat of the upper abdomen, down to 90 mm below the domes.

    They are the voxels where a random field is far from zero.
    """
    folds = -np.abs(canvas.noise(rng, 28)) * 20 + rng.uniform(5, 14)
    lower_edge = patient.domes.min() - 30 - canvas.z - 60
    canvas.paint(np.maximum.reduce([below + 4, folds, lower_edge]), SOFT_TISSUE)


def paint_stomach(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, below: np.ndarray
) -> None:
    """Paint a stomach under the left dome: contents, and gas above them, also if prone."""
    radii = rng.uniform(20, 58, 3)
    sideways = rng.uniform(25, 75)
    backwards = rng.uniform(-40, 20)
    centre = np.array([sideways, backwards, patient.domes[0] - radii[2] - rng.uniform(2, 18)])
    inside = ellipsoid(canvas.points(), centre, radii)
    inside = np.maximum(inside, below + rng.uniform(2, 5))
    canvas.paint(inside - STOMACH_WALL_MM, MUSCLE)
    canvas.paint(inside, rng.uniform(*STOMACH_CONTENTS_HU))
    level = rng.uniform(-1, 0.9) * radii[1]
    above_level = patient.down * (canvas.y - centre[1]) - level
    canvas.paint(np.maximum(inside, above_level), AIR)


def paint_bowel_loop(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, below: np.ndarray
) -> None:
    """Paint one loop of colon or small bowel, with gas or contents.

    Its centre is in front or in the middle, 15 mm or more below the lower dome. Loops are often
    directly under the diaphragm, where their gas is next to lung.
    """
    radii = rng.uniform(6, 26) * rng.uniform(0.7, 1.3, 3)
    place = rng.uniform([-0.6, -1, 0], [1, 0.6, 0]) * [*_reach(patient), 0]
    height = patient.domes.min() - rng.exponential(60) - 15
    centre = place + [0, 0, height]
    box = canvas.box(centre - radii, centre + radii, BOWEL_MARGIN_MM)
    if not canvas.hu[box].size:
        return
    inside = np.maximum(ellipsoid(canvas.points(box), centre, radii), below[box] + 4)
    canvas.paint(inside - BOWEL_WALL_MM, MUSCLE, box=box)
    hu = AIR if rng.random() < GAS_CHANCE else rng.uniform(*BOWEL_CONTENTS_HU)
    canvas.paint(inside, hu, box=box)


def paint_colon(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, below: np.ndarray
) -> None:
    """Paint a section of colon full of gas, which looks much like a trachea.

    It runs through three points in the front or the middle, 10 to 150 mm below the lower dome.
    """
    places = rng.uniform([-0.8, -0.9, -150], [0.8, 0.3, -10], (3, 3))
    path = places * [*_reach(patient), 1] + [0, 0, patient.domes.min()]
    radius = rng.uniform(6, 22)
    canvas.tube(path, radius + BOWEL_WALL_MM, MUSCLE, inside=below < -4)
    canvas.tube(path, radius, rng.uniform(*COLON_GAS_HU), inside=below < -7)


def _reach(patient: Patient) -> np.ndarray:
    """Half width and half depth of the region where organs are placed, in mm."""
    return patient.cavity * [0.8, 0.75]
