"""Read a CT from any supported format, and refuse files that do not hold one.

The formats are NIfTI, MetaImage, NRRD and a folder of DICOM slices. A network gives a result for
any array, so a scan is checked first: is it three-dimensional, does the file place its voxels in
space, and do its values look like HU?
"""

from math import prod
from pathlib import Path

import numpy as np

from ..volume import BadScanError, Volume
from .dicom import read_dicom
from .metaimage import read_mhd, read_mhd_header
from .nifti import load_volume, read_header
from .nrrd import read_nrrd, read_nrrd_header

SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd", ".nhdr")
#: 512 x 512 x 4096; a header that claims more is broken, or its scan does not fit into memory
MAX_VOXELS = 2**30
MAX_RATIO = 1100  #: one byte of a gzip or zlib file can unpack to at most 1032 bytes
SPACING_MM = (0.05, 20.0)  #: plausible spacing of a CT
AIR_HU = (-3100.0, -500.0)  #: lungs and surrounding air
TISSUE_HU = (-200.0, 300.0)  #: soft tissue
LEAST_SHARE = 0.01  #: of a CT's voxels that must be air, and that must be tissue


def read_scan(path: str | Path, *, series: str | None = None) -> Volume:
    """Read a CT as ``(I, J, K)`` HU in its own voxel order, with its affine in RAS mm.

    ``path`` is a file (``SUFFIXES``) or a folder of DICOM slices. ``series`` is a series UID, or
    the end of one, for a folder that holds several. Raises ``FileNotFoundError``, or ``ValueError``
    that names the file, what was expected and what was found.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    volume = read_dicom(path, series) if path.is_dir() else _read_file(path)
    check_ct(volume, path)
    return volume


def scan_name(path: str | Path) -> str:
    """Return the file's name without folder and suffix, to name output files after it."""
    name = Path(path).resolve().name
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def check_ct(volume: Volume, name: str | Path) -> None:
    """Raise :class:`~unet3d_tutorial.volume.BadScanError` unless a volume can be a CT in HU.

    It must be 3-D, with real numbers and a plausible spacing. To count as HU, at least 1 % of a
    sample of the voxels must be air or lung and 1 % soft tissue. An image scaled to 0..1, an MRI or
    stored values without their intercept of -1024 fail this check. ``name`` is for the message.
    """
    array = volume.array
    if array.ndim != 3 or min(array.shape) < 2:
        raise BadScanError(
            f"{name}: expected a volume with several slices, found shape {array.shape}"
        )
    if array.dtype.kind not in "iuf":
        raise BadScanError(f"{name}: expected one real number a voxel, found {array.dtype}")
    least, most = SPACING_MM
    if not all(least <= length <= most for length in volume.spacing_mm):
        raise BadScanError(
            f"{name}: expected a spacing from {least:g} to {most:g} mm, found {volume.spacing_mm}"
        )
    _check_hu(array, name)


def _check_hu(array: np.ndarray, name: str | Path) -> None:
    """Refuse values with hardly any air or hardly any tissue among them."""
    # About 100 voxels along each axis are enough.
    steps = (slice(None, None, max(count // 100, 1)) for count in array.shape)
    sample = array[tuple(steps)]
    air = _share(sample, AIR_HU)
    tissue = _share(sample, TISSUE_HU)
    if min(air, tissue) < LEAST_SHARE:
        # fmin and fmax ignore NaN.
        least = np.fmin.reduce(sample, axis=None)
        greatest = np.fmax.reduce(sample, axis=None)
        raise BadScanError(
            f"{name}: expected a CT in HU, with air below {AIR_HU[1]:g} and tissue around 0, "
            f"found values from {least:g} to {greatest:g}, {air:.1%} air and {tissue:.1%} tissue"
        )


def _share(sample: np.ndarray, window: tuple[float, float]) -> float:
    """The share of voxels, 0 to 1, whose values are in a window, its ends included."""
    least, most = window
    return ((sample >= least) & (sample <= most)).mean()


# -------------------------------------------------------------------------------------------- files


def _read_file(path: Path) -> Volume:
    """Read one file with the reader for its suffix."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti(path)
    if name.endswith((".mhd", ".mha")):
        return _read_metaimage(path)
    if name.endswith((".nrrd", ".nhdr")):
        return _read_nrrd(path)
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
    channels = len(dtype.names or "1")  # a colour is a record of several numbers
    _check_size(path, header.get_data_shape(), channels, dtype.itemsize, voxels=path)
    if header["sform_code"] == header["qform_code"] == 0:
        raise BadScanError(
            f"{path}: expected an orientation, found neither sform nor qform; "
            "left and right are unknown"
        )
    return load_volume(path)


def _read_metaimage(path: Path) -> Volume:
    header = read_mhd_header(path)
    if header.voxels.is_file():  # if not, the reader says so
        _check_size(path, header.shape, 1, header.dtype.itemsize, voxels=header.voxels)
    return read_mhd(path)


def _read_nrrd(path: Path) -> Volume:
    header = read_nrrd_header(path)
    _check_size(path, header.shape, header.channels, header.channels, voxels=header.voxels)
    return read_nrrd(path)


def _check_size(
    name: Path, shape: tuple[int, ...], channels: int, voxel_bytes: int, *, voxels: Path
) -> None:
    """Refuse an implausible header of the file ``name`` before any memory is allocated.

    Its size is compared with the limits and with the length of the file ``voxels``. ``voxel_bytes``
    is the least number of bytes per voxel.
    """
    shape = tuple(int(count) for count in shape)
    if channels > 1:
        raise BadScanError(
            f"{name}: expected one number a voxel, found several (a colour image or a vector field)"
        )
    if len(shape) != 3 or min(shape) < 2:
        raise BadScanError(f"{name}: expected a volume with several slices, found shape {shape}")
    if prod(shape) > MAX_VOXELS:
        raise BadScanError(f"{name}: expected at most {MAX_VOXELS} voxels, found shape {shape}")
    announced = prod(shape) * voxel_bytes
    length = voxels.stat().st_size
    if announced > length * MAX_RATIO:
        raise BadScanError(
            f"{name}: expected {announced} bytes of voxels, found a file of {length} bytes"
        )
