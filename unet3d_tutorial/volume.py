"""A volume and where it lies in the patient: voxels plus affine, read from and written to NIfTI."""

import gzip
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from .labels import COLORS, STRUCTURES

# NIfTI's code for the unit of length: 0 is "not said", which everyone takes for mm.
MILLIMETRES = (0, 2)
PIECE = 1 << 20  # bytes read at once
GRID_TOLERANCE_MM = 0.05  #: headers are printed with six digits; a true mismatch is a voxel or more
Grid = tuple[tuple[int, ...], np.ndarray]  #: shape, of which the last three count, and affine
# What nibabel would say of a header, we say or it does no harm.
_QUIET = logging.Logger("nifti", logging.CRITICAL + 1)


class BadScanError(ValueError):
    """A scan or mask that cannot be used.

    The message names the file, what was found and what was expected.
    """


@dataclass(frozen=True)
class Volume:
    """Voxels and the map from voxel index to patient position.

    ``array`` is ``(I, J, K)``, or ``(C, I, J, K)`` once a channel axis was added. ``affine`` is 4 x
    4 and takes an index ``(i, j, k, 1)`` to millimetres towards the patient's right, front and head
    (RAS+, nibabel's convention).

    >>> scan = Volume(np.zeros((40, 50, 60)), np.diag([-2.0, -2.0, 3.0, 1.0]))
    >>> scan.spacing_mm, scan.axis_codes
    ((2.0, 2.0, 3.0), 'LPS')
    """

    array: np.ndarray
    affine: np.ndarray

    @property
    def grid(self) -> Grid:
        """Shape and affine."""
        return self.array.shape, self.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each array axis, in mm."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL.

        Spacing does not tell it: a tilted gantry's axes are not at right angles.
        """
        first, second, third = self.affine[:3, :3].T
        return abs(float(first @ np.cross(second, third))) / 1000

    @property
    def axis_codes(self) -> str:
        """Where each array axis points, for example ``"RAS"`` or ``"LPS"``."""
        return "".join(nib.aff2axcodes(self.affine))


def grid_distance_mm(shape: tuple[int, ...], a: np.ndarray, b: np.ndarray) -> float:
    """How far apart grids of one shape with affines ``a`` and ``b`` lie, in mm: the largest
    distance of two like corners.
    """
    ends = np.array(shape[-3:]) - 1
    corners = np.c_[
        np.stack(np.meshgrid(*([0, end] for end in ends)), -1).reshape(-1, 3), np.ones(8)
    ].T
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())


def check_same_grid(name: str | Path, found: Grid, other: str | Path, expected: Grid) -> None:
    """Raise :class:`BadScanError` unless ``name`` has the grid of ``other``: its shape and, to 0.05
    mm, its place.
    """
    if found[0] != expected[0]:
        raise BadScanError(f"{name}: expected {other}'s shape {expected[0]}, found {found[0]}")
    if (apart := grid_distance_mm(*found, expected[1])) > GRID_TOLERANCE_MM:
        raise BadScanError(
            f"{name}: expected {other}'s affine {expected[1].round(4).tolist()}, found a grid {apart:.2f} mm "
            "away"
        )


# ------------------------------------------------------------------------------------------ reading


def load_volume(path: str | Path) -> Volume:
    """Read a 3-D NIfTI file, ``.nii`` or ``.nii.gz``.

    Integer files keep their type; scaled ones come as float32.
    A fourth axis of length 1 is left out.

    Raises ``FileNotFoundError`` if there is no file and :class:`BadScanError`, naming the file, if
    it is not a sound 3-D volume: another format, cut short or damaged, not 3-D, not in mm, without
    a position in space, or with values that are not finite. Memory is taken as voxels are found,
    not as the header promises.
    """
    path = Path(path)
    with _naming(path):
        with _unpacked(path) as file:
            header = _read_header(file)
            array = _read_voxels(file, header)
        affine = _affine(header)
    check_finite(array, path)
    return Volume(array, affine)


def read_header(path: str | Path) -> nib.Nifti1Header:
    """The header of a NIfTI file, packed or not whatever it is called, checked.

    Raises as :func:`load_volume` does.
    """
    path = Path(path)
    with _naming(path), _unpacked(path) as file:
        return _read_header(file)


def check_file(path: str | Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of a NIfTI file, from its header and length alone.

    Raises as :func:`load_volume` does.

    A file that is cut short is found, damage among its voxels is not. It costs next to nothing: of
    a ``.nii.gz`` the last four bytes say how long it is unpacked, and only if that is not what the
    header promises is the whole of it read.
    """
    path = Path(path)
    with _naming(path):
        with _unpacked(path) as file:
            header = _read_header(file)
            packed = isinstance(file, gzip.GzipFile)
        _, shape, offset, size = _layout(header)
        affine = _affine(header)
        with path.open("rb") as file:
            length = file.seek(-4 if packed else 0, 2)
            told = int.from_bytes(file.read(), "little") if packed else length
        whole = told == (offset + size) % 2**32 if packed else told >= offset + size
    if (
        not whole
    ):  # cut short; or sound, with more in it than one volume, or packed in several parts
        load_volume(path)
    return shape, affine


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make one line that names the file out of all that can go wrong with it."""
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


def _unpacked(path: Path) -> BinaryIO:
    """The file, opened; what is packed by gzip, whatever it is called, unpacks as it is read."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return (gzip.open if packed else open)(path, "rb")


def _affine(header: nib.Nifti1Header) -> np.ndarray:
    with np.errstate(all="ignore"):
        affine = header.get_best_affine()
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise BadScanError(
            f"expected a finite affine with positive spacing, found {affine.tolist()}"
        )
    return affine


def _read_header(file: BinaryIO) -> nib.Nifti1Header:
    """NIfTI-1's or NIfTI-2's header, checked: what nibabel would repair without a word is refused
    where it matters.
    """
    start = file.read(4)
    sizes = {int.from_bytes(start, order) for order in ("little", "big")}
    if not sizes & {348, 540}:
        raise BadScanError(
            f"expected NIfTI, which begins with the number 348 or 540, found {start!r}"
        )
    kind = nib.Nifti2Header if 540 in sizes else nib.Nifti1Header
    header = kind(start + file.read(kind.template_dtype.itemsize - 4), check=False)
    dimensions = int(header["dim"][0])
    shape = (
        tuple(int(n) for n in header["dim"][1 : 1 + dimensions])
        if 0 < dimensions < 8
        else dimensions
    )
    if not 0 < dimensions < 8 or min(shape) < 1:
        raise BadScanError(f"expected a 3-D volume, found shape {shape}")
    while dimensions > 3 and shape[dimensions - 1] == 1:  # one frame is the same as none
        dimensions -= 1
    header["dim"][0] = dimensions
    spacing = header["pixdim"][1:4]
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise BadScanError(
            f"expected positive spacing, found {spacing.tolist()} mm; correct pixdim in the header"
        )
    if (unit := int(header["xyzt_units"]) & 7) not in MILLIMETRES:
        raise BadScanError(
            f"expected millimetres, found the code {unit} for the unit of length; correct xyzt_units"
        )
    for name in ("qform_code", "sform_code"):
        if not 0 <= header[name] <= 5:
            raise BadScanError(f"expected {name} from 0 to 5, found {header[name]}")
    header.check_fix(logger=_QUIET, error_level=40)
    return header


def _layout(header: nib.Nifti1Header) -> tuple[np.dtype, tuple[int, int, int], int, int]:
    """Type and shape of the voxels, where in the file they begin, and how many bytes they take."""
    kind, offset = header.get_data_dtype(), header.get_data_offset()
    shape = tuple(int(n) for n in header.get_data_shape())
    if len(shape) != 3:
        raise BadScanError(f"expected a 3-D volume, found shape {shape}")
    if kind.kind not in "iuf" or kind.itemsize > 8:
        raise BadScanError(f"expected one number a voxel, found {kind}")
    if offset < header.sizeof_hdr:
        raise BadScanError(
            f"expected the voxels after the header's {header.sizeof_hdr} bytes, found them at {offset}"
        )
    return kind, shape, offset, math.prod(shape) * kind.itemsize


def _read_voxels(file: BinaryIO, header: nib.Nifti1Header) -> np.ndarray:
    """The voxels, ``(I, J, K)``, scaled as the header says; to the end of the file, where gzip
    keeps its checksum.
    """
    kind, shape, offset, size = _layout(header)
    file.seek(offset)
    data = bytearray()
    while len(data) < size and (piece := file.read(min(PIECE, size - len(data)))):
        data += piece
    if len(data) < size:
        raise BadScanError(
            f"cut short, expected {size} bytes of voxels, found {len(data)}. Copy or download it again"
        )
    while file.read(PIECE):
        pass
    array = (
        np.frombuffer(data, kind)
        .reshape(shape, order="F")
        .astype(kind.newbyteorder("="), copy=False)
    )
    slope, inter = header.get_slope_inter()
    if (slope or 1, inter or 0) == (1, 0):
        return array
    with np.errstate(all="ignore"):  # what overflows is found as infinite
        return apply_read_scaling(array, np.float32(slope), np.float32(inter)).astype(
            np.float32, copy=False
        )


def check_finite(array: np.ndarray, path: Path) -> None:
    """Raise :class:`BadScanError` if a voxel is not a number or infinite.

    Least and greatest tell, without a copy.
    """
    if array.dtype.kind == "f" and not (np.isfinite(array.min()) and np.isfinite(array.max())):
        bad = np.count_nonzero(~np.isfinite(array))
        raise BadScanError(
            f"{path}: expected finite values, found {bad} voxels that are not a number or infinite; write "
            "the file again with a number in their place, such as -1000 HU for air"
        )


# ------------------------------------------------------------------------------------------ writing


def save_volume(volume: Volume, path: str | Path) -> Path:
    """Write a ``.nii.gz`` file whole or not at all: to a temporary name first, then rename.

    Raises ``OSError``, naming the file, if it cannot be written, for example because the disk is
    full.
    """
    image = nib.Nifti1Image(volume.array, volume.affine)
    image.header.set_xyzt_units("mm")
    return _write(image, Path(path))


def save_mask(mask: Volume, path: str | Path) -> Path:
    """Write labels ``(I, J, K)`` as ``.nii.gz``, uint8, whole or not at all, with the structures'
    names in the header.

    The names stand in the description, and with their colours in the XML table that Connectome
    Workbench and others read (NIfTI extension code 30). The affine is stored as sform, and as qform
    too unless it has a shear.
    """
    image = nib.Nifti1Image(mask.array.astype(np.uint8, copy=False), mask.affine)
    image.set_sform(mask.affine, code="scanner")
    columns = mask.affine[:3, :3] / mask.spacing_mm
    if np.allclose(columns.T @ columns, np.eye(3), atol=1e-4):
        image.set_qform(mask.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    image.header["descrip"] = ", ".join(
        f"{value} {name}" for value, name in enumerate(("background", *STRUCTURES))
    )
    image.header.extensions.append(nib.nifti1.Nifti1Extension(30, _label_table()))
    return _write(image, Path(path))


def _label_table() -> bytes:
    """The structures as a label table: one XML element each with value, name and colour."""
    rows = []
    for value, name in enumerate(STRUCTURES, start=1):
        red, green, blue = (int(COLORS[name][at : at + 2], 16) / 255 for at in (1, 3, 5))
        rows.append(
            f'<Label Key="{value}" Red="{red:.3f}" Green="{green:.3f}" Blue="{blue:.3f}" Alpha="1">{name}</Label>'
        )
    text = (
        f'<VolumeInformation Index="0"><LabelTable>{"".join(rows)}</LabelTable></VolumeInformation>'
    )
    return f'<?xml version="1.0" encoding="UTF-8"?><CaretExtension>{text}</CaretExtension>'.encode()


def _write(image: nib.Nifti1Image, path: Path) -> Path:
    if not path.name.endswith(".nii.gz"):
        raise ValueError(f"expected a name that ends in .nii.gz, found {path.name!r}")
    part = path.with_name(path.name.removesuffix(".nii.gz") + ".part.nii.gz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, part)
        part.replace(path)
    except OSError as error:
        reason = f"{error.strerror or error}. The file was not written; make room and run the same command again"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        part.unlink(missing_ok=True)
    return path
