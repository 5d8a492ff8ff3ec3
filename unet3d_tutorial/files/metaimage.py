"""MetaImage, the format of LUNA16's scans: a small text header, and the voxels.

Either the header is an ``.mhd`` file with the voxels in a ``.raw`` or ``.zraw`` file next to it, or
both are in one ``.mha`` file. The format is that of ITK
(https://itk.org/Wiki/ITK/MetaIO/Documentation). Every field that matters is checked before any
voxel is read, so that a damaged header can do no more than raise an error.
"""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..volume import BadScanError, Volume, check_finite
from .itk import LPS_TO_RAS

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
YES_OR_NO = {"True": True, "False": False, "true": True, "false": False, "1": True, "0": False}
LONGEST_HEADER = 1 << 16  # bytes
LONGEST_NAME = 200  # bytes, for the name of the voxel file; file systems allow 255
LONGEST_SIDE = 65535  # voxels
SHOWN = 80  # characters of a bad value that a message quotes
PIECE = 1 << 16  # bytes unpacked at once
ZLIB_OR_GZIP = 47  # for zlib's wbits: detect from the data which of the two it is
#: Names that a field has had in the format's history, the current one first.
ALIASES = {
    "Offset": ("Offset", "Position", "Origin"),
    "ElementSpacing": ("ElementSpacing", "ElementSize"),
    "TransformMatrix": ("TransformMatrix", "Rotation", "Orientation"),
    "BinaryDataByteOrderMSB": ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
}

Fields = dict[str, str]  #: name -> value, as they are in the header
Meaning = TypeVar("Meaning")


@dataclass(frozen=True)
class MetaHeader:
    """The checked content of a header."""

    shape: tuple[int, int, int]  #: voxels along I, J, K; the first index runs fastest in the file
    dtype: np.dtype
    affine: np.ndarray  #: 4 x 4, index to RAS mm
    voxels: Path  #: the file that holds them
    offset: int  #: bytes to skip in it; -1 means that the voxels are its last bytes
    compressed: bool  #: with zlib or gzip

    @property
    def size(self) -> int:
        """Size of the uncompressed voxels, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_mhd(path: str | Path) -> Volume:
    """Read a 3-D MetaImage as ``(I, J, K)``, in its own voxel order, with its affine in RAS mm.

    Raises :class:`~unet3d_tutorial.volume.BadScanError`, naming the file, if header or voxels are
    missing, truncated or unreadable, if the image is not 3-D with one finite number per voxel, or
    if its spacing is not positive.
    """
    path = Path(path)
    header = read_mhd_header(path)
    try:
        if not header.voxels.is_file():
            raise BadScanError(
                f"{header.voxels} is missing; {path.name} says that the voxels are there"
            )
        data = _inflate(header, path) if header.compressed else _read_raw(header, path)
    except (OSError, MemoryError) as error:
        raise BadScanError(f"{header.voxels} cannot be read: {error}") from error
    stored = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
    check_finite(stored, header.voxels)
    array = stored.astype(header.dtype.newbyteorder("="), copy=False)
    return Volume(array, header.affine)


# ------------------------------------------------------------------------------------------- header


def read_mhd_header(path: str | Path) -> MetaHeader:
    """Read and check only the header, not the voxels. Raises as :func:`read_mhd` does."""
    path = Path(path)
    if not path.is_file():
        raise BadScanError(f"{path} is missing")
    try:
        return _parse(path)
    except BadScanError as error:
        raise BadScanError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise BadScanError(f"{path} cannot be read: {error}") from error


def _parse(path: Path) -> MetaHeader:
    fields, end = _fields(path)
    _check_kind(fields)
    shape = _shape(fields)
    skip = _bytes_to_skip(fields)
    dtype = _dtype(fields)
    name = fields["ElementDataFile"]
    if name == "LOCAL":
        voxels, offset = path, end
    else:
        _check_name(name)
        voxels, offset = path.parent / name, skip
    affine = _affine(fields)
    return MetaHeader(shape, dtype, affine, voxels, offset, _flag(fields, "CompressedData"))


def _fields(path: Path) -> tuple[Fields, int]:
    """Read the lines ``Name = value`` up to ElementDataFile, which ends a header.

    Returns them, and the offset of the next line in bytes.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    fields: Fields = {}
    end = 0
    for line in head.splitlines(keepends=True):
        end += len(line)
        name, equals, value = (part.strip() for part in line.decode("latin-1").partition("="))
        # ITK would join the next line to this one, or choose one of two values.
        if not equals or name in fields:
            raise BadScanError(
                f"expected lines of the form Name = value, each name once, found {line[:SHOWN]!r}"
            )
        fields[name] = value
        if name == "ElementDataFile":
            return fields, end
    raise BadScanError("expected a MetaImage header, found no ElementDataFile")


def _check_kind(fields: Fields) -> None:
    """Refuse everything that MetaImage can hold except one 3-D volume of plain numbers."""
    [dimensions] = _numbers(fields, "NDims", 1, default="3")
    if dimensions != 3:
        raise BadScanError(f"NDims: expected 3 for one 3-D volume, found {dimensions:g}")
    [channels] = _numbers(fields, "ElementNumberOfChannels", 1, default="1")
    if channels != 1:
        raise BadScanError(
            f"ElementNumberOfChannels: expected one number a voxel, found {channels:g} "
            "(a colour image or a vector field)"
        )
    if not _flag(fields, "BinaryData", default="True"):
        raise BadScanError("BinaryData: expected True, found voxels written as text")


def _shape(fields: Fields) -> tuple[int, int, int]:
    numbers = _numbers(fields, "DimSize", 3)
    if not all(1 <= number <= LONGEST_SIDE and number == int(number) for number in numbers):
        raise BadScanError(
            f"DimSize: expected three whole numbers from 1 to {LONGEST_SIDE}, "
            f"found {fields['DimSize'][:SHOWN]!r}"
        )
    i, j, k = numbers
    return int(i), int(j), int(k)


def _bytes_to_skip(fields: Fields) -> int:
    [number] = _numbers(fields, "HeaderSize", 1, default="0")
    if number < -1 or number != int(number):
        raise BadScanError(f"HeaderSize: expected a number of bytes, or -1, found {number:g}")
    return int(number)


def _dtype(fields: Fields) -> np.dtype:
    kind = _one_of(fields, "ElementType", TYPES)
    order = ">" if _flag(fields, "BinaryDataByteOrderMSB") else "<"
    return np.dtype(order + kind)


def _check_name(name: str) -> None:
    """Refuse a file that is not next to the header, and a list or a pattern of files."""
    is_one_file = Path(name).name == name and name != "LIST" and "%" not in name
    if not is_one_file or not name.isprintable() or len(name.encode()) > LONGEST_NAME:
        raise BadScanError(
            "ElementDataFile: expected the name of one file next to the header, "
            f"found {name[:SHOWN]!r}"
        )


def _affine(fields: Fields) -> np.ndarray:
    """The 4 x 4 affine, index to RAS mm: directions times spacing, and the origin."""
    spacing = np.array(_numbers(fields, "ElementSpacing", 3))
    if not (spacing > 0).all():
        raise BadScanError(
            f"ElementSpacing: expected three positive lengths in mm, found {spacing.tolist()}"
        )
    # Three numbers for each array axis: the direction of one step along it.
    direction = np.reshape(_numbers(fields, "TransformMatrix", 9), (3, 3)).T
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise BadScanError(
            "TransformMatrix: expected three directions of length 1 at right angles, "
            f"found {direction.T.tolist()}"
        )
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = _numbers(fields, "Offset", 3)
    return LPS_TO_RAS @ affine


# ------------------------------------------------------------------------------------------- fields


def _text(fields: Fields, name: str, default: str | None = None) -> str:
    """The value of a field under any of its names; ``default`` if it may be absent."""
    for alias in ALIASES.get(name, (name,)):
        if alias in fields:
            return fields[alias]
    if default is None:
        raise BadScanError(f"expected the field {name} in the header, found none")
    return default


def _numbers(fields: Fields, name: str, count: int, default: str | None = None) -> list[float]:
    """The ``count`` finite numbers of a field.

    The fields that place a voxel in space have no default.
    """
    text = _text(fields, name, default)
    words = text.split()
    numbers = [float(word) for word in words if NUMBER.fullmatch(word)]
    if not len(numbers) == len(words) == count or not np.isfinite(numbers).all():
        raise BadScanError(
            f"{name}: expected {count} number{'s' * (count > 1)}, found {text[:SHOWN]!r}"
        )
    return numbers


def _flag(fields: Fields, name: str, default: str = "False") -> bool:
    return _one_of(fields, name, YES_OR_NO, default)


def _one_of(
    fields: Fields, name: str, meanings: Mapping[str, Meaning], default: str | None = None
) -> Meaning:
    text = _text(fields, name, default)
    if text not in meanings:
        raise BadScanError(f"{name}: expected one of {', '.join(meanings)}, found {text[:SHOWN]!r}")
    return meanings[text]


# ------------------------------------------------------------------------------------------- voxels


def _read_raw(header: MetaHeader, path: Path) -> np.ndarray:
    """The voxels of an uncompressed file, whose length must match the header."""
    length = header.voxels.stat().st_size - max(header.offset, 0)
    at_the_end = header.offset < 0
    if length < header.size or (length > header.size and not at_the_end):
        raise BadScanError(
            f"{header.voxels}: expected {header.size} bytes of voxels by {path.name}, "
            f"found {length}. Copy or download both again"
        )
    skip = length - header.size if at_the_end else header.offset
    return np.fromfile(header.voxels, np.uint8, header.size, offset=skip)


def _inflate(header: MetaHeader, path: Path) -> bytearray:
    """The voxels of a zlib or gzip file, which ends with a checksum.

    If the file holds more than the header says, unpacking stops as soon as this is clear.
    """
    inflater = zlib.decompressobj(wbits=ZLIB_OR_GZIP)
    data = bytearray()
    with header.voxels.open("rb") as file:
        file.seek(max(header.offset, 0))
        try:
            while len(data) <= header.size and (piece := file.read(PIECE)):
                data += inflater.decompress(piece)
        except zlib.error as error:
            raise BadScanError(
                f"{header.voxels} is damaged: {error}. Copy or download it again"
            ) from error
    if not inflater.eof and len(data) <= header.size:
        raise BadScanError(
            f"{header.voxels} is cut short: its compressed data has no end. "
            "Copy or download it again"
        )
    if len(data) != header.size:
        count = len(data) if len(data) < header.size else "more"
        raise BadScanError(
            f"{header.voxels}: expected {header.size} bytes of voxels by {path.name}, found {count}"
        )
    return data
