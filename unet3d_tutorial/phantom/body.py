"""The outside of a phantom: arms, trunk with neck and head, breasts; skin, fat and muscle.

All functions paint in the patient's frame: mm from the carina, x to the left, y to the back, z to
the head.
"""

import numpy as np

from .canvas import Canvas
from .patient import Patient
from .shapes import ramp, superellipse
from .tissues import FAT, MUSCLE, SKIN

TRUNK_SQUARENESS = 2.4  #: exponent of the trunk's superellipse
SKIN_MM = 2.0  #: thickness of the skin
HEAD_MM = 30  #: how much larger the head's radius is than the neck's
NECK_FAT = 0.3  #: thickness of the fat at the neck, relative to that of the trunk

BLANKET_CHANCE = 0.35
BLANKET_HU = -300.0

# An arm is a tube of fat with muscle, bone and marrow inside; it ends far outside the image.
ARM_RADIUS_MM = (28, 50)  #: of a slim arm
ARM_FAT = 0.3  #: share of the trunk's fat thickness that is added to this radius
ARM_MUSCLE = 0.8  #: radius of the muscle, relative to the arm's
ARM_BONE_RADIUS_MM = (10, 14)
ARM_BONE_HU = 500.0
MARROW_RADIUS_MM = 6.0
MARROW_HU = 50.0
HAND_ABOVE_SHOULDERS_MM = 220  #: if the arms are up
HAND_Z_MM = -400  #: if the arms are down

GLANDS_HU = (-60, 40)


def paint_body(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint arms, blanket, skin, fat, breasts and muscle.

    The chest is filled with muscle; the organs inside are painted later.
    """
    shoulders = patient.apex + rng.uniform(-5, 25)  # z at which they begin to narrow
    slope = rng.uniform(25, 75)  # height of the shoulders, in mm
    neck = ramp(canvas.z, shoulders, shoulders + slope)  # 0 trunk, 1 neck or head
    muscle = _muscle_distance(canvas, patient, rng, shoulders, neck)
    if patient.arms != "none":
        half_width = patient.cavity[0] + patient.wall + patient.fat
        paint_arms(canvas, patient, rng, half_width, shoulders)

    less_at_neck = 1 - (1 - NECK_FAT) * neck
    fat = patient.fat * less_at_neck * (1 + 0.3 * canvas.noise(rng, 90))
    skin = muscle - fat
    if rng.random() < BLANKET_CHANCE:
        paint_blanket(canvas, rng, skin)
    canvas.paint(skin - SKIN_MM, SKIN)
    canvas.paint(skin, FAT)
    if patient.breasts:
        paint_breasts(canvas, patient, rng)
    paint_muscle(canvas, rng, muscle)


def _muscle_distance(
    canvas: Canvas,
    patient: Patient,
    rng: np.random.Generator,
    shoulders: float,
    neck: np.ndarray,
) -> np.ndarray:
    """Signed distance in mm to the surface of the muscles of trunk, neck and head.

    The surface is a stack of superellipses around the body's axis; at the neck they become circles.
    """
    z = canvas.z
    half_width, half_depth = patient.cavity + patient.wall
    # If the arms are down, the shoulders are broad.
    breadth = rng.uniform(25, 60) if patient.arms == "down" else rng.uniform(0, 35)
    shoulder_width = ramp(z, patient.apex - 90, shoulders) * breadth
    neck_radius = rng.uniform(48, 70) + HEAD_MM * ramp(z, shoulders + 120, shoulders + 160)
    flattening = 1 - 0.25 * ramp(z, 30, shoulders)  # the upper chest is flat

    trunk = 1 - neck
    radius_x = (half_width + shoulder_width) * trunk + neck_radius * neck
    radius_y = half_depth * flattening * trunk + neck_radius * neck
    return superellipse(canvas.x, canvas.y, radius_x, radius_y, TRUNK_SQUARENESS)


def paint_arms(
    canvas: Canvas,
    patient: Patient,
    rng: np.random.Generator,
    half_width: float,
    shoulders: float,
) -> None:
    """Paint two arms, each with one bone: up next to the head, or down next to the trunk.

    ``half_width`` is that of the trunk, ``shoulders`` the z of the shoulders, both in mm.
    """
    for side in (-1, 1):
        radius = rng.uniform(*ARM_RADIUS_MM) + ARM_FAT * patient.fat
        shoulder = np.array(
            [
                side * half_width * rng.uniform(0.75, 0.95),
                rng.uniform(-10, 25),
                shoulders - 30,
            ]
        )
        hand = [
            side * rng.uniform(0.5, 1.0) * half_width,
            rng.uniform(-50, 30),
            shoulders + HAND_ABOVE_SHOULDERS_MM,
        ]
        if patient.arms == "down":
            shoulder[0] = side * (half_width + radius * rng.uniform(0.3, 0.9))
            hand = [
                side * (half_width + radius * rng.uniform(0.9, 1.6)),
                rng.uniform(-20, 40),
                HAND_Z_MM,
            ]
        arm = np.array([shoulder, hand])
        bone_radius = rng.uniform(*ARM_BONE_RADIUS_MM)
        canvas.tube(arm, radius, FAT)
        canvas.tube(arm, radius * ARM_MUSCLE, MUSCLE)
        canvas.tube(arm, bone_radius, ARM_BONE_HU)
        canvas.tube(arm, MARROW_RADIUS_MM, MARROW_HU)


def paint_blanket(canvas: Canvas, rng: np.random.Generator, skin: np.ndarray) -> None:
    """Paint a blanket of 1 to 3 mm around the body, with 4 to 30 mm of air under it."""
    surface = np.abs(skin - rng.uniform(4, 30) - 6 * canvas.noise(rng, 60))
    canvas.paint(surface - rng.uniform(0.5, 1.5), BLANKET_HU)


def paint_breasts(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint two breasts of fat with glands in them, in front of the chest.

    Their centres are 20 to 70 mm below the carina.
    """
    half_depth = patient.cavity[1] + patient.wall
    for side in (-1, 1):
        centre = (
            side * patient.cavity[0] * rng.uniform(0.5, 0.65),
            -half_depth * 0.8 - patient.fat,
            rng.uniform(-70, -20),
        )
        radii = patient.breasts * rng.uniform(0.7, 1.1, 3)
        canvas.ellipsoid(centre, radii, FAT)
        glands = radii * rng.uniform(0.3, 0.7)
        canvas.ellipsoid(centre, glands, rng.uniform(*GLANDS_HU))


def paint_muscle(canvas: Canvas, rng: np.random.Generator, muscle: np.ndarray) -> None:
    """Fill the body with muscle, and with streaks of fat between the muscles.

    ``muscle`` is the signed distance to their surface.
    """
    canvas.paint(muscle, MUSCLE + 12 * canvas.noise(rng, 12))
    streaks = np.abs(canvas.noise(rng, 18)) - rng.uniform(0.05, 0.25)
    canvas.paint(np.maximum(muscle + 3, streaks * 12), FAT)
