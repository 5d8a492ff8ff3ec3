"""A volume and where it lies in the patient: voxels plus affine, read from and written to NIfTI."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from .labels import COLORS, STRUCTURES


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
        raise ValueError(f"{path} cannot be read as NIfTI: {' '.join(str(error).split())}") from error
    if array.ndim != 3:
        raise ValueError(f"{path}: expected a 3-D volume, found shape {array.shape}")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path}: expected a finite affine with positive spacing, found {image.affine.tolist()}")
    return Volume(array, image.affine)


def save_volume(volume: Volume, path: str | Path) -> Path:
    """Write a ``.nii.gz`` file whole or not at all: to a temporary name first, then rename."""
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    return _write(image, Path(path))


def save_mask(mask: Volume, path: str | Path) -> Path:
    """Write labels ``(I, J, K)`` as ``.nii.gz``, uint8, whole or not at all, with the structures' names in the header.

    The names stand in the description, and with their colours in the XML table that Connectome Workbench and others
    read (NIfTI extension code 30). The affine is stored as sform, and as qform too unless it has a shear.
    """
    image = nib.Nifti1Image(mask.array.astype(np.uint8, copy=False), mask.affine)
    image.set_sform(mask.affine, code="scanner")
    columns = mask.affine[:3, :3] / mask.spacing_mm
    if np.allclose(columns.T @ columns, np.eye(3), atol=1e-4):
        image.set_qform(mask.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    image.header["descrip"] = ", ".join(f"{value} {name}" for value, name in enumerate(("background", *STRUCTURES)))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(30, _label_table()))
    return _write(image, Path(path))


def _label_table() -> bytes:
    """The structures as a label table: one XML element each with value, name and colour."""
    rows = []
    for value, name in enumerate(STRUCTURES, start=1):
        red, green, blue = (int(COLORS[name][at : at + 2], 16) / 255 for at in (1, 3, 5))
        rows.append(f'<Label Key="{value}" Red="{red:.3f}" Green="{green:.3f}" Blue="{blue:.3f}" Alpha="1">{name}</Label>')
    text = f'<VolumeInformation Index="0"><LabelTable>{"".join(rows)}</LabelTable></VolumeInformation>'
    return f'<?xml version="1.0" encoding="UTF-8"?><CaretExtension>{text}</CaretExtension>'.encode()


def _write(image: nib.Nifti1Image, path: Path) -> Path:
    if not path.name.endswith(".nii.gz"):
        raise ValueError(f"expected a name that ends in .nii.gz, found {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name.removesuffix(".nii.gz") + ".part.nii.gz")
    try:
        nib.save(image, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
