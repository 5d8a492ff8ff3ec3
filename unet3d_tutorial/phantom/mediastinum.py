"""The mediastinum, between a phantom's lungs: its space, heart, oesophagus and lymph nodes.

The vessels are in ``vessels``, the airway is in ``airway``. Positions are in the patient's frame:
mm from the carina, x to the left, y to the back, z to the head; those of constants are at scale 1.
"""

from dataclasses import dataclass

import numpy as np

from .airway import Airway
from .canvas import BACKGROUND, Canvas
from .patient import Patient
from .shapes import FAR_AWAY_MM, ellipsoid, ramp, tube
from .tissues import AIR

#: Centre line of the oesophagus: between trachea and spine, a little to the left at the diaphragm.
OESOPHAGUS = np.array(
    [
        [8.0, 34.0, -140.0],
        [3.0, 24.0, -20.0],
        [4.0, 22.0, 60.0],
        [2.0, 22.0, 150.0],
    ]
)
OESOPHAGUS_HU = 40.0
OESOPHAGEAL_GAS_CHANCE = 0.35

#: From the right front to the left back, above the left main bronchus.
ARCH_OF_AORTA = np.array([[-12, -25, 30], [24, 30, 32]])
#: x and y of the descending aorta, and the z of its upper end.
DESCENDING_AORTA_X, DESCENDING_AORTA_Y, DESCENDING_AORTA_TOP = 22, 35, 40

#: Share of the blood's HU that is added to the heart muscle, and the muscle's own HU.
HEART_ENHANCEMENT, HEART_MUSCLE_HU = 0.5, 25
MOST_LYMPH_NODES = 7


@dataclass(frozen=True)
class Recess:
    """A pocket of lung that extends towards the middle plane; lengths in mm at scale 1."""

    chance: float  #: probability that a patient has it
    side: int  #: 1 left, -1 right
    y: tuple[float, float]  #: range of its centre
    z: tuple[float, float]  #: range of its centre
    reach: tuple[float, float]  #: range of its radius along x, with the centre at x = 30 mm


#: Without them, a network learns that all air near the middle plane is trachea.
RECESSES = (
    # Behind the heart, between azygos vein and oesophagus: below the carina, ...
    Recess(0.9, side=-1, y=(14, 36), z=(-80, -30), reach=(20, 44)),
    # ... and behind the trachea, above it.
    Recess(0.85, side=-1, y=(12, 40), z=(25, 85), reach=(18, 44)),
    # Over the arch of the aorta.
    Recess(0.8, side=1, y=(12, 40), z=(40, 90), reach=(18, 42)),
    # Where the right lung touches the trachea.
    Recess(0.35, side=-1, y=(-20, 12), z=(15, 80), reach=(12, 26)),
    # In front of the descending aorta.
    Recess(0.6, side=1, y=(14, 40), z=(-110, -45), reach=(12, 36)),
)


@dataclass(frozen=True)
class Mediastinum:
    """The space between the lungs, and the positions of the organs in it; all in mm."""

    distance: np.ndarray  #: signed distance of each voxel to the space
    heart_centre: np.ndarray  #: x, y, z
    heart_radii: np.ndarray  #: along x, y, z
    oesophagus: np.ndarray  #: its centre line, ``(points, 3)``
    spine_y: float  #: y of the vertebrae's centres


def lay_out_mediastinum(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, airway: Airway
) -> Mediastinum:
    """Lay out the space between the lungs, and the positions of the organs in it.

    The space is a septum from front to back with the roots of the lungs, minus the recesses, joined
    with heart, spine, aorta, airway, oesophagus and hila. Nothing is painted yet.
    """
    scale = patient.scale
    points = canvas.points()
    septum = _septum_distance(canvas, patient, rng)
    roots = _roots_distance(canvas, patient, rng)
    recesses = _recesses_distance(canvas, patient, rng)
    parts = [np.maximum(np.minimum(septum, roots), -recesses)]

    half_axes = [rng.uniform(46, 72), rng.uniform(36, 58), rng.uniform(45, 62)]
    to_the_left, forwards, down = rng.uniform(14, 30), rng.uniform(22, 40), rng.uniform(60, 80)
    heart_radii = np.array(half_axes) * scale
    heart_centre = np.array([to_the_left, -forwards, -down]) * scale
    parts.append(ellipsoid(points, heart_centre, heart_radii))

    # Often left of the trachea.
    oesophagus = (OESOPHAGUS + [rng.uniform(-4, 12), rng.uniform(-3, 4), 0]) * scale
    spine_y = patient.cavity[1] * rng.uniform(0.42, 0.72)
    parts.append(np.hypot(canvas.x, canvas.y - spine_y) - rng.uniform(18, 25) * scale)
    parts.append(_descending_aorta_distance(canvas, scale, rng.uniform(11, 18)))
    parts.append(tube(points, ARCH_OF_AORTA * scale, rng.uniform(13, 19)))
    for path in airway.paths:
        parts.append(tube(points, path, patient.trachea_radius + rng.uniform(0.3, 3)))
    parts.append(tube(points, oesophagus, rng.uniform(7, 11)))

    for side in (-1, 1):
        hilum = np.array([side * rng.uniform(30, 44), 4, -24]) * scale
        parts.append(ellipsoid(points, hilum, rng.uniform(8, 22, 3) * scale))
    distance = np.minimum.reduce(parts)
    return Mediastinum(distance, heart_centre, heart_radii, oesophagus, spine_y)


def _septum_distance(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the tissue in the middle plane, 15 to 24 mm to each side.

    It is wider towards the neck. Behind the sternum, in front of the heart, the lungs almost touch:
    only a thin junction is between them.
    """
    x, y, z = canvas.points()
    behind_sternum = ramp(-y, 5, 45) * ramp(z, -70, -20) * ramp(-z, -75, -40)  # 0 to 1
    elsewhere = 1 - behind_sternum
    half_septum = (rng.uniform(15, 24) + 12 * ramp(z, 40, patient.apex)) * patient.scale
    half_junction = patient.junction / 2
    half_width = half_septum * elsewhere + half_junction * behind_sternum
    septum_x, junction_x = rng.uniform(-5, 5), rng.uniform(-14, 14)
    return np.abs(x - septum_x - junction_x * behind_sternum) - half_width


def _roots_distance(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the roots of the lungs: fat and vessels around the main bronchi."""
    centre = np.array([rng.uniform(-4, 4), 4, -14]) * patient.scale
    radii = rng.uniform([28, 22, 22], [46, 36, 40]) * patient.scale
    return ellipsoid(canvas.points(), centre, radii)


def _recesses_distance(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """Signed distance to the :data:`RECESSES` that this patient has."""
    parts = [np.full_like(canvas.x, FAR_AWAY_MM)]
    for recess in RECESSES:
        if rng.random() >= recess.chance:
            continue
        # Those above the carina follow the trachea, which leans to the front and to a side.
        follows_trachea = recess.z[0] > 0
        top = patient.trachea_top
        lean_x, lean_y = top[:2] / top[2] if follows_trachea else np.zeros(2)
        z = rng.uniform(*recess.z)
        x = recess.side * 30 + lean_x * z
        y = rng.uniform(*recess.y) + lean_y * z
        centre = np.array([x, y, z]) * patient.scale
        radii = [rng.uniform(*recess.reach), rng.uniform(8, 24), rng.uniform(20, 50)]
        parts.append(ellipsoid(canvas.points(), centre, np.array(radii) * patient.scale))
    return np.minimum.reduce(parts)


def _descending_aorta_distance(canvas: Canvas, scale: float, radius: float) -> np.ndarray:
    """Signed distance to the descending aorta, next to the spine."""
    sideways = canvas.x - DESCENDING_AORTA_X * scale
    backwards = canvas.y - DESCENDING_AORTA_Y * scale
    below_arch = canvas.z - DESCENDING_AORTA_TOP * scale
    return np.maximum(np.hypot(sideways, backwards) - radius, below_arch)


def paint_heart(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, mediastinum: Mediastinum
) -> None:
    """Paint the heart: its muscle, and the blood in its chambers, a little to the left.

    The muscle is 3 to 10 mm smaller than the space of the heart, so that fat surrounds it.
    """
    centre, radii = mediastinum.heart_centre, mediastinum.heart_radii
    muscle_hu = HEART_ENHANCEMENT * patient.blood_hu + HEART_MUSCLE_HU
    canvas.ellipsoid(centre, radii - rng.uniform(3, 10), muscle_hu, BACKGROUND)
    chambers = (radii - 8) * rng.uniform(0.4, 0.7, 3)
    canvas.ellipsoid(centre + [8, 0, 5], chambers, patient.blood_hu, BACKGROUND)


def paint_lymph_nodes(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint up to seven lymph nodes around the bronchi, with radii of 3 to 11 mm."""
    for _ in range(rng.integers(0, MOST_LYMPH_NODES + 1)):
        centre = rng.normal(0, 1, 3) * [22, 12, 20] + [0, 0, -8]
        canvas.ellipsoid(centre, rng.uniform(3, 11, 3), rng.uniform(10, 70), BACKGROUND)


def paint_oesophagus(canvas: Canvas, rng: np.random.Generator, mediastinum: Mediastinum) -> None:
    """Paint the oesophagus, sometimes with gas in one of three parts: air next to the trachea."""
    path = mediastinum.oesophagus
    canvas.tube(path, rng.uniform(5, 9), OESOPHAGUS_HU, BACKGROUND)
    if rng.random() < OESOPHAGEAL_GAS_CHANCE:
        first = rng.integers(0, len(path) - 1)
        canvas.tube(path[first : first + 2], rng.uniform(1.5, 7), AIR, BACKGROUND)
