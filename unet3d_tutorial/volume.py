"""A volume and where it lies in the patient: voxels plus affine, read from and written to NIfTI."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np


@dataclass(frozen=True)
class Volume:
    """Voxels and the map from voxel index to patient position.

    ``array`` is ``(I, J, K)``, or ``(C, I, J, K)`` once a channel axis was added. ``affine`` is 4 x 4 and takes an index
    ``(i, j, k, 1)`` to millimetres towards the patient's right, front and head (RAS+, nibabel's convention).
    """

    array: np.ndarray
    affine: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each array axis, in mm."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def axis_codes(self) -> str:
        """Where each array axis points, for example ``"RAS"`` or ``"LPS"``."""
        return "".join(nib.aff2axcodes(self.affine))


def load_volume(path: str | Path) -> Volume:
    """Read a 3-D NIfTI file. Integer files keep their type; scaled ones come as float32.

    Raises ``FileNotFoundError`` if there is no file and ``ValueError``, naming the file, if it is not a sound 3-D volume.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        image = nib.load(path)
        slope, inter = image.dataobj.slope, image.dataobj.inter
        scaled = not (slope == 1 and inter == 0)
        array = np.asarray(image.dataobj, dtype=np.float32 if scaled else None)
    except Exception as error:  # nibabel, zlib and the operating system each raise their own kinds
        raise ValueError(f"{path} cannot be read as NIfTI: {error}") from error
    if array.ndim != 3:
        raise ValueError(f"{path}: expected a 3-D volume, found shape {array.shape}")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path}: expected a finite affine with positive spacing, found {image.affine.tolist()}")
    return Volume(array, image.affine)


def save_volume(volume: Volume, path: str | Path) -> Path:
    """Write a ``.nii.gz`` file whole or not at all: to a temporary name first, then rename."""
    path = Path(path)
    if not path.name.endswith(".nii.gz"):
        raise ValueError(f"expected a name that ends in .nii.gz, found {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    part = path.with_name(path.name.removesuffix(".nii.gz") + ".part.nii.gz")
    try:
        nib.save(image, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
