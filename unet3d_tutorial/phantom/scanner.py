"""What the machine adds to a phantom: the table, the reconstruction, noise, streaks, a round field
of view.
"""

import numpy as np
from scipy import ndimage

from .canvas import Canvas, ramp
from .patient import Patient


def table(c: Canvas, p: Patient, rng: np.random.Generator, back: float) -> None:
    """A couch under the patient: one or two thin shells with air or foam between."""
    lower = -1 if p.prone else 1
    curve = rng.choice([0, rng.uniform(0.0003, 0.0015)])
    height = lower * (c.y + lower * curve * c.x**2) - back - rng.uniform(0, 25)
    half_width, thickness = rng.uniform(180, 260), rng.uniform(25, 70)
    slab = np.maximum(np.maximum(-height, height - thickness), np.abs(c.x) - half_width)
    outside = c.hu < -300
    filled = np.where(
        c.share(slab + rng.uniform(1, 4)) > 0.5, rng.uniform(-1000, -860), rng.uniform(-400, 150)
    )
    c.hu += np.where(outside, c.share(slab), 0) * (filled - c.hu)


def scanner(c: Canvas, p: Patient, rng: np.random.Generator, grid: tuple[np.ndarray, ...]) -> None:
    """What the machine adds: reconstruction kernel, noise, streaks through the shoulders, a round
    field of view.
    """
    # voxels; slices are often thick.
    blur = np.array([1, 1, rng.uniform(1, 1.8)]) * rng.uniform(0.3, 0.75)
    smooth = ndimage.gaussian_filter(c.hu, blur, truncate=3)
    c.hu = smooth if rng.random() < 0.8 else c.hu + rng.uniform(0, 0.4) * (c.hu - smooth)
    if rng.random() < 0.3:
        streak = rng.standard_normal((1, *c.hu.shape[1:])).astype(np.float32) * ramp(
            c.z, p.apex - 60, p.apex
        )
        c.hu += rng.uniform(20, 120) * streak * (c.hu > -900)
    c.hu += rng.gamma(2.0, 9.0) * rng.standard_normal(c.hu.shape, dtype=np.float32)
    if rng.random() < 0.1:
        c.hu += rng.normal(0, 20)
    x, y = grid
    radius = (x.max() - x.min()) / 2 + c.spacing_mm / 2
    outside = np.hypot(x - x.mean(), y - y.mean()) > radius * rng.uniform(0.97, 1.0)
    padding = rng.choice([None, -1024, -2048, -3024], p=[0.3, 0.3, 0.2, 0.2])
    np.clip(c.hu, -1024, 3071, out=c.hu)
    if padding is not None:
        c.hu[outside] = padding
