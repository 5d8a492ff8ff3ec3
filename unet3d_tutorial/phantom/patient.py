"""The measures of a synthetic patient, and the part of the patient that the scanner sees."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Patient:
    """The measures of one synthetic patient, in mm unless said otherwise.

    ``draw`` picks them at random.
    """

    scale: float  #: overall size, 1 is an average adult
    cavity: np.ndarray  #: half width and half depth of the rib cage, inside
    squareness: float  #: exponent of the rib cage's superellipse, 2 is an ellipse
    wall: float  #: thickness of muscle and ribs
    fat: float  #: thickness of the fat under the skin
    apex: float  #: z of the lungs' tops
    domes: np.ndarray  #: z of the left and the right dome of the diaphragm
    dome_height: float  #: how far the diaphragm falls from dome to rib cage
    junction: float  #: thickness of the tissue where the lungs nearly touch in front of the heart
    lung_hu: float  #: mean HU of healthy lung
    blood_hu: float  #: HU of heart and vessels: 40 plain, up to 350 with contrast agent
    trachea_radius: float
    #: x, y, z of the lower edge of the larynx, where the trachea's label ends
    trachea_top: np.ndarray
    arms: str  #: "up", "down" or "none" (outside the field of view)
    breasts: float  #: radius of the breasts, 0 for none
    prone: bool  #: lying on the front, so that gas rises towards the back
    tilt: np.ndarray  #: rotation about x, y and z in radians

    @classmethod
    def draw(cls, rng: np.random.Generator, family: str) -> "Patient":
        """Draw a patient. ``"holdout"`` reaches to deeper, squarer and more tilted chests than
        ``"train"``.
        """
        holdout = family == "holdout"
        scale = rng.uniform(0.8, 1.12)
        apex = rng.uniform(78, 115) * scale
        dome = -rng.uniform(75, 135) * scale
        lift = 55 * scale * (rng.random(2) < 0.06)  # a paralysed half of the diaphragm stands high
        return cls(
            scale=scale,
            cavity=np.array([rng.uniform(112, 142), rng.uniform(70, 105 if holdout else 98)])
            * scale,
            squareness=rng.uniform(2.1, 3.2 if holdout else 2.8),
            wall=rng.uniform(14, 26),
            fat=rng.choice([rng.uniform(3, 14), rng.uniform(10, 28), rng.uniform(28, 55)]),
            apex=apex,
            domes=np.array([dome - rng.uniform(-5, 22), dome]) + lift,
            dome_height=rng.uniform(45, 100) * scale,
            junction=rng.uniform(0.5, 3) if rng.random() < 0.5 else rng.uniform(3, 14),
            lung_hu=rng.uniform(-890, -740) if rng.random() < 0.8 else rng.uniform(-740, -620),
            blood_hu=rng.uniform(30, 55) if rng.random() < 0.5 else rng.uniform(80, 380),
            trachea_radius=rng.uniform(6.0, 11.0) * scale**0.5,
            trachea_top=np.array([rng.normal(0, 5), -rng.uniform(5, 42), rng.uniform(85, 120)])
            * scale,
            arms=rng.choice(["up", "down", "none"], p=[0.5, 0.3, 0.2]),
            breasts=rng.uniform(35, 85) if rng.random() < 0.45 else 0.0,
            prone=rng.random() < 0.06,
            tilt=rng.normal(0, 0.09 if holdout else 0.06, 3),
        )


def field_of_view(
    p: Patient, rng: np.random.Generator, spacing_mm: float
) -> tuple[tuple[int, ...], float, np.ndarray]:
    """Grid shape, spacing and centre: from tight around the lungs, skin cut off, to 500 mm wide;
    chest to abdomen.
    """
    body_width = 2 * (p.cavity[0] + p.wall + p.fat)
    width = np.clip(rng.uniform(0.82, 1.35) * body_width, 240, 500)
    bottom = p.domes.min() - rng.uniform(40, 190)
    top = p.apex + rng.uniform(-8, 40) if rng.random() < 0.75 else p.apex + rng.uniform(40, 180)
    shape = [int(round(extent / spacing_mm)) for extent in (width, width, top - bottom)]
    centre = np.array([*rng.normal(0, 0.03 * width, 2), (top + bottom) / 2])
    return tuple(shape), spacing_mm, centre
