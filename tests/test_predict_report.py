"""What is said of a mask: the volumes of its structures, and where it is."""

from pathlib import Path

import numpy as np

from unet3d_tutorial.predict.report import kept_line, mask_line, volumes
from unet3d_tutorial.volume import Volume


def test_volumes_in_millilitres():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[:5], labels[5:, :2] = 1, 3
    affine = np.diag([2, 2, 2.5, 1])
    cosine, sine = np.cos(np.radians(30)), np.sin(np.radians(30))
    affine[:2, :2] = 2 * np.array([[cosine, -sine], [sine, cosine]])  # turned, of the same size
    mask = Volume(labels, affine)
    known = "left lung 5 mL, right lung 0 mL, trachea 1 mL"
    assert volumes(mask) == known
    labels[5:, 2:4] = 5
    assert volumes(mask) == f"{known}, label 4 0 mL, label 5 1 mL"


def test_a_line_for_each_mask():
    mask = Volume(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    path = Path("masks/a.nii.gz")
    volumes_of_none = "left lung 0 mL, right lung 0 mL, trachea 0 mL"
    assert mask_line(path, mask) == f"masks/a.nii.gz: {volumes_of_none}"
    assert kept_line(path).startswith("masks/a.nii.gz: kept")
