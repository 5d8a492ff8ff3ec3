"""Read a CT in whatever form it comes, and refuse what is not one:

NIfTI, MetaImage, NRRD, a folder of DICOM slices.

A network gives an answer for any array. So a scan is checked before it gets there: is it
three-dimensional, does the file say where its voxels are, and do its values look like HU?
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..volume import BadScanError, Volume, check_finite, load_volume, read_header
from .dicom import affine_of, call_itk, quiet, read_dicom
from .metaimage import read_mhd

SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd", ".nhdr")
#: 512 x 512 x 4096; a header that claims more is broken, or its scan does not fit into memory
MAX_VOXELS = 2**30
MAX_RATIO = 1100  #: no byte of a gzip or zlib file can stand for more than 1032
SPACING_MM = (0.05, 20.0)  #: what a CT's spacing may be
AIR_HU, TISSUE_HU = (-3100.0, -500.0), (-200.0, 300.0)  #: lungs and surroundings; the body


def read_scan(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a CT as ``(I, J, K)`` HU in its own voxel order, with its affine in RAS mm.

    ``path`` is a file (``SUFFIXES``) or a folder of DICOM slices; ``series`` is a series' UID, or
    the end of it, for a folder that holds several. Raises ``FileNotFoundError``, or ``ValueError``
    that names the file, what was expected and what was found.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.is_dir():
        volume = read_dicom(path, series)
    else:
        volume = _reader(path)(path)
    check_ct(volume, path)
    return volume


def scan_name(path: str | Path) -> str:
    """The file's name without folder and suffix, for naming what is made from it."""
    name = Path(path).resolve().name
    return next(
        (name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name
    )


def check_ct(volume: Volume, name: str | Path) -> None:
    """Raise :class:`BadScanError` unless the volume is 3-D, of real numbers, of plausible spacing
    and in HU.

    In HU means that, of a sample of the voxels, at least one in a hundred is air or lung and one in
    a hundred soft tissue. A picture scaled to 0..1, an MRI or stored values without their intercept
    of -1024 fail that.
    """
    array = volume.array
    if array.ndim != 3 or min(array.shape) < 2:
        raise BadScanError(
            f"{name}: expected a volume with several slices, found shape {array.shape}"
        )
    if array.dtype.kind not in "iuf":
        raise BadScanError(f"{name}: expected one real number a voxel, found {array.dtype}")
    low, high = SPACING_MM
    if not all(low <= length <= high for length in volume.spacing_mm):
        raise BadScanError(
            f"{name}: expected a spacing from {low:g} to {high:g} mm, found {volume.spacing_mm}"
        )
    sample = array[tuple(slice(None, None, max(n // 100, 1)) for n in array.shape)]
    air, tissue = (((sample >= low) & (sample <= high)).mean() for low, high in (AIR_HU, TISSUE_HU))
    if min(air, tissue) < 0.01:
        # The numbers among them.
        lowest, highest = (np.fmin.reduce(sample, axis=None), np.fmax.reduce(sample, axis=None))
        raise BadScanError(
            f"{name}: expected a CT in HU, with air below {AIR_HU[1]:g} and tissue around 0, found values "
            f"from {lowest:g} to {highest:g}, {air:.1%} air and {tissue:.1%} tissue"
        )


# -------------------------------------------------------------------------------------------- files


def _reader(path: Path) -> Callable[[Path], Volume]:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti
    if name.endswith((".mhd", ".mha")):
        return _read_metaimage
    if name.endswith((".nrrd", ".nhdr")):
        return _read_nrrd
    if name.endswith((".dcm", ".ima")):
        raise BadScanError(
            f"{path}: expected a volume, found one DICOM slice; give the folder that it is in"
        )
    raise BadScanError(
        f"{path}: expected a folder of DICOM slices or a file that ends in {', '.join(SUFFIXES)}"
    )


def _read_nifti(path: Path) -> Volume:
    header = read_header(path)
    dtype = header.get_data_dtype()
    _check_announced(path, path, header.get_data_shape(), dtype.itemsize, len(dtype.names or "1"))
    if header["sform_code"] == header["qform_code"] == 0:
        raise BadScanError(
            f"{path}: expected an orientation, found neither sform nor qform; left and right are unknown"
        )
    return load_volume(path)


def _read_metaimage(path: Path) -> Volume:
    fields = _text_header(path, "=", "ElementDataFile")
    if "ElementSpacing" not in fields and "ElementSize" not in fields:
        raise BadScanError(f"{path}: expected a spacing, found no ElementSpacing in the header")
    name = fields.get("ElementDataFile", ".")
    _check_itk_header(path, path if name == "LOCAL" else path.parent / name)
    return read_mhd(path)


def _read_nrrd(path: Path) -> Volume:
    fields = _text_header(path, ":", "")
    for name, wanted in (("space directions", "a spacing"), ("space", "an orientation")):
        if name not in fields:
            raise BadScanError(f"{path}: expected {wanted}, found no field {name!r} in the header")
    _check_itk_header(path, path.parent / fields.get("data file", path.name))
    return _read_itk(path)


def _text_header(path: Path, separator: str, last: str) -> dict[str, str]:
    """The ``name = value`` lines before the voxels, up to the field ``last`` or to an empty line."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        start = file.read(1 << 14).decode("latin-1")
    for line in start.splitlines():
        name, found, value = line.partition(separator)
        if found:
            fields[name.strip()] = value.strip("= \t")
        if line.strip() == last or name.strip() == last:
            break
    return fields


def _read_itk(path: Path) -> Volume:
    with quiet():
        image = call_itk(path, lambda: sitk.ReadImage(str(path)))
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    check_finite(array, path)
    return Volume(array, affine_of(image))


def _check_itk_header(path: Path, voxels: Path) -> None:
    """Read the header alone, and refuse what it announces before any memory is asked for."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet():
        call_itk(path, reader.ReadImageInformation)
    shape, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if not voxels.is_file():
        raise BadScanError(f"{path}: expected its voxels in {voxels}, found no such file")
    _check_announced(path, voxels, shape, channels, channels)


def _check_announced(
    name: Path, voxels: Path, shape: tuple[int, ...], itemsize: int, channels: int
) -> None:
    """Hold the size that the header of ``name`` announces to the limits, and to the length of the
    file with the voxels.
    """
    if channels > 1:
        raise BadScanError(
            f"{name}: expected one number a voxel, found several (a colour image or a vector field)"
        )
    if len(shape) != 3 or min(shape) < 2:
        raise BadScanError(
            f"{name}: expected a volume with several slices, found shape {tuple(map(int, shape))}"
        )
    count, length = prod(map(int, shape)), voxels.stat().st_size
    if count > MAX_VOXELS:
        raise BadScanError(
            f"{name}: expected at most {MAX_VOXELS} voxels, found shape {tuple(map(int, shape))}"
        )
    if count * itemsize > length * MAX_RATIO:
        raise BadScanError(
            f"{name}: expected {count * itemsize} bytes of voxels, found a file of {length} bytes"
        )
