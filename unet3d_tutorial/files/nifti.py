"""NIfTI, the format of the data sets and of the results: ``.nii``, or ``.nii.gz`` with gzip.

A file is a header of fixed size followed by the voxels, the first index fastest. The format is
described at https://nifti.nimh.nih.gov. nibabel repairs or ignores many faults of a file; this
module refuses such a file, with a one-line error that names it.
"""

import gzip
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from ..labels import COLORS, STRUCTURES
from ..volume import BadScanError, Volume, check_finite
from .whole import written_whole

GZIP_MAGIC = b"\x1f\x8b"  #: the first two bytes of a gzip file
HEADER_SIZES = (348, 540)  #: bytes of a NIfTI-1 and a NIfTI-2 header; a file begins with the number
MILLIMETRES = (0, 2)  #: codes for the unit of length; 0 is "unknown", by convention mm
LABEL_TABLE_CODE = 30  #: code of the header extension with Connectome Workbench's XML
PIECE = 1 << 20  #: bytes read at once

# nibabel's messages about a header are either repeated here as errors or harmless.
_SILENT = logging.Logger("nifti", logging.CRITICAL + 1)


class VoxelLayout(NamedTuple):
    """How the voxels are stored."""

    dtype: np.dtype
    shape: tuple[int, int, int]
    offset: int  #: where they begin in the unpacked file, in bytes
    size: int  #: bytes that they take, unpacked


# ------------------------------------------------------------------------------------------ reading


def load_volume(path: str | Path) -> Volume:
    """Read a 3-D NIfTI file, ``.nii`` or ``.nii.gz``.

    Returns ``(I, J, K)`` in the file's voxel order, with its affine to RAS mm. Voxels keep the type
    of the file, but become float32 if its header scales them. A fourth axis of length 1 is dropped.

    Raises ``FileNotFoundError`` if there is no file and
    :class:`~unet3d_tutorial.volume.BadScanError`, naming the file, if it is not a valid 3-D volume:
    another format, truncated or damaged, not 3-D, not in mm, without a valid affine, or with values
    that are not finite. Memory is allocated as voxels are read, not as the header announces.
    """
    path = Path(path)
    with _errors_naming(path):
        with _open_unpacked(path) as file:
            header = _read_header(file)
            array = _read_voxels(file, header)
        affine = _read_affine(header)
    check_finite(array, path)
    return Volume(array, affine)


def read_header(path: str | Path) -> nib.Nifti1Header:
    """Read and check the header of a NIfTI file, packed or not, whatever its suffix.

    Raises as :func:`load_volume` does.
    """
    path = Path(path)
    with _errors_naming(path), _open_unpacked(path) as file:
        return _read_header(file)


def check_file(path: str | Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Return shape and affine of a NIfTI file, from its header and length alone.

    This finds a truncated file, but not damage among the voxels. It is fast: the last four bytes of
    a ``.nii.gz`` give its unpacked length. Only if that differs from what the header announces is
    the whole file read.

    Raises as :func:`load_volume` does.
    """
    path = Path(path)
    with _errors_naming(path):
        with _open_unpacked(path) as file:
            header = _read_header(file)
        layout = _voxel_layout(header)
        affine = _read_affine(header)
        is_whole = _has_length(path, layout.offset + layout.size)
    if not is_whole:
        # Truncated; or valid, with more in it than one volume, or packed in several parts.
        load_volume(path)
    return layout.shape, affine


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Turn every error of reading a file into one line that names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        yield
    except BadScanError as error:
        raise BadScanError(f"{path}: {error}") from error.__cause__
    except Exception as error:  # nibabel, zlib and the operating system each raise their own kinds
        raise BadScanError(
            f"{path} cannot be read as NIfTI: {error}. Copy or download it again"
        ) from error


def _is_packed(path: Path) -> bool:
    """Whether the file is packed with gzip, whatever its suffix."""
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _open_unpacked(path: Path) -> BinaryIO:
    """Open the file; a packed file is unpacked while it is read."""
    if _is_packed(path):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def _has_length(path: Path, expected: int) -> bool:
    """Whether a packed file unpacks to ``expected`` bytes, or a plain file has at least as many."""
    if not _is_packed(path):
        return path.stat().st_size >= expected
    with path.open("rb") as file:
        file.seek(-4, 2)
        length = int.from_bytes(file.read(), "little")  # gzip keeps it modulo 2**32
    return length == expected % 2**32


# ------------------------------------------------------------------------------------------- header


def _read_header(file: BinaryIO) -> nib.Nifti1Header:
    """Read and check a NIfTI-1 or NIfTI-2 header.

    Faults that matter are refused, although nibabel would silently repair them.
    """
    start = file.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    if sizes.isdisjoint(HEADER_SIZES):
        raise BadScanError(
            f"expected NIfTI, which begins with the number 348 or 540, found {start!r}"
        )
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    rest = file.read(kind.template_dtype.itemsize - len(start))
    header = kind(start + rest, check=False)

    _check_shape(header)
    _check_units(header)
    header.check_fix(logger=_SILENT, error_level=40)
    return header


def _check_shape(header: nib.Nifti1Header) -> None:
    """Refuse an impossible shape, and drop axes of length 1 after the third."""
    dimensions = int(header["dim"][0])
    if not 1 <= dimensions <= 7:
        raise BadScanError(f"expected a 3-D volume, found shape {dimensions}")
    shape = tuple(int(count) for count in header["dim"][1 : 1 + dimensions])
    if min(shape) < 1:
        raise BadScanError(f"expected a 3-D volume, found shape {shape}")
    while dimensions > 3 and shape[dimensions - 1] == 1:  # a single frame is a 3-D volume
        dimensions -= 1
    header["dim"][0] = dimensions


def _check_units(header: nib.Nifti1Header) -> None:
    """Refuse a spacing that is not positive or not in mm, and undefined codes."""
    spacing = header["pixdim"][1:4]
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise BadScanError(
            f"expected positive spacing, found {spacing.tolist()} mm; correct pixdim in the header"
        )
    unit = int(header["xyzt_units"]) & 7  # the lower three bits are the unit of length
    if unit not in MILLIMETRES:
        raise BadScanError(
            f"expected millimetres, found the code {unit} for the unit of length; "
            "correct xyzt_units"
        )
    for name in ("qform_code", "sform_code"):
        if not 0 <= header[name] <= 5:
            raise BadScanError(f"expected {name} from 0 to 5, found {header[name]}")


def _read_affine(header: nib.Nifti1Header) -> np.ndarray:
    with np.errstate(all="ignore"):
        affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadScanError(
            f"expected a finite affine with positive spacing, found {affine.tolist()}"
        )
    return affine


def _voxel_layout(header: nib.Nifti1Header) -> VoxelLayout:
    dtype = header.get_data_dtype()
    offset = header.get_data_offset()
    shape = tuple(int(count) for count in header.get_data_shape())
    if len(shape) != 3:
        raise BadScanError(f"expected a 3-D volume, found shape {shape}")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise BadScanError(f"expected one number a voxel, found {dtype}")
    if offset < header.sizeof_hdr:
        raise BadScanError(
            f"expected the voxels after the header's {header.sizeof_hdr} bytes, "
            f"found them at {offset}"
        )
    return VoxelLayout(dtype, shape, offset, math.prod(shape) * dtype.itemsize)


# ------------------------------------------------------------------------------------------- voxels


def _read_voxels(file: BinaryIO, header: nib.Nifti1Header) -> np.ndarray:
    """Read the voxels, ``(I, J, K)``, and scale them as the header says."""
    layout = _voxel_layout(header)
    file.seek(layout.offset)
    data = _read_bytes(file, layout.size)
    stored = np.frombuffer(data, layout.dtype).reshape(layout.shape, order="F")
    array = stored.astype(layout.dtype.newbyteorder("="), copy=False)

    slope, intercept = header.get_slope_inter()
    slope, intercept = slope or 1, intercept or 0
    if (slope, intercept) == (1, 0):
        return array
    with np.errstate(all="ignore"):  # an overflow gives infinity, which is refused later
        scaled = apply_read_scaling(array, np.float32(slope), np.float32(intercept))
        return scaled.astype(np.float32, copy=False)


def _read_bytes(file: BinaryIO, size: int) -> bytearray:
    """Read ``size`` bytes in pieces, then to the end, where gzip checks its checksum."""
    data = bytearray()
    while len(data) < size:
        piece = file.read(min(PIECE, size - len(data)))
        if not piece:
            raise BadScanError(
                f"cut short, expected {size} bytes of voxels, found {len(data)}. "
                "Copy or download it again"
            )
        data += piece
    while file.read(PIECE):
        pass
    return data


# ------------------------------------------------------------------------------------------ writing


def save_volume(volume: Volume, path: str | Path) -> Path:
    """Write a ``.nii.gz`` file, completely or not at all, and return its path.

    Raises ``ValueError`` for another suffix, and ``OSError``, naming the file, if it cannot be
    written, for example because the disk is full.
    """
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    return _write(image, Path(path))


def save_mask(mask: Volume, path: str | Path) -> Path:
    """Write labels ``(I, J, K)`` as a ``.nii.gz`` file of uint8 that names the structures.

    The names are in the header's description, and together with the colours in an XML table that
    Connectome Workbench and other programs read. The affine is stored as sform, and also as qform
    unless it has a shear. Raises as :func:`save_volume` does, and ``ValueError`` for values that
    uint8 would change.
    """
    if mask.array.dtype.kind not in "bu" and mask.array.size:
        low, high = mask.array.min(), mask.array.max()
        if not 0 <= low <= high <= 255 or (mask.array != mask.array.astype(np.uint8)).any():
            found = f"{mask.array.dtype} from {low} to {high}"
            raise ValueError(f"{path}: expected labels from 0 to 255, found {found}")
    image = nib.Nifti1Image(mask.array.astype(np.uint8, copy=False), mask.affine)
    image.set_sform(mask.affine, code="scanner")
    if not _has_shear(mask):
        image.set_qform(mask.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    names = ("background", *STRUCTURES)
    image.header["descrip"] = ", ".join(f"{value} {name}" for value, name in enumerate(names))
    table = nib.nifti1.Nifti1Extension(LABEL_TABLE_CODE, _label_table())
    image.header.extensions.append(table)
    return _write(image, Path(path))


def _has_shear(volume: Volume) -> bool:
    """Whether the axes are not at right angles; a qform, a rotation, cannot express that."""
    directions = volume.affine[:3, :3] / volume.spacing_mm
    return not np.allclose(directions.T @ directions, np.eye(3), atol=1e-4)


def _label_table() -> bytes:
    """The structures as XML: one element for each, with value, name and colour."""
    labels = "".join(_label(value, name) for value, name in enumerate(STRUCTURES, start=1))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<CaretExtension><VolumeInformation Index="0">'
        f"<LabelTable>{labels}</LabelTable>"
        "</VolumeInformation></CaretExtension>"
    ).encode()


def _label(value: int, name: str) -> str:
    """The XML of one structure; its colour, ``#RRGGBB``, becomes three numbers from 0 to 1."""
    red, green, blue = (byte / 255 for byte in bytes.fromhex(COLORS[name].removeprefix("#")))
    color = f'Red="{red:.3f}" Green="{green:.3f}" Blue="{blue:.3f}" Alpha="1"'
    return f'<Label Key="{value}" {color}>{name}</Label>'


def _write(image: nib.Nifti1Image, path: Path) -> Path:
    if not path.name.endswith(".nii.gz"):
        raise ValueError(f"expected a name that ends in .nii.gz, found {path.name!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            nib.save(image, part)
    except OSError as error:
        reason = (
            f"{error.strerror or error}. The file was not written; "
            "make room and run the same command again"
        )
        raise OSError(error.errno, reason, str(path)) from error
    return path
