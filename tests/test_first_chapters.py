"""What the first chapters draw, measure and check, on volumes small enough to do by hand."""

from pathlib import Path

import numpy as np
import pytest

from unet3d_tutorial.book.config import show_crop_sizes
from unet3d_tutorial.book.data import (
    copy_case,
    copy_scans,
    measure,
    show_borders,
    show_phantoms,
    show_windows,
)
from unet3d_tutorial.book.dataset import show_corners, show_crops, show_pipeline, show_waits
from unet3d_tutorial.book.pictures import thinned
from unet3d_tutorial.book.transforms import (
    share_on_its_side,
    show_grids,
    show_intensities,
    show_position,
    show_shapes,
    verdict_on_mirroring,
)
from unet3d_tutorial.volume import Volume

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])


def chest(shape: tuple[int, int, int] = (12, 10, 8)) -> tuple[Volume, Volume]:
    """A box of -800 HU in the left half and one in the right half, with a trachea between them."""
    classes = np.zeros(shape, np.uint8)
    classes[1:5, 2:8, 1:7] = 1
    classes[7:11, 2:8, 1:7] = 2
    classes[5:7, 4:6, 1:7] = 3
    hu = np.where(classes > 0, np.float32(-800), np.float32(40))
    return Volume(hu, AFFINE), Volume(classes, AFFINE)


def with_channel(volume: Volume) -> Volume:
    return Volume(volume.array[None], volume.affine)


def test_a_thinned_volume_stays_in_its_place() -> None:
    image, _ = chest()
    thin = thinned(image, 2)
    assert thin.array.shape == (6, 5, 8)
    assert thin.array[2, 1, 3] == image.array[4, 2, 3]
    assert np.array_equal(thin.affine @ [2, 1, 3, 1], image.affine @ [4, 2, 3, 1])


def test_measures_of_a_chest_by_hand() -> None:
    lung_ml = 4 * 6 * 6 * 2 * 2 * 5 / 1000
    assert measure(*chest()) == {
        "lungs, mL": pytest.approx(2 * lung_ml),
        "left / right": pytest.approx(1.0),
        "trachea, mL": pytest.approx(2 * 2 * 6 * 20 / 1000),
        "lung, mean HU": -800.0,
        "length of scan, mm": 40.0,
    }


def test_the_share_of_lung_that_lies_on_its_side() -> None:
    _, label = chest()
    position = np.ones((2, *label.array.shape), np.float32)
    position[1, :6] = -1
    image = Volume(position, AFFINE)
    assert share_on_its_side(image, with_channel(label)) == 1.0
    position[1, 1:3] = 1  # half of the left lung
    assert share_on_its_side(image, with_channel(label)) == 0.75


def test_the_verdict_on_a_mirrored_scan() -> None:
    image, label = map(with_channel, chest())
    mirrored = image.array[:, ::-1]
    exchanged = np.array([0, 2, 1, 3], np.uint8)[label.array[:, ::-1]]
    assert verdict_on_mirroring(mirrored, exchanged, image, label) == "Right."
    for answer, text in (
        ((image.array + 1, exchanged), "image mirrored: False"),
        ((mirrored, np.zeros_like(exchanged)), "label mirrored: False"),
        ((mirrored, label.array[:, ::-1]), "label mirrored: True; names exchanged: False"),
    ):
        verdict = verdict_on_mirroring(*answer, image, label)
        assert verdict.startswith("Not yet") and text in verdict


def test_copies_of_cases_and_scans(tmp_path: Path) -> None:
    for name in ("set/train/image/a.nii.gz", "set/train/seg/a.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    copy_case(tmp_path / "set", "train/a", tmp_path / "new", "val/b")
    copy_case(tmp_path / "set", "train/a", tmp_path / "new")
    assert files_of(tmp_path / "new") == [
        "train/image/a.nii.gz",
        "train/seg/a.nii.gz",
        "val/image/b.nii.gz",
        "val/seg/b.nii.gz",
    ]
    for folder in ("subset0", "seg-lungs-LUNA16"):
        (tmp_path / "luna16" / folder).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "luna16" / folder / f"phantom-{number:04d}.mhd").touch()
    copy_scans(tmp_path / "luna16", tmp_path / "some", number=1)
    assert files_of(tmp_path / "some") == [
        "seg-lungs-LUNA16/phantom-0000.mhd",
        "subset0/phantom-0000.mhd",
    ]


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_figures_of_scans_have_a_panel_for_each() -> None:
    image, label = chest()
    both = Volume(np.stack([image.array, image.array]), AFFINE)
    pair = image, label
    deep = tuple(map(with_channel, chest((100, 100, 8))))
    for figure, panels in (
        (show_crop_sizes(image, {"quick": (9, 9, 9), "luna16": (4, 4, 4)}), 1),
        (show_windows(image, {"narrow": (-500, 500), "wide": (-1000, 1000)}), 2),
        (show_borders(*pair), 2),
        (show_phantoms({"one": pair, "two": pair, "three": pair}), 6),
        (show_grids({"fine": image, "coarse": thinned(image, 2)}), 2),
        (show_intensities({"unchanged": deep[0], "varied": deep[0]}), 4),
        (show_shapes({"unchanged": deep, "moved": deep}), 2),
        (show_position(both), 4),  # two of them are colour bars
    ):
        figure.draw_without_rendering()
        assert len(figure.axes) == panels


def test_figures_of_samples_have_a_panel_for_each() -> None:
    sample = np.zeros((1, 2, 6, 6, 6), np.float32), np.ones((1, 4, 6, 6, 6), np.float32)
    corners = [(number, number, 0) for number in range(8)]
    for figure, panels in (
        (show_pipeline(), 1),
        (show_corners({"one seed": corners, "a seed each": corners}), 2),
        (show_crops({f"sample {n}": sample for n in range(4)}, rows=2), 4),
        (show_waits([1, 2, 3], np.array([1, 2, 3]), np.array([0.1, 0.2, 0.3])), 1),
    ):
        figure.draw_without_rendering()
        assert len(figure.axes) == panels
