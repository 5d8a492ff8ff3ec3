"""Diseases of a phantom's lungs: most keep the label lung, an effusion does not.

Positions are in the patient's frame: mm from the carina, x to the left, y to the back, z to the
head. ``lung`` is the signed distance to both lungs in mm, ``inside`` the share of each voxel that
is lung. Each disease is drawn independently, so a patient may have several.
"""

import numpy as np

from .canvas import BACKGROUND, Canvas
from .patient import Patient
from .shapes import FAR_AWAY_MM, ellipsoid

# The probability of each disease.
PATCHES_CHANCE = 0.3
LOBE_CHANCE = 0.15
EMPHYSEMA_CHANCE = 0.2
FIBROSIS_CHANCE = 0.2
EFFUSION_CHANCE = 0.2
EFFUSION_ON_ONE_SIDE = 0.7  #: share of the effusions that are on one side only
MEAN_NODULES = 1.0  #: mean number of nodules per patient

# HU
PATCHES_HU = (-650, 60)  #: from ground glass, where vessels stay visible, to no air at all
LOBE_HU = (-150, 60)
EMPHYSEMA_HU = (-980, -920)
FIBROSIS_HU = (-400, 0)
NODULE_HU = (-50, 80)
ATELECTASIS_HU = (20, 70)
FLUID_HU = (0, 30)

#: Radii of a small and a large nodule, and of a small and a large mass, in mm.
NODULE_RADII_MM = [5, 10, 18, 32]


def paint_diseases(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, lung: np.ndarray
) -> None:
    """Paint diseases into the lungs; which ones this patient has is random."""
    inside = canvas.share(lung)
    if rng.random() < PATCHES_CHANCE:
        paint_patches(canvas, rng, inside)
    if rng.random() < LOBE_CHANCE:
        paint_consolidated_lobe(canvas, rng, inside)
    if rng.random() < EMPHYSEMA_CHANCE:
        paint_emphysema(canvas, rng, inside)
    if rng.random() < FIBROSIS_CHANCE:
        paint_fibrosis(canvas, rng, inside, lung)
    for _ in range(rng.poisson(MEAN_NODULES)):
        paint_nodule(canvas, rng, inside)
    if rng.random() < EFFUSION_CHANCE:
        paint_effusion(canvas, patient, rng, lung)


def _fill(canvas: Canvas, inside: np.ndarray, share: np.ndarray, hu: float) -> None:
    """Blend ``hu`` into the lungs by ``share``, which is clipped to 0..1.

    ``inside`` is the share of each voxel that is lung. The labels do not change.
    """
    canvas.hu += inside * np.clip(share, 0, 1) * (hu - canvas.hu)


def paint_patches(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    """Paint patchy consolidation or ground glass, with bumps of 15 to 60 mm, anywhere."""
    patches = canvas.noise(rng, rng.uniform(15, 60)) - rng.uniform(0.6, 1.8)
    _fill(canvas, inside, patches * rng.uniform(1, 4), rng.uniform(*PATCHES_HU))


def paint_consolidated_lobe(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    """Paint a whole region without air, as in lobar pneumonia or collapse: 25 to 65 mm in radius.

    It is more often in the back and in the lower lung.
    """
    centre = rng.normal(0, 1, 3) * [70, 40, 60] + [0, 20, -40]
    region = ellipsoid(canvas.points(), centre, rng.uniform(25, 65, 3))
    _fill(canvas, inside, -region / 12, rng.uniform(*LOBE_HU))


def paint_emphysema(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    """Paint emphysema: black holes of 10 to 30 mm, as dark as air."""
    holes = canvas.noise(rng, rng.uniform(10, 30)) - rng.uniform(0.3, 1.2)
    _fill(canvas, inside, holes * 3, rng.uniform(*EMPHYSEMA_HU))


def paint_fibrosis(
    canvas: Canvas, rng: np.random.Generator, inside: np.ndarray, lung: np.ndarray
) -> None:
    """Paint fibrosis: a network under the pleura that fades into the lung over 10 to 25 mm."""
    net = np.abs(canvas.noise(rng, 9)) < 0.35
    fade = np.exp(lung / rng.uniform(10, 25))
    _fill(canvas, inside, net * fade, rng.uniform(*FIBROSIS_HU))


def paint_nodule(canvas: Canvas, rng: np.random.Generator, inside: np.ndarray) -> None:
    """Paint a nodule or a mass, of 3.5 to 45 mm in radius, anywhere.

    Any part of it outside the lungs is not painted.
    """
    centre = rng.normal(0, 1, 3) * [80, 45, 70]
    radii = rng.choice(NODULE_RADII_MM) * rng.uniform(0.7, 1.4, 3)
    nodule = ellipsoid(canvas.points(), centre, radii)
    _fill(canvas, inside, -nodule / 4, rng.uniform(*NODULE_HU))


def paint_effusion(
    canvas: Canvas, patient: Patient, rng: np.random.Generator, lung: np.ndarray
) -> None:
    """Paint fluid that collects on the lower side, in one half of the chest or in both.

    The lung above it is compressed (atelectasis) and stays lung; the fluid is background.
    """
    depth = patient.down * canvas.y  # how far down a voxel is
    level = rng.uniform(0.1, 0.75) * patient.cavity[1]
    # Low in the chest the fluid is deeper.
    level = level - 0.35 * np.maximum(-canvas.z - rng.uniform(0, 120), 0)
    if rng.random() < EFFUSION_ON_ONE_SIDE:
        side = canvas.x * rng.choice([-1, 1]) > 0
    else:
        side = np.ones_like(canvas.x, bool)
    fluid = np.maximum(np.where(side, level - depth, FAR_AWAY_MM), lung)
    atelectasis = np.maximum(fluid - rng.uniform(2, 14), lung)
    canvas.paint(atelectasis, rng.uniform(*ATELECTASIS_HU))
    canvas.paint(fluid, rng.uniform(*FLUID_HU), BACKGROUND)
