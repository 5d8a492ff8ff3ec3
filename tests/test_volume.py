"""Volumes: where they lie, and what reading and writing must keep or refuse."""

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unet3d_tutorial import volume
from unet3d_tutorial.volume import Volume, load_volume, save_volume

OBLIQUE = np.array([[0.0, -1.2, 0.3, 11.5], [0.8, 0.0, 0.0, -20.25], [0.0, 0.5, 2.9, 300.0], [0, 0, 0, 1]])


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


@pytest.mark.parametrize("affine, codes", [
    (np.eye(4), "RAS"), (np.diag([-1.0, -1, 1, 1]), "LPS"), (np.diag([-1.0, 1, 1, 1]), "LAS"), (OBLIQUE, "ALS"),
])
def test_axis_codes_say_where_each_axis_points(affine: np.ndarray, codes: str):
    assert Volume(array_of("int16"), affine).axis_codes == codes


def test_spacing_is_the_length_of_each_column():
    assert Volume(array_of("int16"), np.diag([-0.7, 0.8, 2.5, 1])).spacing_mm == (0.7, 0.8, 2.5)
    np.testing.assert_allclose(Volume(array_of("int16"), OBLIQUE).spacing_mm, (0.8, 1.3, np.hypot(0.3, 2.9)))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no such file: .*none.nii.gz"):
        load_volume(tmp_path / "none.nii.gz")
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path))):
        load_volume(tmp_path)


@pytest.mark.parametrize("content", [b"", b"this is text", gzip.compress(b"no header")])
def test_a_file_that_is_no_nifti_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "bad.nii.gz").write_bytes(content)
    with pytest.raises(ValueError, match="bad.nii.gz cannot be read as NIfTI"):
        load_volume(tmp_path / "bad.nii.gz")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path: Path, share: float):
    path = save_volume(Volume(array_of("int16", (20, 20, 20)), np.eye(4)), tmp_path / "cut.nii.gz")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="cut.nii.gz cannot be read as NIfTI"):
        load_volume(path)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2)])
def test_only_3d_volumes_are_read(tmp_path: Path, shape: tuple[int, ...]):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=re.escape(f"a.nii.gz: expected a 3-D volume, found shape {shape}")):
        load_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_an_affine_that_places_nothing_is_refused(tmp_path: Path, bad: float):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    image.header["sform_code"], image.header["srow_x"], image.header["srow_y"] = 1, [1, 0, 0, 0], [0, 1, 0, 0]
    image.header["srow_z"] = [0, 0, bad, 0]
    with gzip.open(tmp_path / "a.nii.gz", "wb") as file:
        file.write(image.header.binaryblock + bytes(4) + bytes(240))
    with pytest.raises(ValueError, match="a.nii.gz: expected a finite affine with positive spacing"):
        load_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.gz", "a.mhd", "a"])
def test_only_nii_gz_is_written(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match=f"ends in .nii.gz, found '{name}'"):
        save_volume(Volume(array_of("int16"), np.eye(4)), tmp_path / name)


def test_an_interrupted_write_keeps_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save_volume(Volume(array_of("int16"), np.eye(4)), tmp_path / "a.nii.gz")

    def interrupted(_, part: Path):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(volume.nib, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_volume(Volume(array_of("uint8"), OBLIQUE), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nii.gz"]
    np.testing.assert_array_equal(load_volume(path).array, array_of("int16"))


def test_a_fortran_ordered_or_read_only_view_is_written_as_it_reads(tmp_path: Path):
    view = array_of("int16").transpose(2, 0, 1)[::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(load_volume(save_volume(Volume(view, np.eye(4)), tmp_path / "a.nii.gz")).array, view)
