"""Phantoms: repeatable, labelled right, in LUNA16's layout."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from unet3d_tutorial.phantom import lungs as phantom_lungs
from unet3d_tutorial.phantom import recipe as phantoms
from unet3d_tutorial.phantom.recipe import generate, write_luna16


@pytest.fixture(
    scope="module",
    params=[("train", 0), ("train", 1), ("train", 2), ("holdout", 0), ("holdout", 1)],
)
def phantom(request):
    family, seed = request.param
    return generate(seed, family=family, spacing_mm=5.0)


def test_same_seed_same_bits_and_other_seed_other_patient():
    first, second, other = (generate(seed, spacing_mm=6.0) for seed in (3, 3, 4))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.array, b.array) and np.array_equal(a.affine, b.affine)
    assert first[0].array.shape != other[0].array.shape or not np.array_equal(
        first[0].array, other[0].array
    )


def test_families_differ():
    train, holdout = (
        generate(3, spacing_mm=6.0, family=family)[0].array for family in ("train", "holdout")
    )
    assert train.shape != holdout.shape or not np.array_equal(train, holdout)


def test_types_and_grid(phantom):
    image, label = phantom
    assert image.array.dtype == np.int16 and label.array.dtype == np.uint8
    assert image.array.shape == label.array.shape
    assert image.axis_codes == "LPS" and image.spacing_mm == (5.0, 5.0, 5.0)
    assert set(np.unique(label.array)) == {0, 1, 2, 3}


def test_structures_have_human_volumes_and_places(phantom):
    image, label = phantom
    millilitres = np.bincount(label.array.ravel())[1:] * 5.0**3 / 1000
    assert (millilitres[:2] > 150).all() and (millilitres[:2] < 6000).all()
    assert 5 < millilitres[2] < 120
    left, right, trachea = (np.argwhere(label.array == value).mean(axis=0) for value in (1, 2, 3))
    assert left[0] > trachea[0] > right[0]  # the first index grows to the patient's left
    assert trachea[2] > (left[2] + right[2]) / 2  # and the last one to the head


def test_intensities_are_those_of_tissue(phantom):
    image, label = phantom
    lung = np.median(image.array[(label.array == 1) | (label.array == 2)])
    assert -980 < lung < -350
    core = ndimage.binary_erosion(label.array == 3)
    if core.any():
        assert np.median(image.array[core]) < -500  # air, blurred with the wall of a thin airway
    assert image.array.max() > 150


def test_air_and_lung_cannot_be_told_apart_by_hu_alone(phantom):
    """Outside air must be there as a counter-example, or a network learns that air is lung."""
    image, label = phantom
    assert ((image.array < -900) & (label.array == 0)).mean() > 0.02


def test_bad_settings():
    with pytest.raises(ValueError, match="family: expected 'train' or 'holdout', found 'test'"):
        generate(0, family="test")
    with pytest.raises(ValueError, match="spacing_mm: expected 1 to 8 mm, found 0.5"):
        generate(0, spacing_mm=0.5)


def test_layout_values_and_resumption(tmp_path):
    folder = write_luna16(tmp_path / "luna", n=20, seed=1, spacing_mm=8.0)
    scans = sorted(folder.glob("subset*/*.mhd"))
    assert len(scans) == 20 and {scan.parent.name for scan in scans} == {
        f"subset{i}" for i in range(10)
    }
    assert [scan.stem[-4:] for scan in scans[10:]] == [f"{number:04d}" for number in range(10, 20)]
    assert {scan.parent.name for scan in scans[10:]} == {"subset9"}
    image = sitk.ReadImage(str(scans[-1]))
    mask = sitk.ReadImage(str(folder / "seg-lungs-LUNA16" / scans[-1].name))
    assert set(np.unique(sitk.GetArrayViewFromImage(mask))) == {0, 3, 4, 5}
    assert image.GetSpacing() == (8.0, 8.0, 8.0) and image.GetOrigin() == mask.GetOrigin()
    expected, _ = generate([1, 19], spacing_mm=8.0, family="holdout")
    assert np.array_equal(sitk.GetArrayViewFromImage(image).transpose(2, 1, 0), expected.array)

    scans[3].unlink()
    kept = scans[4].stat().st_mtime_ns
    write_luna16(folder, n=20, seed=1, spacing_mm=8.0)
    assert scans[3].exists() and scans[4].stat().st_mtime_ns == kept
    with pytest.raises(ValueError, match="phantoms of a different recipe"):
        write_luna16(folder, n=20, seed=2, spacing_mm=8.0)
    with pytest.raises(ValueError, match="at least 20 phantoms"):
        write_luna16(tmp_path / "few", n=5)


@pytest.mark.parametrize("n", [20, 57, 99, 100, 190])
def test_the_last_ten_are_in_subset9_whose_last_ten_are_validated_on(n):
    names = sorted((phantoms._scan_path(Path(), number, n), number) for number in range(n))
    assert [number for _, number in names] == list(range(n)) and len(
        {path.parent for path, _ in names}
    ) == 10
    ninth = [number for path, number in names if path.parent.name == "subset9"]
    assert ninth[-10:] == list(range(n - 10, n)) and (n >= 100 or len(ninth) == 10)


def test_what_is_painted_over_a_lung_takes_its_label(monkeypatch) -> None:
    """Heart, vessels and bones are no lung, wherever chance puts them.

    Disease and the lung's own vessels are.
    """
    for module, name in (
        (phantoms, "paint_diseases"),
        (phantoms, "add_scanner_marks"),
        (phantoms, "paint_airway"),
        (phantom_lungs, "grow_vessel"),
    ):
        monkeypatch.setattr(module, name, lambda *parts: None)
    for seed in range(6):
        image, label = generate(seed)
        lung = (label.array == 1) | (label.array == 2)
        assert (image.array[lung] > -100).mean() < 1e-3
