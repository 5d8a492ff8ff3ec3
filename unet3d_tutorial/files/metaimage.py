"""MetaImage, the format of LUNA16's scans: a small text header, ``.mhd``, and the voxels, ``.raw``
or ``.zraw``; or both
in one file, ``.mha``.

The format is that of ITK (https://itk.org/Wiki/ITK/MetaIO/Documentation). Every field that matters
is checked before a voxel is read, so that no header, however damaged, does more than raise an
error.
"""

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..volume import PIECE, BadScanError, Volume, check_finite

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
#: Names that a field has had in the format's history, the present one first.
ALIASES = {
    "Offset": ("Offset", "Position", "Origin"),
    "ElementSpacing": ("ElementSpacing", "ElementSize"),
    "TransformMatrix": ("TransformMatrix", "Rotation", "Orientation"),
    "BinaryDataByteOrderMSB": ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"),
}


@dataclass(frozen=True)
class MetaHeader:
    """What a header says, checked."""

    shape: tuple[int, int, int]  #: voxels along I, J, K; the first index runs fastest in the file
    dtype: np.dtype
    affine: np.ndarray  #: 4 x 4, index to RAS mm
    voxels: Path  #: the file that holds them
    offset: int  #: bytes to skip in it; -1: they are its last ones
    compressed: bool  #: by zlib or gzip

    @property
    def size(self) -> int:
        """Bytes of voxels, uncompressed."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_mhd(path: str | Path) -> Volume:
    """Read a 3-D MetaImage as ``(I, J, K)``, in the file's own voxel order, with its affine in RAS
    mm.

    Raises :class:`~unet3d_tutorial.volume.BadScanError`, naming the file, if header or voxels are
    missing, cut short or unreadable, if the image is not 3-D with one finite number a voxel, or if
    its spacing is not positive.
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
    array = np.frombuffer(data, header.dtype).reshape(header.shape, order="F")
    check_finite(array, header.voxels)
    return Volume(array.astype(header.dtype.newbyteorder("="), copy=False), header.affine)


# ------------------------------------------------------------------------------------------- header


def read_mhd_header(path: str | Path) -> MetaHeader:
    """Read and check a header alone, without the voxels. Raises as :func:`read_mhd` does."""
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
    _refuse_other_kinds(fields)
    kind = _one_of(fields, "ElementType", TYPES)
    order = ">" if _flag(fields, "BinaryDataByteOrderMSB") else "<"
    name = fields["ElementDataFile"]
    if name == "LOCAL":
        voxels, offset = path, end
    elif (
        Path(name).name != name
        or not name.isprintable()
        or len(name) > 200
        or name == "LIST"
        or "%" in name
    ):
        raise BadScanError(
            f"ElementDataFile: expected the name of one file beside the header, found {name[:80]!r}"
        )
    else:
        voxels, offset = path.parent / name, int(_numbers(fields, "HeaderSize", 1, default=(0,))[0])
    shape = tuple(int(n) for n in _numbers(fields, "DimSize", 3))
    return MetaHeader(
        shape,
        np.dtype(order + kind),
        _affine(fields),
        voxels,
        offset,
        _flag(fields, "CompressedData"),
    )


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The lines ``Name = value`` down to ElementDataFile, which ends a header, and where the next
    line begins.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    fields, end = {}, 0
    for line in head.splitlines(keepends=True):
        end += len(line)
        key, equals, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if (
            not equals or key in fields
        ):  # ITK would read the next line as part of this one, or choose one of two
            raise BadScanError(
                f"expected lines of the form Name = value, each name once, found {line[:80]!r}"
            )
        fields[key] = value
        if key == "ElementDataFile":
            return fields, end
    raise BadScanError("expected a MetaImage header, found no ElementDataFile")


def _refuse_other_kinds(fields: dict[str, str]) -> None:
    """MetaImage can hold more kinds of data than one 3-D volume of plain numbers."""
    for name, expected in (("NDims", 3), ("ElementNumberOfChannels", 1)):
        found = _numbers(fields, name, 1, default=(expected,))[0]
        if found != expected:
            raise BadScanError(f"{name}: expected {expected} for one 3-D volume, found {found:g}")
    if not _flag(fields, "BinaryData", default="True"):
        raise BadScanError("BinaryData: expected True, found voxels written as text")
    shape = _numbers(fields, "DimSize", 3)
    if not all(1 <= n <= 65535 and n == int(n) for n in shape):
        raise BadScanError(
            f"DimSize: expected three whole numbers from 1 to 65535, found {fields['DimSize'][:80]!r}"
        )
    skip = _numbers(fields, "HeaderSize", 1, default=(0,))[0]
    if skip < -1 or skip != int(skip):
        raise BadScanError(f"HeaderSize: expected a number of bytes, or -1, found {skip:g}")


def _affine(fields: dict[str, str]) -> np.ndarray:
    """Index to RAS mm: directions times spacing, then the origin, with left and back turned into
    right and front.
    """
    spacing = np.array(_numbers(fields, "ElementSpacing", 3))
    if not (spacing > 0).all():
        raise BadScanError(
            f"ElementSpacing: expected three positive lengths in mm, found {spacing.tolist()}"
        )
    # three numbers for each index in turn: where one step along it leads
    direction = np.reshape(_numbers(fields, "TransformMatrix", 9), (3, 3)).T
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise BadScanError(
            f"TransformMatrix: expected three directions of length 1 at right angles, found "
            f"{direction.T.tolist()}"
        )
    affine = np.eye(4)
    affine[:3, :3] = direction * spacing
    affine[:3, 3] = _numbers(fields, "Offset", 3)
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _text(fields: dict[str, str], name: str, default: str | None = None) -> str:
    text = next((fields[alias] for alias in ALIASES.get(name, (name,)) if alias in fields), default)
    if text is None:
        raise BadScanError(f"expected the field {name} in the header, found none")
    return text


def _numbers(
    fields: dict[str, str], name: str, count: int, default: tuple | None = None
) -> list[float]:
    """The finite numbers of a field;

    ``default`` if it may be absent. Where a voxel lies is never left to a default.
    """
    text = _text(fields, name, None if default is None else " ".join(map(str, default)))
    numbers = [float(word) for word in text.split() if NUMBER.fullmatch(word)]
    if len(numbers) != count or len(text.split()) != count or not np.isfinite(numbers).all():
        raise BadScanError(
            f"{name}: expected {count} number{'s' * (count > 1)}, found {text[:80]!r}"
        )
    return numbers


def _flag(fields: dict[str, str], name: str, default: str = "False") -> bool:
    return _one_of(fields, name, YES_OR_NO, default)


def _one_of(fields: dict[str, str], name: str, meaning: dict, default: str | None = None):
    text = _text(fields, name, default)
    if text not in meaning:
        raise BadScanError(f"{name}: expected one of {', '.join(meaning)}, found {text[:80]!r}")
    return meaning[text]


# ------------------------------------------------------------------------------------------- voxels


def _read_raw(header: MetaHeader, path: Path) -> np.ndarray:
    """The voxels of an uncompressed file, whose length must be what the header says."""
    found = header.voxels.stat().st_size - max(header.offset, 0)
    if found < header.size or (found > header.size and header.offset >= 0):
        raise BadScanError(
            f"{header.voxels}: expected {header.size} bytes of voxels by {path.name}, found {found}. "
            "Copy or download both again"
        )
    skip = found - header.size if header.offset < 0 else header.offset
    return np.fromfile(header.voxels, np.uint8, header.size, offset=skip)


def _inflate(header: MetaHeader, path: Path) -> bytearray:
    """The voxels of a zlib or gzip file, whose end has a checksum; a file that holds more is left
    at once.
    """
    inflater, data = zlib.decompressobj(wbits=47), bytearray()
    with header.voxels.open("rb") as file:
        file.seek(max(header.offset, 0))
        try:
            while len(data) <= header.size and (piece := file.read(PIECE >> 4)):
                data += inflater.decompress(piece)
        except zlib.error as error:
            raise BadScanError(
                f"{header.voxels} is damaged: {error}. Copy or download it again"
            ) from error
    if not inflater.eof and len(data) <= header.size:
        raise BadScanError(
            f"{header.voxels} is cut short: its compressed data has no end. Copy or download it again"
        )
    if len(data) != header.size:
        found = f"{len(data)}" if len(data) < header.size else "more"
        raise BadScanError(
            f"{header.voxels}: expected {header.size} bytes of voxels by {path.name}, found {found}"
        )
    return data
