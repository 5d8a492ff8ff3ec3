"""NRRD, the format of 3D Slicer: ``.nrrd``, or a header ``.nhdr`` with the voxels in another file.

The format is described at https://teem.sourceforge.net/nrrd/format.html. SimpleITK reads it. This
module adds a check that SimpleITK does not make: whether the file gives spacing and orientation.
"""

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from ..volume import BadScanError, Volume, check_finite
from .itk import affine_of, call_itk, quiet

LONGEST_HEADER = 1 << 14  # bytes
#: Fields that a header must have, and what is unknown without them.
NEEDED_FIELDS = {"space directions": "a spacing", "space": "an orientation"}


@dataclass(frozen=True)
class NrrdHeader:
    """What a header says about the voxels."""

    shape: tuple[int, ...]
    channels: int  #: numbers per voxel
    voxels: Path  #: the file that holds them


def read_nrrd(path: str | Path) -> Volume:
    """Read a 3-D NRRD file as ``(I, J, K)``, in its own voxel order, with its affine in RAS mm.

    Raises :class:`~unet3d_tutorial.volume.BadScanError`, naming the file, if it cannot be read, if
    it gives no spacing or orientation, or if a value is not finite.
    """
    path = Path(path)
    read_nrrd_header(path)
    with quiet():
        image = call_itk(path, lambda: sitk.ReadImage(str(path)))
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    check_finite(array, path)
    return Volume(array, affine_of(image))


def read_nrrd_header(path: str | Path) -> NrrdHeader:
    """Read and check only the header, not the voxels. Raises as :func:`read_nrrd` does."""
    path = Path(path)
    fields = _fields(path)
    for name, meaning in NEEDED_FIELDS.items():
        if name not in fields:
            raise BadScanError(f"{path}: expected {meaning}, found no field {name!r} in the header")

    detached = fields.get("data file") or fields.get("datafile")
    voxels = path.parent / detached if detached else path
    if not voxels.is_file():
        raise BadScanError(f"{path}: expected its voxels in {voxels}, found no such file")

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet():
        call_itk(path, reader.ReadImageInformation)
    return NrrdHeader(reader.GetSize(), reader.GetNumberOfComponents(), voxels)


def _fields(path: Path) -> dict[str, str]:
    """The lines ``name: value`` up to the empty line that ends a header."""
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER).decode("latin-1")
    fields = {}
    for line in start.splitlines():
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if colon:
            fields[name.strip()] = value.strip("= \t")
    return fields
