"""The MetaImage reader.

What ITK reads it reads the same; what is damaged it refuses by name, whatever the header says.
"""

import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from test_luna16_conversion import GRIDS, SHAPE, image_array, write_mhd

from unet3d_tutorial.files.metaimage import read_mhd, read_mhd_header
from unet3d_tutorial.volume import BadScanError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def as_itk_reads(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Array ``(I, J, K)`` and RAS affine by ITK, which shares no code with our reader."""
    image = sitk.ReadImage(path)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).transpose(2, 1, 0), LPS_TO_RAS @ affine


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_and_affines_are_those_that_itk_reads(tmp_path: Path, grid: str, compressed: bool):
    write_mhd(tmp_path / "a.mhd", image_array(), grid=grid, compressed=compressed)
    volume = read_mhd(tmp_path / "a.mhd")
    array, affine = as_itk_reads(tmp_path / "a.mhd")
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, rtol=0, atol=1e-12)
    assert volume.array.dtype == array.dtype and volume.array.flags.writeable


@pytest.mark.parametrize(
    "element, kind",
    {
        "MET_CHAR": "i1",
        "MET_UCHAR": "u1",
        "MET_SHORT": "i2",
        "MET_USHORT": "u2",
        "MET_INT": "i4",
        "MET_UINT": "u4",
        "MET_FLOAT": "f4",
        "MET_DOUBLE": "f8",
    }.items(),
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_of_number_in_both_byte_orders(
    tmp_path: Path, element: str, kind: str, order: str
):
    numbers = np.random.default_rng(1).integers(0, 100, SHAPE).astype(order + kind)
    write_mhd(tmp_path / "a.mhd", numbers, element=element)
    change(tmp_path / "a.mhd", "BinaryDataByteOrderMSB", str(order == ">"))
    array, _ = as_itk_reads(tmp_path / "a.mhd")
    volume = read_mhd(tmp_path / "a.mhd")
    assert volume.array.dtype == array.dtype == np.dtype(kind) and volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array, array)


def test_voxels_in_the_same_file_and_bytes_to_skip(tmp_path: Path):
    image = sitk.GetImageFromArray(image_array().transpose(2, 1, 0))
    for name, compress in (("plain.mha", False), ("packed.mha", True)):
        sitk.WriteImage(image, tmp_path / name, useCompression=compress)
        np.testing.assert_array_equal(read_mhd(tmp_path / name).array, image_array())
    write_mhd(tmp_path / "a.mhd", image_array())
    (tmp_path / "a.raw").write_bytes(b"12345" + (tmp_path / "a.raw").read_bytes())
    for skip in (5, -1):
        text = (
            (tmp_path / "a.mhd")
            .read_text(encoding="utf-8")
            .replace("NDims", f"HeaderSize = {skip}\nNDims")
        )
        (tmp_path / "b.mhd").write_text(text, encoding="utf-8")
        np.testing.assert_array_equal(read_mhd(tmp_path / "b.mhd").array, image_array())


def test_a_header_is_read_without_its_voxels(tmp_path: Path):
    write_mhd(tmp_path / "a.mhd", image_array())
    (tmp_path / "a.raw").unlink()
    header = read_mhd_header(tmp_path / "a.mhd")
    assert header.shape == SHAPE and header.dtype == np.int16 and header.size == 420


def change(path: Path, field: str, value: str) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    changed = [f"{field} = {value}" if line.startswith(f"{field} ") else line for line in lines]
    path.write_text("\n".join(changed) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("NDims", "2", "NDims: expected 3 for one 3-D volume, found 2"),
        ("NDims", "4", "NDims: expected 3 for one 3-D volume, found 4"),
        (
            "ElementSpacing",
            "0.7 0.7 0",
            r"ElementSpacing: expected three positive lengths in mm, found \[0.7, 0.7, 0.0\]",
        ),
        ("ElementSpacing", "0.7 -0.7 1", "ElementSpacing: expected three positive lengths"),
        ("ElementSpacing", "0.7 nan 1", "ElementSpacing: expected 3 numbers, found '0.7 nan 1'"),
        ("ElementSpacing", "0.7 0.7", "ElementSpacing: expected 3 numbers"),
        ("DimSize", "7 6 -5", "DimSize: expected three whole numbers"),
        ("DimSize", "7 6 5.5", "DimSize: expected three whole numbers"),
        ("DimSize", "60000 60000 60000", "expected 432000000000000 bytes of voxels"),
        (
            "TransformMatrix",
            "1 0 0 1 0 0 0 0 1",
            "TransformMatrix: expected three directions of length 1",
        ),
        (
            "TransformMatrix",
            "2 0 0 0 2 0 0 0 2",
            "TransformMatrix: expected three directions of length 1",
        ),
        ("Offset", "1e999 0 0", "Offset: expected 3 numbers"),
        ("ElementType", "MET_SHORT_ARRAY", "ElementType: expected one of"),
        ("BinaryData", "False", "voxels written as text"),
        ("CompressedData", "perhaps", "CompressedData: expected one of True, False"),
        ("CompressedData", "True", "a.raw is damaged"),
        ("ElementDataFile", "../secret.raw", "one file next to the header, found '../secret.raw'"),
        ("ElementDataFile", "/etc/passwd", "one file next to the header"),
        ("ElementDataFile", "LIST", "one file next to the header"),
        ("ElementDataFile", "slice%03d.raw 1 5 1", "one file next to the header"),
        ("ElementDataFile", "none.raw", "none.raw is missing; a.mhd says"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(tmp_path: Path, field: str, value: str, message: str):
    write_mhd(tmp_path / "a.mhd", image_array())
    change(tmp_path / "a.mhd", field, value)
    with pytest.raises(BadScanError, match=message) as caught:
        read_mhd(tmp_path / "a.mhd")
    assert str(tmp_path / "a") in str(caught.value) or "none.raw" in message


def test_a_small_file_that_unpacks_to_very_much_is_left_at_once(tmp_path: Path):
    write_mhd(tmp_path / "a.mhd", image_array(), compressed=True)
    (tmp_path / "a.zraw").write_bytes(zlib.compress(bytes(1 << 26), 1))
    start = time.perf_counter()
    with pytest.raises(BadScanError, match="expected 420 bytes of voxels by a.mhd, found more"):
        read_mhd(tmp_path / "a.mhd")
    assert time.perf_counter() - start < 20


WORDS = [
    "0",
    "-1",
    "1",
    "3",
    "4",
    "7",
    "65535",
    "99999999999999999999",
    "1e400",
    "-1e-400",
    "nan",
    "inf",
    "True",
    "False",
    "MET_SHORT",
    "MET_UCHAR",
    "MET_DOUBLE",
    "LOCAL",
    "LIST",
    "a.raw",
    "a.mhd",
    ".",
    "..",
    "/",
    "%d",
    "",
    "=",
    "\x00",
    "x" * 5000,
    "1_0",
    "0x7",
    "²",
]


def mutated(rng: np.random.Generator, header: bytes) -> bytes:
    """Words of the header exchanged for odd ones, lines doubled or dropped, bytes thrown in."""
    lines = header.decode().splitlines()
    for _ in range(rng.integers(1, 3)):
        number = int(rng.integers(len(lines)))
        words = lines[number].split(" ") or [""]
        words[rng.integers(len(words))] = str(rng.choice(WORDS))
        action = rng.integers(5)
        lines[number] = " ".join(words) if action < 3 else lines[number]
        if action == 3:
            lines.insert(int(rng.integers(len(lines))), lines[number])
        if action == 4 and len(lines) > 2:
            del lines[number]
    data = bytearray("\n".join(lines).encode("latin-1", "replace") + b"\n")
    for _ in range(rng.integers(0, 4) * rng.integers(0, 2)):
        data[rng.integers(len(data))] = rng.integers(0, 256)
    return bytes(data)


def test_two_thousand_mutated_headers_are_read_as_itk_reads_them_or_refused_in_one_line(
    tmp_path: Path,
):
    rng, read, judged, longest = np.random.default_rng(0), 0, 0, 0.0
    write_mhd(tmp_path / "a.mhd", image_array(), grid="oblique")
    sound = (tmp_path / "a.mhd").read_bytes()
    for _ in range(2000):
        (tmp_path / "a.mhd").write_bytes(mutated(rng, sound))
        start = time.perf_counter()
        try:
            volume = read_mhd(tmp_path / "a.mhd")
        except BadScanError as error:
            assert (
                str(tmp_path) in str(error)
                and len(str(error).splitlines()) == 1
                and len(str(error)) < 2000
            ), error
            continue
        finally:
            longest = max(longest, time.perf_counter() - start)
        read += 1
        try:
            array, affine = as_itk_reads(tmp_path / "a.mhd")
        except RuntimeError:  # ITK looks at fields that we do not need
            continue
        judged += 1
        np.testing.assert_array_equal(volume.array, array)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-9)
    assert 100 < judged <= read < 1500 and longest < 20
