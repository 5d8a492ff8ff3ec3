"""Reading scans.

Every format gives the same voxels in the same place; what is no CT is refused in one line.
"""

import gzip
import locale
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from unet3d_tutorial.files.dicom import list_series
from unet3d_tutorial.files.nrrd import read_nrrd
from unet3d_tutorial.files.scans import check_ct, read_scan, scan_name
from unet3d_tutorial.volume import Volume

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to ITK's LPS and back
RNG = np.random.default_rng(0)


def rotation(degrees: float, axis: int) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = np.eye(4)
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turned[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    return turned


def chest(shape=(20, 18, 16)) -> np.ndarray:
    """Air around a body with two lungs, no two voxels alike in their neighbourhood."""
    hu = RNG.integers(-1010, -990, shape).astype(np.int16)
    hu[3:-3, 3:-3] = RNG.integers(0, 80, hu[3:-3, 3:-3].shape)
    hu[5:9, 6:-6, 4:-4] = hu[-9:-5, 6:-6, 4:-4] = -850
    return hu


AFFINE = np.array([[-1.5, 0, 0, 40], [0, -1.25, 0, 30], [0, 0, 3.0, -20], [0, 0, 0, 1]])
OBLIQUE = rotation(20, 2) @ rotation(-12, 0) @ AFFINE


def as_itk(volume: Volume) -> sitk.Image:
    affine = FLIP @ volume.affine
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array.transpose(2, 1, 0)))
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(affine[:3, 3])
    image.SetDirection((affine[:3, :3] / volume.spacing_mm).ravel())
    return image


def write_dicom(
    volume: Volume, folder: Path, *, uid="1.2.826.0.1", modality="CT", skip=(), **tags
) -> list[Path]:
    """One file a slice, stored with the usual intercept of -1024.

    The names are in another order than the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    affine = FLIP @ volume.affine
    directions = affine[:3, :3] / volume.spacing_mm
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    files = []
    for k in range(volume.array.shape[2]):
        pixels = sitk.GetImageFromArray(np.ascontiguousarray(volume.array[:, :, k].T))
        pixels.SetSpacing(volume.spacing_mm[:2])
        values = {
            "0008|0060": modality,
            "0020|000e": uid,
            "0020|000d": "1.2.3",
            "0008|0018": f"{uid}.{k}",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|103e": "chest",
            "0028|1052": "-1024",
            "0028|1053": "1",
            "0020|0032": "\\".join(f"{x:.6f}" for x in (affine @ [0, 0, k, 1])[:3]),
            "0020|0037": "\\".join(f"{x:.8f}" for x in directions[:, :2].T.ravel()),
            **tags.get(f"slice_{k}", {}),
        }
        for tag, value in values.items():
            pixels.SetMetaData(tag, value)
        if k not in skip:
            files.append(folder / f"{(7 * k) % 97:02d}-{k}.dcm")
            writer.SetFileName(str(files[-1]))
            writer.Execute(pixels)
    return files


# --------------------------------------------------------------------------------- what can be read
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mhd", "a.mha", "a.nrrd", "dicom"])
def test_every_format_gives_the_same_volume(name, affine, tmp_path):
    volume = Volume(chest(), affine)
    path = tmp_path / name
    if name == "dicom":
        write_dicom(volume, path)
    elif ".nii" in name:
        nib.save(nib.Nifti1Image(volume.array, affine), path)
    else:
        sitk.WriteImage(as_itk(volume), str(path), useCompression=name == "a.nrrd")
    language = "C.UTF-8"
    locale.setlocale(locale.LC_ALL, language)
    found = read_scan(path)
    assert np.array_equal(found.array, volume.array)
    assert np.allclose(found.affine, affine, atol=1e-3)
    # ITK's DICOM reader would leave "C".
    assert locale.setlocale(locale.LC_ALL) == language


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.float32])
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("suffix", ["mhd", "mha"])
def test_metaimage_in_one_file_and_in_two(suffix, compress, kind, tmp_path):
    volume = Volume(chest().astype(kind), OBLIQUE)
    sitk.WriteImage(as_itk(volume), str(tmp_path / f"a.{suffix}"), useCompression=compress)
    found = read_scan(tmp_path / f"a.{suffix}")
    assert found.array.dtype == kind and np.array_equal(found.array, volume.array)
    assert np.allclose(found.affine, OBLIQUE, atol=1e-3)


def test_nifti_is_told_by_its_content_and_one_frame_is_a_volume(tmp_path):
    array = chest()
    plain = nib.Nifti1Image(array[..., None], AFFINE).to_bytes()
    for name, data in (("plain.nii.gz", plain), ("packed.nii", gzip.compress(plain))):
        (tmp_path / name).write_bytes(data)
        assert np.array_equal(read_scan(tmp_path / name).array, array)


def test_dicom_of_a_tilted_gantry_keeps_its_shear(tmp_path):
    sheared = AFFINE.copy()
    sheared[1, 2] = 0.8  # each slice a little further to the front than the one below
    volume = Volume(chest(), sheared)
    write_dicom(volume, tmp_path / "d")
    found = read_scan(tmp_path / "d")
    assert np.array_equal(found.array, volume.array) and np.allclose(
        found.affine, sheared, atol=1e-3
    )


def test_one_of_several_series_is_chosen_by_the_end_of_its_uid(tmp_path):
    volume = Volume(chest(), AFFINE)
    write_dicom(volume, tmp_path, uid="1.2.3.11")
    write_dicom(Volume(volume.array[..., :5] + 1, AFFINE), tmp_path / "other", uid="1.2.3.12")
    for file in (tmp_path / "other").iterdir():
        file.rename(tmp_path / f"b-{file.name}")
    (tmp_path / "other").rmdir()
    assert {uid: len(files) for uid, files in list_series(tmp_path).items()} == {
        "1.2.3.11": 16,
        "1.2.3.12": 5,
    }
    with pytest.raises(
        ValueError, match=r"--series: 1\.2\.3\.11 \(16 slices, CT, chest\); 1\.2\.3\.12 \(5 slices"
    ):
        read_scan(tmp_path)
    assert read_scan(tmp_path, series=".12").array.shape == (20, 18, 5)
    with pytest.raises(ValueError, match="found 0 of these"):
        read_scan(tmp_path, series="13")


@pytest.mark.parametrize(
    ("path", "name"),
    [("x/a.nii.gz", "a"), ("b.1.mhd", "b.1"), ("folder", "folder"), ("C.NII", "C")],
)
def test_scan_name(path, name):
    assert scan_name(path) == name


# ------------------------------------------------------------------------------ what cannot be used
def refuse(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_scan(path)
    assert "\n" not in str(caught.value) and str(path.parent) in str(caught.value)


DICOM_DEFECTS = {
    "slice missing": ({"skip": (7,)}, "expected neighbours 3 mm apart, found 6 mm"),
    "slice double": (
        {"slice_7": {"0020|0032": "-40\\-30\\1"}, "slice_8": {"0020|0032": "-40\\-30\\1"}},
        "out of place",
    ),
    "slice turned": ({"slice_7": {"0020|0037": "0\\1\\0\\0\\0\\1"}}, "orientation and spacing of"),
    "not a CT": ({"modality": "MR"}, "expected the modality CT, found MR"),
    "one slice": ({"skip": range(1, 16)}, "expected several slices in the series, found one"),
}


@pytest.mark.parametrize(
    ("tag", "name"), [(0x0032, "Image Position"), (0x0037, "Image Orientation")]
)
def test_a_dicom_slice_without_its_place(tag, name, tmp_path):
    file = write_dicom(Volume(chest(), AFFINE), tmp_path / "d")[7]
    element, other = (struct.pack("<HH", 0x0020, number) for number in (tag, tag + 1))
    assert element in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(element, other, 1))
    refuse(
        tmp_path / "d",
        rf"{file.name}: expected the DICOM field {name} \(0020,{tag:04x}\), found none",
    )


@pytest.mark.parametrize("defect", DICOM_DEFECTS)
def test_dicom_that_is_not_one_regular_stack(defect, tmp_path):
    options, message = DICOM_DEFECTS[defect]
    write_dicom(Volume(chest(), AFFINE), tmp_path / "d", **options)
    refuse(tmp_path / "d", message)


def test_folders_and_names_that_are_no_scan(tmp_path):
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "expected DICOM slices in this folder, found none")
    for name in ("a.png", "a", "a.dcm"):
        (tmp_path / name).write_bytes(b"x")
        refuse(tmp_path / name, "expected")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_scan(tmp_path / "none.nii.gz")


def nifti(tmp_path: Path, array: np.ndarray, **header) -> Path:
    image = nib.Nifti1Image(array, AFFINE)
    path = tmp_path / "a.nii"
    nib.save(image, path)
    raw = bytearray(path.read_bytes())
    for offset, packed in header.values():
        raw[offset : offset + len(packed)] = packed
    path.write_bytes(raw)
    return path


NIFTI_DEFECTS = {
    "one slice": (chest()[..., :1], {}, "several slices, found shape"),
    "4-D": (np.stack([chest()] * 2, axis=3), {}, "several slices, found shape"),
    "colour": (np.zeros((9, 9, 9), [("R", "u1"), ("G", "u1"), ("B", "u1")]), {}, "found several"),
    "complex": (chest().astype(np.complex64), {}, "expected one number a voxel"),
    "scaled": ((chest() + 1024) / 2000, {}, "expected a CT in HU"),
    "without intercept": (chest() + 1024, {}, "expected a CT in HU"),
    "MRI": (RNG.integers(0, 900, (20, 20, 20)).astype(np.int16), {}, "expected a CT in HU"),
    "not numbers": (np.full((9, 9, 9), np.nan, np.float32), {}, "expected finite values"),
    "no spacing": (
        chest(),
        {"sform_code": (254, b"\0\0"), "qform": (252, b"\1\0"), "pixdim": (80, bytes(12))},
        "spacing",
    ),
    "no orientation": (chest(), {"codes": (252, bytes(4))}, "neither sform nor qform"),
    "huge": (chest(), {"dim": (42, struct.pack("<3h", 32767, 32767, 32767))}, "at most"),
    "large": (chest(), {"dim": (42, struct.pack("<3h", 1000, 1000, 1000))}, "found a file of"),
    "cut": (chest(), {"dim": (46, struct.pack("<h", 17))}, "cut short"),
}


@pytest.mark.parametrize("defect", NIFTI_DEFECTS)
def test_nifti_that_is_no_ct(defect, tmp_path):
    array, header, message = NIFTI_DEFECTS[defect]
    refuse(nifti(tmp_path, array, **header), message)


def test_itk_formats_that_say_too_little(tmp_path):
    image = as_itk(Volume(chest(), AFFINE))
    for name, line, message in (
        ("a.mhd", b"ElementSpacing", "field ElementSpacing"),
        ("b.mha", b"ElementSpacing", "field ElementSpacing"),
        ("a.mhd", b"TransformMatrix", "field TransformMatrix"),
        ("a.mhd", b"Offset", "field Offset"),
        ("b.mha", b"TransformMatrix", "field TransformMatrix"),
        ("b.mha", b"Offset", "field Offset"),
        ("c.nrrd", b"space directions", "'space directions'"),
        ("d.nrrd", b"space:", "'space'"),
    ):
        path = tmp_path / name
        sitk.WriteImage(image, str(path))
        path.write_bytes(
            b"\n".join(row for row in path.read_bytes().split(b"\n") if not row.startswith(line))
        )
        refuse(path, message)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mhd", "a.mha", "a.nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_refused_in_every_format(name, value, tmp_path):
    """One infinite voxel among many sound ones passes as a CT.

    A network gives an empty mask for all around it.
    """
    array = chest().astype(np.float32)
    array[10, 9, 8] = value
    sitk.WriteImage(as_itk(Volume(array, AFFINE)), str(tmp_path / name))
    refuse(tmp_path / name, "expected finite values, found 1 voxels")


def test_itk_sizes_that_cannot_be(tmp_path):
    image = as_itk(Volume(chest(), AFFINE))
    for name, old, new, message in (
        ("a.mhd", b"DimSize = 20 18 16", b"DimSize = 200000 18000 160", "from 1 to 65535"),
        ("b.mhd", b"DimSize = 20 18 16", b"DimSize = 20000 18000 160", "at most"),
        ("c.mha", b"DimSize = 20 18 16", b"DimSize = 2000 1800 160", "found a file of"),
        ("d.mha", b"DimSize = 20 18 16", b"DimSize = 20 18 1", "several slices"),
        ("e.nrrd", b"sizes: 20 18 16", b"sizes: 2000 1800 160", "found a file of|cannot be read"),
        ("f.nrrd", b"sizes: 20 18 16", b"sizes: 20000 18000 160", "at most|cannot be read"),
    ):
        path = tmp_path / name
        sitk.WriteImage(image, str(path))
        path.write_bytes(path.read_bytes().replace(old, new))
        refuse(path, message)


def test_colour_and_many_components_in_itk_formats(tmp_path):
    rgb = sitk.GetImageFromArray(np.zeros((9, 9, 9, 3), np.uint8), isVector=True)
    sitk.WriteImage(rgb, str(tmp_path / "a.mha"))
    refuse(tmp_path / "a.mha", "expected one number a voxel, found 3")
    sitk.WriteImage(rgb, str(tmp_path / "a.nrrd"))
    refuse(tmp_path / "a.nrrd", "expected one number a voxel, found several")


@pytest.mark.parametrize("field", ["data file", "datafile"])
def test_nrrd_in_two_files_under_both_names_of_the_field(field, tmp_path):
    volume = Volume(np.tile(chest(), (8, 8, 2)), AFFINE)
    sitk.WriteImage(as_itk(volume), str(tmp_path / "a.nhdr"))
    header = (tmp_path / "a.nhdr").read_bytes()
    assert b"data file: a.raw" in header
    renamed = header.replace(b"data file: ", field.encode() + b": ")
    (tmp_path / "a.nhdr").write_bytes(renamed)
    assert read_scan(tmp_path / "a.nhdr") == read_nrrd(tmp_path / "a.nhdr")
    assert np.array_equal(read_scan(tmp_path / "a.nhdr").array, volume.array)
    (tmp_path / "a.raw").unlink()
    refuse(tmp_path / "a.nhdr", "expected its voxels in .*a.raw, found no such file")


def test_metaimage_without_its_voxels(tmp_path):
    sitk.WriteImage(as_itk(Volume(chest(), AFFINE)), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    refuse(tmp_path / "a.mhd", "a.raw is missing; a.mhd says")


def test_metaimage_with_a_name_longer_than_a_file_can_have(tmp_path):
    sitk.WriteImage(as_itk(Volume(chest(), AFFINE)), str(tmp_path / "a.mhd"))
    header = (tmp_path / "a.mhd").read_bytes()
    (tmp_path / "a.mhd").write_bytes(header.replace(b"a.raw", b"\xe9" * 190))
    refuse(tmp_path / "a.mhd", "expected the name of one file")


@pytest.mark.parametrize("spacing", [0.01, 50.0])
def test_spacing_that_no_ct_has(spacing):
    with pytest.raises(ValueError, match="x.nii: expected a spacing from 0.05 to 20 mm"):
        check_ct(Volume(chest(), np.diag([spacing, 1, 1, 1])), "x.nii")


# ----------------------------------------------------------------------------------------- the fuzz
def seeds(folder: Path) -> dict[str, bytes]:
    """A sound file of each kind, small, with the header in plain sight."""
    volume = Volume(chest((9, 8, 7)), OBLIQUE)
    for name in ("a.mha", "a.nrrd"):
        sitk.WriteImage(as_itk(volume), str(folder / name))
    nib.save(nib.Nifti1Image(volume.array, OBLIQUE), folder / "a.nii")
    [dicom, *_] = write_dicom(volume, folder.parent / "case")
    found = {name: (folder / name).read_bytes() for name in ("a.mha", "a.nrrd", "a.nii")}
    return {**found, "a.nii.gz": gzip.compress(found["a.nii"]), dicom.name: dicom.read_bytes()}


def broken(data: bytes, rng: np.random.Generator) -> bytes:
    """The file cut short, a piece lost, or bytes changed, half of the time only in the header."""
    kind, raw = rng.integers(4), bytearray(data)
    if kind == 0:
        return bytes(raw[: rng.integers(len(raw))])
    if kind == 1:
        at = int(rng.integers(len(raw)))
        return bytes(raw[:at] + raw[at + int(rng.integers(1, 60)) :])
    for _ in range(rng.integers(1, 12)):
        raw[int(rng.integers(min(len(raw), 400 if kind == 2 else len(raw))))] = int(
            rng.integers(256)
        )
    return bytes(raw)


def test_broken_files_are_refused_or_read_and_nothing_else(tmp_path):
    """Each of 700 broken files gives a volume that passes as a CT, or one line that names the file.

    There is no other error.
    """
    rng = np.random.default_rng(6)
    (tmp_path / "seeds").mkdir()
    outcomes = {"read": 0, "refused": 0}
    for name, data in seeds(tmp_path / "seeds").items():
        folder = tmp_path / "case"
        for _ in range(140):
            path = folder / name  # a slice is broken among sound ones
            path.write_bytes(broken(data, rng))
            try:
                check_ct(read_scan(folder if path.suffix == ".dcm" else path), "again")
                outcomes["read"] += 1
            except (ValueError, OSError) as error:
                assert "\n" not in str(error) and "case" in str(error), error
                outcomes["refused"] += 1
    assert sum(outcomes.values()) == 700 and outcomes["refused"] > 350, outcomes
