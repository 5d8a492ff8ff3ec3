"""The large vessels of a phantom's chest, and the streaks around dense contrast agent.

Paths are centre lines in the patient's frame at scale 1: mm from the carina, x to the left, y to
the back, z to the head. Vessels are not lung, so they get the label of the background.
"""

import numpy as np

from .canvas import BACKGROUND, Canvas
from .patient import Patient

#: Out of the heart upwards, over the left main bronchus to the back, down along the spine.
AORTA = np.array(
    [
        [5, -25, -40],
        [-12, -28, 25],
        [2, -8, 38],
        [22, 22, 34],
        [23, 35, 5],
        [20, 40, -260],
    ]
)
#: Down into the heart, on the right of the aorta.
VENA_CAVA = np.array([[-22, -22, -40], [-22, -18, 60]])
#: Out of the heart upwards, then to the right, under the arch of the aorta.
PULMONARY_TRUNK = np.array([[12, -25, -30], [12, -15, -8], [-25, 0, -14]])
LEFT_PULMONARY_ARTERY = np.array([[14, -14, -6], [34, 8, -4], [46, 14, -20]])
RIGHT_PULMONARY_ARTERY = np.array([[-25, 0, -14], [-44, 6, -26]])

#: HU of undiluted contrast agent on its way from an arm's vein to the heart.
INFLOW_HU = (400, 2500)
BODY_EDGE_HU = -980  #: below this is air, where streaks are not added


def paint_great_vessels(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint aorta, superior vena cava, pulmonary arteries, and the left atrium behind them.

    The vena cava has a different brightness, because contrast agent enters through it.
    """
    scale, blood = patient.scale, patient.blood_hu

    def vessel(path: np.ndarray, radius: float, hu: float = blood) -> None:
        """Paint one vessel; ``radius`` is in mm and not scaled with the patient."""
        canvas.tube(path * scale, radius, hu, BACKGROUND)

    vessel(AORTA, rng.uniform(9, 16))
    vessel(VENA_CAVA, rng.uniform(6, 11), blood * rng.uniform(0.7, 1.6))
    vessel(PULMONARY_TRUNK, rng.uniform(7, 13))
    vessel(LEFT_PULMONARY_ARTERY, rng.uniform(6, 11))
    vessel(RIGHT_PULMONARY_ARTERY, rng.uniform(6, 10))

    atrium_centre = np.array([4, 14, -rng.uniform(44, 58)]) * scale
    atrium_radii = rng.uniform([28, 14, 14], [42, 24, 24]) * scale
    canvas.ellipsoid(atrium_centre, atrium_radii, blood, BACKGROUND)


def paint_upper_vessels(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint the vessels of the neck and the arms.

    Contrast agent may enter through one arm, dense enough to cause streaks. The vessels of an arm
    run above the apex of the lung, not through it.
    """
    scale = patient.scale
    inflow = rng.choice([-1, 0, 1])  # the side of the arm it comes in through, 0 for none
    for side in (-1, 1):
        arm_hu = rng.uniform(*INFLOW_HU) if side == inflow else patient.blood_hu
        to_neck = np.array([[side * 8, -20, 38], [side * 24, -12, 75], [side * 30, -5, 160]])
        canvas.tube(to_neck * scale, rng.uniform(4, 8), patient.blood_hu, BACKGROUND)
        over_lung = patient.apex / scale + rng.uniform(8, 15)
        to_arm = np.array(
            [
                [-20, -22, 40],
                [side * 12, -26, 62],
                [side * 18, -24, over_lung],
                [side * 80, -15, over_lung],
            ]
        )
        canvas.tube(to_arm * scale, rng.uniform(4, 8), arm_hu, BACKGROUND)
    if inflow:
        place = np.array([inflow * rng.uniform(-25, 60), -22, rng.uniform(30, 85)])
        add_beam_hardening(canvas, rng, place * scale)


def add_beam_hardening(canvas: Canvas, rng: np.random.Generator, centre: np.ndarray) -> None:
    """Add dark and bright rays in the axial plane around a vessel full of contrast agent.

    Dense material absorbs the low-energy part of the X-rays (beam hardening), and the
    reconstruction turns this into rays around it. They fade within a few centimetres of ``centre``,
    which is given in mm.
    """
    centre_x, centre_y, centre_z = centre
    x, y = canvas.x - centre_x, canvas.y - centre_y
    number_of_rays = rng.integers(2, 7)
    rays = np.cos(number_of_rays * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi))
    in_plane = -np.hypot(x, y) / rng.uniform(15, 40)
    across = ((canvas.z - centre_z) / rng.uniform(10, 30)) ** 2
    fade = np.exp(in_plane - across)
    inside_body = canvas.hu > BODY_EDGE_HU
    strength = rng.uniform(80, 400)  # HU
    canvas.hu += strength * (rays - 0.3) * fade * inside_body
