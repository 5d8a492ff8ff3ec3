"""A phantom's airway: larynx, trachea and bronchi, with air inside and a wall.

Positions are in the patient's frame: mm from the carina, x to the left, y to the back, z to the
head.
"""

from dataclasses import dataclass

import numpy as np

from ..labels import TRACHEA
from .canvas import Canvas
from .patient import Patient
from .tissues import SOFT_TISSUE

AIRWAY_WALL_MM = (0.6, 2.2)
AIRWAY_HU = (-1000, -955)  #: a little brighter than air outside, as the wall blurs in
LOBAR_WALL_HU = 0.0
#: How far below the carina the label ends in the main bronchi, at scale 1.
LABEL_BELOW_CARINA_MM = (16, 24)

#: Radii at the points of each path, relative to the trachea's radius.
RIGHT_BRONCHUS_RADII = np.array([0.9, 0.8, 0.65])
LEFT_BRONCHUS_RADII = np.array([0.9, 0.75, 0.6])
TRACHEA_RADII = np.ones(3)
LARYNX_RADIUS = 0.9


@dataclass(frozen=True)
class Airway:
    """Centre lines of trachea and main bronchi, ``(3, 3)`` each: three points x, y, z in mm.

    The trachea runs upwards from the carina, the bronchi downwards from it.
    """

    trachea: np.ndarray
    right: np.ndarray
    left: np.ndarray

    @property
    def paths(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Trachea, right and left main bronchus."""
        return self.trachea, self.right, self.left

    @classmethod
    def draw(cls, patient: Patient, rng: np.random.Generator) -> "Airway":
        """Draw the course of a patient's airway.

        The trachea rises from the carina to the front, more or less bent. The right main bronchus
        is shorter and steeper than the left one.
        """
        top = patient.trachea_top
        bow = rng.uniform(0.3, 0.55)  # y half way up, relative to that of the top
        half_way = top * [0.5, bow, 0.5] - [2, 0, 0]
        right_bend = [-rng.uniform(14, 21), 3, -rng.uniform(8, 14)]
        right_end = [-rng.uniform(29, 38), 6, -rng.uniform(17, 34)]
        left_bend = [rng.uniform(17, 24), 5, -rng.uniform(7, 13)]
        left_end = [rng.uniform(39, 50), 12, -rng.uniform(15, 32)]
        return cls(
            trachea=np.array([[0, 0, 2], half_way, top]),
            right=np.array([[0, 0, 4], right_bend, right_end]) * patient.scale,
            left=np.array([[0, 0, 4], left_bend, left_end]) * patient.scale,
        )


def paint_airway(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, airway: Airway
) -> None:
    """Paint larynx, trachea and bronchi: first the walls, then the air in them.

    In this order, no wall blocks the air where branches meet. The label includes wall and air of
    the trachea below the larynx, and of the main bronchi down to about 20 mm below the carina.
    """
    radius = patient.trachea_radius
    larynx = airway.trachea[-1] + np.array([[0, 0, 0], [0, -4, 30], [0, 5, 110]])
    lobar_bronchi = _lobar_bronchi(airway, rng)
    label_end = -rng.uniform(*LABEL_BELOW_CARINA_MM) * patient.scale
    wall = rng.uniform(*AIRWAY_WALL_MM)
    air = rng.uniform(*AIRWAY_HU)
    labelled = [
        (airway.right, radius * RIGHT_BRONCHUS_RADII),
        (airway.left, radius * LEFT_BRONCHUS_RADII),
        (airway.trachea, radius * TRACHEA_RADII),
    ]

    labels_before = canvas.label.copy()
    for path, radii in labelled:
        canvas.tube(path, radii + wall, SOFT_TISSUE, TRACHEA)
    too_low, too_high = canvas.z < label_end, canvas.z > patient.trachea_top[2]
    beyond = (canvas.label == TRACHEA) & (too_low | too_high)
    canvas.label[beyond] = labels_before[beyond]

    canvas.tube(larynx, radius * LARYNX_RADIUS + wall, SOFT_TISSUE)
    for path, width in lobar_bronchi:
        radii = radius * width * np.linspace(1, 0.6, len(path))
        canvas.tube(path, radii + wall, LOBAR_WALL_HU)
        canvas.tube(path, radii, air)
    # The vocal cords narrow the larynx, the throat is wide or collapsed.
    vocal_cords, throat = radius * rng.uniform(0.3, 0.8), radius * rng.uniform(0.5, 1.8)
    canvas.tube(larynx, [radius, vocal_cords, throat], air)
    paint_mouth_and_nose(canvas, rng, larynx[-1], air)
    for path, radii in labelled:
        canvas.tube(path, radii, air)


def _lobar_bronchi(airway: Airway, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """The lobar bronchi: path in mm, and initial radius relative to the trachea's.

    They are not labelled, although they begin almost as wide as the main bronchi: the end of the
    trachea's label is a convention that a network has to learn.
    """
    right_end, left_end = airway.right[-1], airway.left[-1]
    lower_right = np.array([right_end, right_end + [-6, 5, -18], right_end + [-14, 12, -45]])
    upper_right = np.array([airway.right[1], airway.right[1] + [-28, 0, 18]])
    lower_left = np.array([left_end, left_end + [6, 8, -15], left_end + [14, 16, -40]])
    upper_left = np.array([left_end, left_end + [22, -12, 12]])
    return [
        (lower_right, rng.uniform(0.5, 0.85)),
        (upper_right, rng.uniform(0.4, 0.7)),
        (lower_left, rng.uniform(0.5, 0.8)),
        (upper_left, rng.uniform(0.4, 0.7)),
    ]


def paint_mouth_and_nose(
    canvas: Canvas, rng: np.random.Generator, throat: np.ndarray, air: float
) -> None:
    """Paint up to three air cavities around and in front of the throat, for scans with the neck."""
    for _ in range(rng.integers(0, 4)):
        place = throat + rng.normal(0, 1, 3) * [10, 20, 20] + [0, -20, 15]
        canvas.ellipsoid(place, rng.uniform(6, 22, 3), air)
