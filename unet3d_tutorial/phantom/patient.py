"""The measures of a synthetic patient that more than one organ needs."""

from dataclasses import dataclass

import numpy as np

from .tissues import Range


@dataclass(frozen=True)
class Family:
    """The bounds that differ between families; everything else has the same ranges."""

    deepest_chest: float  #: greatest half depth of the rib cage at scale 1, in mm
    squarest_chest: float  #: greatest exponent of the rib cage's superellipse
    tilt: float  #: standard deviation of the rotations, in radians
    warp: float  #: how strongly the body is bent, relative to the training family


#: The families in the order of their numbers, which are part of a phantom's seed.
FAMILIES = {
    "train": Family(deepest_chest=98, squarest_chest=2.8, tilt=0.06, warp=1.0),
    "holdout": Family(deepest_chest=105, squarest_chest=3.2, tilt=0.09, warp=1.3),
}

PARALYSIS_LIFT_MM = 55  #: how much higher a paralysed half of the diaphragm is, at scale 1
PARALYSIS_CHANCE = 0.06  #: of each half
BREASTS_CHANCE = 0.45
PRONE_CHANCE = 0.06


@dataclass
class Patient:
    """The measures of one synthetic patient; :meth:`draw` picks them at random.

    Lengths are millimetres. Positions are counted from the carina: x towards the patient's left, y
    towards the back, z towards the head. Pairs of sides are left, right.
    """

    scale: float  #: overall size, no unit: 1 is an average adult
    cavity: np.ndarray  #: half width and half depth of the rib cage, inside, in mm
    squareness: float  #: exponent of the rib cage's superellipse, no unit: 2 is an ellipse
    wall: float  #: thickness of muscle and ribs around the rib cage, in mm
    fat: float  #: thickness of the fat under the skin, in mm
    apex: float  #: z of the lungs' tops, in mm
    domes: np.ndarray  #: z of the left and the right dome of the diaphragm, in mm
    dome_height: float  #: how far the diaphragm falls from its domes to the rib cage, in mm
    #: thickness of the tissue where the lungs nearly touch in front of the heart, in mm
    junction: float
    lung_hu: float  #: mean of healthy lung, in HU
    blood_hu: float  #: heart and vessels, in HU: 30 to 55 plain, 80 to 380 with contrast agent
    trachea_radius: float  #: of the air in it, in mm
    #: x, y, z of the lower edge of the larynx, where the trachea's label ends, in mm
    trachea_top: np.ndarray
    arms: str  #: ``"up"`` next to the head, ``"down"`` next to the trunk, or ``"none"``
    breasts: float  #: radius of the breasts in mm, 0 for none
    prone: bool  #: lying on the front, so that gas rises towards the back
    tilt: np.ndarray  #: rotation about x, y and z, in radians

    @classmethod
    def draw(cls, rng: np.random.Generator, family: str) -> "Patient":
        """Draw a patient of a family, ``"train"`` or ``"holdout"``.

        The held-out family includes deeper, squarer and more tilted chests. The order of the draws
        is part of the recipe: a different order gives different patients.
        """
        bounds = FAMILIES[family]
        scale = rng.uniform(0.8, 1.12)
        apex = rng.uniform(78, 115) * scale
        dome = -rng.uniform(75, 135) * scale
        paralysed = rng.random(2) < PARALYSIS_CHANCE
        half_width = rng.uniform(112, 142)
        half_depth = rng.uniform(70, bounds.deepest_chest)
        return cls(
            scale=scale,
            cavity=np.array([half_width, half_depth]) * scale,
            squareness=rng.uniform(2.1, bounds.squarest_chest),
            wall=rng.uniform(14, 26),
            fat=_fat_thickness(rng),
            apex=apex,
            domes=_dome_heights(rng, dome) + PARALYSIS_LIFT_MM * scale * paralysed,
            dome_height=rng.uniform(45, 100) * scale,
            junction=_uniform_of_two(rng, 0.5, (0.5, 3), (3, 14)),
            lung_hu=_uniform_of_two(rng, 0.8, (-890, -740), (-740, -620)),
            blood_hu=_uniform_of_two(rng, 0.5, (30, 55), (80, 380)),
            trachea_radius=rng.uniform(6.0, 11.0) * scale**0.5,
            trachea_top=_larynx(rng) * scale,
            arms=str(rng.choice(["up", "down", "none"], p=[0.5, 0.3, 0.2])),
            breasts=rng.uniform(35, 85) if rng.random() < BREASTS_CHANCE else 0.0,
            prone=rng.random() < PRONE_CHANCE,
            tilt=rng.normal(0, bounds.tilt, 3),
        )

    @property
    def down(self) -> int:
        """The direction of gravity along y: 1, to the back, or -1 for a prone patient."""
        return -1 if self.prone else 1


def _fat_thickness(rng: np.random.Generator) -> float:
    """Thickness of the fat under the skin in mm: slim, average and obese are equally frequent."""
    slim = rng.uniform(3, 14)
    average = rng.uniform(10, 28)
    obese = rng.uniform(28, 55)
    return rng.choice([slim, average, obese])


def _dome_heights(rng: np.random.Generator, dome: float) -> np.ndarray:
    """z of the left and the right dome in mm; the left one, under the heart, is usually lower."""
    lower = rng.uniform(-5, 22)
    return np.array([dome - lower, dome])


def _larynx(rng: np.random.Generator) -> np.ndarray:
    """x, y, z of the lower edge of the larynx at scale 1, in mm: in front of the carina."""
    sideways = rng.normal(0, 5)
    forwards = rng.uniform(5, 42)
    return np.array([sideways, -forwards, rng.uniform(85, 120)])


def _uniform_of_two(rng: np.random.Generator, chance: float, first: Range, second: Range) -> float:
    """A number from the range ``first`` with this probability, otherwise from ``second``."""
    low, high = first if rng.random() < chance else second
    return rng.uniform(low, high)
