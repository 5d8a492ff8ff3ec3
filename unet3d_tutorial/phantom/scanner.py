"""What the scanner adds to a phantom: the couch, and the artefacts in the image.

The couch is painted in the patient's frame, mm from the carina. Most artefacts are in the scanner's
frame: voxels, and the straight axes of the grid.
"""

import numpy as np
from scipy import ndimage

from .canvas import Canvas
from .patient import Patient
from .shapes import ramp

#: Voxels darker than this are neither patient nor clothes, and may be covered by the couch.
EMPTY_HU = -300
COUCH_SHELL_HU = (-400, 150)
COUCH_CORE_HU = (-1000, -860)  #: air or foam

BODY_EDGE_HU = -900  #: below this is air, where streaks are not added
STREAKS_CHANCE = 0.3
SHIFT_CHANCE = 0.1
SHIFT_HU = 20  #: standard deviation of the offset of a badly calibrated scanner
LOWEST_HU, HIGHEST_HU = -1024, 3071  #: the range of 12 bits
#: HU that scanners write outside the round field of view; ``None`` leaves the voxels unchanged.
PADDING_HU = (None, -1024, -2048, -3024)
PADDING_CHANCES = (0.3, 0.3, 0.2, 0.2)


def paint_couch(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint the couch under the patient: one or two thin shells with air or foam between.

    It is flat or a shallow trough, 0 to 25 mm below the skin.
    """
    back = patient.cavity[1] + patient.wall + patient.fat  # from the body's axis to the skin
    down = patient.down
    curvature = rng.choice([0, rng.uniform(0.0003, 0.0015)])  # 1/mm
    surface = canvas.y + down * curvature * canvas.x**2
    height = down * surface - back - rng.uniform(0, 25)  # below the top of the couch
    half_width = rng.uniform(180, 260)
    thickness = rng.uniform(25, 70)
    too_high_or_low = np.maximum(-height, height - thickness)
    slab = np.maximum(too_high_or_low, np.abs(canvas.x) - half_width)

    empty = canvas.hu < EMPTY_HU
    is_core = canvas.share(slab + rng.uniform(1, 4)) > 0.5
    couch = np.where(is_core, rng.uniform(*COUCH_CORE_HU), rng.uniform(*COUCH_SHELL_HU))
    canvas.hu += np.where(empty, canvas.share(slab), 0) * (couch - canvas.hu)


def add_scanner_marks(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Turn the painting into a scan: kernel, streaks, noise, offset, a round field of view."""
    apply_kernel(canvas, rng)
    if rng.random() < STREAKS_CHANCE:
        add_streaks(canvas, patient, rng)
    noise_hu = rng.gamma(2.0, 9.0)
    canvas.hu += noise_hu * rng.standard_normal(canvas.hu.shape, dtype=np.float32)
    if rng.random() < SHIFT_CHANCE:
        canvas.hu += rng.normal(0, SHIFT_HU)
    cut_round(canvas, rng)


def apply_kernel(canvas: Canvas, rng: np.random.Generator) -> None:
    """Smooth the image like a soft reconstruction kernel, or sharpen it like a hard one.

    The Gaussian's standard deviation is 0.3 to 0.75 voxels in the slice, and up to 1.8 times that
    across slices, because slices are often thick.
    """
    widths = np.array([1, 1, rng.uniform(1, 1.8)]) * rng.uniform(0.3, 0.75)
    smooth = ndimage.gaussian_filter(canvas.hu, widths, truncate=3)
    if rng.random() < 0.8:
        canvas.hu = smooth
    else:
        canvas.hu = canvas.hu + rng.uniform(0, 0.4) * (canvas.hu - smooth)


def add_streaks(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Add streaks from side to side at the level of the shoulders, which absorb most X-rays.

    They begin 60 mm below the apices of the lungs.
    """
    streaks = rng.standard_normal((1, *canvas.hu.shape[1:])).astype(np.float32)
    streaks = streaks * ramp(canvas.z, patient.apex - 60, patient.apex)
    strength = rng.uniform(20, 120)  # HU
    canvas.hu += strength * streaks * (canvas.hu > BODY_EDGE_HU)


def cut_round(canvas: Canvas, rng: np.random.Generator) -> None:
    """Clip the HU to 12 bits, and pad the voxels outside the round field of view.

    The circle is as wide as the grid, or a little narrower.
    """
    x, y = canvas.straight_x, canvas.straight_y
    half_width = (x.max() - x.min()) / 2 + canvas.spacing_mm / 2
    radius = half_width * rng.uniform(0.97, 1.0)
    outside = np.hypot(x - x.mean(), y - y.mean()) > radius
    padding = PADDING_HU[rng.choice(len(PADDING_HU), p=PADDING_CHANCES)]
    np.clip(canvas.hu, LOWEST_HU, HIGHEST_HU, out=canvas.hu)
    if padding is not None:
        canvas.hu[outside] = padding
