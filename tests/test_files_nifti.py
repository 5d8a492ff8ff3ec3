"""NIfTI: what reading and writing must keep, and what is refused."""

import errno
import gzip
import re
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from unet3d_tutorial.files import nifti
from unet3d_tutorial.files.nifti import check_file, load_volume, save_mask, save_volume
from unet3d_tutorial.volume import BadScanError, Volume

OBLIQUE = np.array(
    [[0.0, -1.2, 0.3, 11.5], [0.8, 0.0, 0.0, -20.25], [0.0, 0.5, 2.9, 300.0], [0, 0, 0, 1]]
)


STRAIGHT = np.diag([-1.5, -1.25, 3.0, 1.0])
TURNED = np.array([[0.6, -0.8, 0, 9], [0.8, 0.6, 0, 9], [0, 0, 1, 9], [0, 0, 0, 1]]) @ STRAIGHT


def array_of(kind: str, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 100, shape).astype(kind)


@pytest.mark.parametrize("kind", ["int16", "uint8", "int32", "float32"])
def test_saving_and_loading_keep_values_type_and_affine(tmp_path: Path, kind: str):
    path = save_volume(Volume(array_of(kind), OBLIQUE), tmp_path / "a" / "b.nii.gz")
    loaded = load_volume(path)
    assert loaded.array.dtype == kind and path == tmp_path / "a" / "b.nii.gz"
    np.testing.assert_array_equal(loaded.array, array_of(kind))
    np.testing.assert_allclose(loaded.affine, OBLIQUE, rtol=1e-6)


def test_saved_files_say_millimetres_and_are_compressed(tmp_path: Path):
    path = save_volume(Volume(np.zeros((40, 40, 40), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    assert nib.load(path).header.get_xyzt_units()[0] == "mm"
    assert path.read_bytes()[:2] == b"\x1f\x8b" and path.stat().st_size < 10_000


def test_a_scaled_file_gives_its_real_values_as_float32(tmp_path: Path):
    image = nib.Nifti1Image(array_of("int16"), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    image.to_filename(tmp_path / "a.nii.gz")
    with gzip.open(tmp_path / "a.nii.gz") as file:
        stored = np.frombuffer(file.read()[352:], np.int16).reshape((4, 5, 6), order="F")
    loaded = load_volume(tmp_path / "a.nii.gz")
    assert loaded.array.dtype == np.float32
    np.testing.assert_array_equal(loaded.array, 2.0 * stored - 1024.0)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such file: .*none.nii.gz"):
        load_volume(tmp_path / "none.nii.gz")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        load_volume(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is text", gzip.compress(b"no header")])
def test_a_file_that_is_no_nifti_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "bad.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match="bad.nii.gz: expected NIfTI, .* found b'"):
        load_volume(tmp_path / "bad.nii.gz")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path: Path, share: float):
    path = save_volume(Volume(array_of("int16", (20, 20, 20)), np.eye(4)), tmp_path / "cut.nii.gz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="cut.nii.gz( cannot be read|: cut short).*again"):
        load_volume(path)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2), (4, 5, 6, 1, 3)])
def test_only_3d_volumes_are_read(tmp_path: Path, shape: tuple[int, ...]):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(
        ValueError, match=re.escape(f"a.nii.gz: expected a 3-D volume, found shape {shape}")
    ):
        load_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1)])
def test_one_frame_is_the_same_as_none(tmp_path: Path, shape: tuple[int, ...]):
    nib.save(nib.Nifti1Image(array_of("int16").reshape(shape), OBLIQUE), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(load_volume(tmp_path / "a.nii.gz").array, array_of("int16"))
    assert check_file(tmp_path / "a.nii.gz")[0] == (4, 5, 6)


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_an_affine_that_places_nothing_is_refused(tmp_path: Path, bad: float):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header["sform_code"], image.header["srow_x"], image.header["srow_y"] = (
        1,
        [1, 0, 0, 0],
        [0, 1, 0, 0],
    )
    image.header["srow_z"], image.header["vox_offset"] = [0, 0, bad, 0], 352
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        file.write(image.header.binaryblock + bytes(4) + bytes(240))
    with pytest.raises(
        ValueError, match="a.nii.gz: expected a finite affine with positive spacing"
    ):
        load_volume(tmp_path / "a.nii.gz")


def header_with(**fields) -> bytes:
    """A sound NIfTI-1 header of 4 x 5 x 6 voxels with some fields set to other values."""
    header = nib.Nifti1Image(array_of("int16"), np.eye(4)).header
    header["vox_offset"], header["magic"], header["bitpix"] = 352, b"n+1", 16
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + bytes(4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"magic": b"n-1"}, "magic"),
        (
            {"pixdim": [1, 1, 0, 1, 0, 0, 0, 0]},
            r"expected positive spacing, found \[1.0, 0.0, 1.0\] mm",
        ),
        ({"pixdim": [1, 1, -2, 1, 0, 0, 0, 0]}, "expected positive spacing"),
        ({"pixdim": [1, 1, np.nan, 1, 0, 0, 0, 0]}, "expected positive spacing"),
        ({"dim": [3, 4, 0, 6, 1, 1, 1, 1]}, r"expected a 3-D volume, found shape \(4, 0, 6\)"),
        (
            {"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]},
            "cut short, expected 70362301923326 bytes of voxels, found 240",
        ),
        (
            {"vox_offset": 100},
            "expected the voxels after the header's 348 bytes, found them at 100|too low",
        ),
        ({"datatype": 128}, "expected one number a voxel"),
        ({"datatype": 999}, "999"),
        ({"xyzt_units": 1}, "expected millimetres, found the code 1"),
        ({"sform_code": 77}, "expected sform_code from 0 to 5, found 77"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, fields: dict, message: str):
    for name, pack in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(header_with(**fields) + array_of("int16").tobytes("F")))
        with pytest.raises(
            BadScanError, match=f"{re.escape(str(tmp_path / name))}.*({message})"
        ) as caught:
            load_volume(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite_are_counted(tmp_path: Path, value: float):
    array = array_of("float32")
    array[1, 2, 3] = array[0, 0, 0] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(BadScanError, match="a.nii.gz: expected finite values, found 2 voxels"):
        load_volume(tmp_path / "a.nii.gz")


def test_the_look_at_a_file_agrees_with_reading_it(tmp_path: Path):
    path = save_volume(Volume(array_of("int16", (20, 20, 20)), OBLIQUE), tmp_path / "a.nii.gz")
    packed, plain = path.read_bytes(), gzip.decompress(path.read_bytes())
    half = len(plain) // 2
    sound = {
        "a.nii.gz": packed,
        "b.nii": plain,
        "in two parts.nii.gz": gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        "more than a volume.nii.gz": gzip.compress(plain + b"more"),
        "and longer.nii": plain + b"more",
    }
    for name, data in sound.items():
        (tmp_path / name).write_bytes(data)
        shape, affine = check_file(tmp_path / name)
        assert shape == load_volume(tmp_path / name).array.shape == (20, 20, 20)
        np.testing.assert_array_equal(affine, load_volume(tmp_path / name).affine)
        for missing in (5, 300, len(data) // 2, len(data) - 100):
            (tmp_path / name).write_bytes(data[:-missing])
            with pytest.raises(
                BadScanError, match=f"{name}( cannot be read|: cut short|: expected)"
            ):
                check_file(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file: .*none.nii.gz"):
        check_file(tmp_path / "none.nii.gz")


def test_the_look_at_a_file_does_not_read_its_voxels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = save_volume(Volume(array_of("int16", (20, 20, 20)), OBLIQUE), tmp_path / "a.nii.gz")
    monkeypatch.setattr(nifti, "_read_voxels", lambda *_: pytest.fail("read"))
    check_file(path)


def test_a_damaged_file_is_found_by_its_checksum(tmp_path: Path):
    path = save_volume(Volume(array_of("int16", (30, 30, 30)), np.eye(4)), tmp_path / "a.nii.gz")
    sound = path.read_bytes()
    for position in range(
        400, len(sound), 997
    ):  # the deflate stream and, at the end, the checksum and length
        data = bytearray(sound)
        data[position] ^= 1
        path.write_bytes(data)
        with pytest.raises(BadScanError, match="a.nii.gz"):
            load_volume(path)
    for missing in (1, 4, 8):  # all voxels are there, the end is not
        path.write_bytes(sound[:-missing])
        with pytest.raises(BadScanError, match="a.nii.gz cannot be read"):
            load_volume(path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_both_byte_orders_and_wrong_endings_are_read(tmp_path: Path, kind):
    for order in "<>":
        header = kind.header_class(endianness=order)
        header.set_data_dtype(np.dtype("int16").newbyteorder(order))
        nib.save(kind(array_of("int16"), OBLIQUE, header), tmp_path / "a.nii")
        (tmp_path / "a.nii").rename(tmp_path / "not packed.nii.gz")
        loaded = load_volume(tmp_path / "not packed.nii.gz")
        assert loaded.array.dtype == np.int16 and loaded.array.dtype.isnative
        np.testing.assert_array_equal(loaded.array, array_of("int16"))
        np.testing.assert_allclose(loaded.affine, OBLIQUE, rtol=1e-6)


# What a field may be set to: sizes that overflow, codes that do not exist, numbers that are none.
NASTY = {
    "dim": [0, -1, 1, 2, 3, 4, 7, 8, 32767, -32768],
    "pixdim": [0, -1, np.nan, np.inf, 1e38, 1e-40],
    "datatype": [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 768, 1536, 2304, -1],
    "bitpix": [0, 8, 64, -1],
    "vox_offset": [0, -1, 352, 1e30, np.nan, np.inf, 353.5],
    "scl_slope": [0, -1, np.nan, np.inf, 1e38, 1e-40],
    "scl_inter": [np.nan, np.inf, 3e38, -5],
    "qform_code": [0, 1, 2, -1, 99],
    "sform_code": [0, 1, 2, -1, 99],
    "quatern_b": [np.nan, np.inf, 2, 1e38],
    "srow_x": [np.nan, np.inf, 0, 1e38],
    "xyzt_units": [0, 1, 2, 3, 7, 255],
    "magic": [b"n+1", b"ni1", b"", b"xxxx"],
    "sizeof_hdr": [0, 348, 540, -1, 1543569408],
    "intent_code": [-1, 1007],
}


def mutated(rng: np.random.Generator) -> bytes:
    """A NIfTI file whose header has up to three nasty fields and, at times, odd bytes."""
    header = nib.Nifti1Image(array_of("int16"), OBLIQUE).header
    header["vox_offset"], header["magic"], header["scl_slope"], header["scl_inter"] = (
        352,
        b"n+1",
        1,
        0,
    )
    for name in rng.choice(list(NASTY), rng.integers(0, 4), replace=False):
        value = NASTY[name][rng.integers(len(NASTY[name]))]
        if header[name].ndim:
            header[name][rng.integers(header[name].size)] = value
        else:
            header[name] = value
    data = bytearray(header.binaryblock + bytes(4) + array_of("int16").tobytes("F"))
    for _ in range(rng.integers(0, 6) * rng.integers(0, 2)):
        data[rng.integers(0, 352)] = rng.integers(0, 256)
    return bytes(data[: rng.integers(0, len(data))] if rng.random() < 0.1 else data)


def test_two_thousand_mutated_headers_are_read_as_nibabel_reads_them_or_refused_in_one_line(
    tmp_path: Path, capfd
):
    rng, read, longest = np.random.default_rng(0), 0, 0.0
    for number in range(2000):
        path = tmp_path / ("a.nii", "a.nii.gz")[number % 2]
        data = mutated(rng)
        path.write_bytes(gzip.compress(data, 1) if number % 2 else data)
        start = time.perf_counter()
        try:
            volume_ = load_volume(path)
        except BadScanError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) == 1, error
            continue
        finally:
            longest = max(longest, time.perf_counter() - start)
        read += 1
        assert (
            volume_.array.ndim == 3
            and volume_.array.nbytes <= 4 * len(data)
            and np.isfinite(volume_.array).all()
        )
        assert min(volume_.spacing_mm) > 0 and np.isfinite(volume_.affine).all()
        (tmp_path / "b.nii").write_bytes(data)
        with np.errstate(all="ignore"):
            judge = nib.load(tmp_path / "b.nii")
            np.testing.assert_array_equal(volume_.affine, judge.affine)
            assert volume_.array.shape == judge.shape[:3] and set(judge.shape[3:]) <= {1}
            np.testing.assert_allclose(
                volume_.array, judge.get_fdata().reshape(volume_.array.shape), rtol=1e-6
            )
    assert 200 < read < 1800 and longest < 20
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["a.nii", "a.gz", "a.mhd", "a"])
def test_only_nii_gz_is_written(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=f"ends in .nii.gz, found '{name}'"):
        save_volume(Volume(array_of("int16"), np.eye(4)), tmp_path / name)


def test_an_interrupted_write_keeps_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = save_volume(Volume(array_of("int16"), np.eye(4)), tmp_path / "a.nii.gz")

    def interrupted(_, part: Path):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nifti.nib, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_volume(Volume(array_of("uint8"), OBLIQUE), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nii.gz"]
    np.testing.assert_array_equal(load_volume(path).array, array_of("int16"))


def test_a_write_that_fails_names_the_file_and_keeps_the_error_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_, part: Path):
        part.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nifti.nib, "save", full)
    with pytest.raises(OSError, match="No space left on device.*make room.*a.nii.gz") as caught:
        save_volume(Volume(array_of("uint8"), OBLIQUE), tmp_path / "a.nii.gz")
    assert caught.value.errno == errno.ENOSPC and not list(tmp_path.iterdir())


def test_a_fortran_ordered_or_read_only_view_is_written_as_it_reads(tmp_path: Path):
    view = array_of("int16").transpose(2, 0, 1)[::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(
        load_volume(save_volume(Volume(view, np.eye(4)), tmp_path / "a.nii.gz")).array, view
    )


# ----------------------------------------------------------------------------------------- the mask
def test_a_mask_names_its_structures(tmp_path: Path):
    labels = np.zeros((4, 5, 6), np.int64)
    labels[1, 2, 3] = 3
    path = save_mask(Volume(labels, TURNED), tmp_path / "m.nii.gz")
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8 and np.array_equal(np.asarray(image.dataobj), labels)
    assert np.allclose(image.get_sform(), TURNED, atol=1e-5) and np.allclose(
        image.get_qform(), TURNED, atol=1e-4
    )
    assert image.header.get_intent()[0] == "label"
    assert (
        image.header["descrip"].item().decode()
        == "0 background, 1 left lung, 2 right lung, 3 trachea"
    )
    table = image.header.extensions[0].content
    assert b'Key="2"' in table and b">right lung</Label>" in table
    as_read_by_itk = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(as_read_by_itk).transpose(2, 1, 0), labels)


def test_a_mask_with_a_shear_is_stored_by_its_sform(tmp_path: Path):
    sheared = STRAIGHT.copy()
    sheared[1, 2] = 0.8
    path = save_mask(Volume(np.ones((4, 5, 6), np.uint8), sheared), tmp_path / "m.nii.gz")
    assert (
        np.allclose(load_volume(path).affine, sheared)
        and int(nib.load(path).header["qform_code"]) == 0
    )


def test_a_mask_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_volume(Volume(np.ones((2, 2, 2), np.uint8), STRAIGHT), tmp_path / "m.nii.gz")
    before = (tmp_path / "m.nii.gz").read_bytes()

    def full_disk(image, path):
        Path(path).write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(nib, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_mask(Volume(np.zeros((2, 2, 2), np.uint8), STRAIGHT), tmp_path / "m.nii.gz")
    assert (tmp_path / "m.nii.gz").read_bytes() == before and [
        p.name for p in tmp_path.iterdir()
    ] == ["m.nii.gz"]
