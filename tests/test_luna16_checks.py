"""The check of a data set.

A sound one gives a table and nothing else, each defect a line that names the case.
"""

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unet3d_tutorial.cli import main
from unet3d_tutorial.files.nifti import save_volume
from unet3d_tutorial.luna16.checks import CaseCheck, check
from unet3d_tutorial.volume import Volume

AFFINE = np.diag([-5.0, -5.0, 5.0, 1.0])  # LPS
SHAPE = (60, 40, 50)


def chest(seed: int = 0, values: tuple[int, int, int] = (3, 4, 5)) -> tuple[np.ndarray, np.ndarray]:
    """Two boxes of lung, 2000 mL each, and a windpipe in soft tissue, with noise.

    The left lung is at high i.
    """
    label = np.zeros(SHAPE, np.uint8)
    label[34:54, 10:30, 5:45], label[6:26, 10:30, 5:45], label[29:31, 18:20, 10:50] = values
    rng = np.random.default_rng(seed)
    image = np.where(label == values[2], -990, np.where(label > 0, -850, 40)) + rng.integers(
        -9, 9, SHAPE
    )
    image[28:32, 35:38], image[0] = 700, -1000
    return image.astype(np.int16), label


def write(
    folder: Path, name: str, image: np.ndarray, label: np.ndarray, affine: np.ndarray = AFFINE
) -> None:
    save_volume(Volume(image, affine), folder / "image" / f"{name}.nii.gz")
    save_volume(Volume(label, affine), folder / "seg" / f"{name}.nii.gz")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split, name, seed in (("train", "a", 0), ("train", "b", 1), ("val", "c", 2)):
        write(tmp_path / "data" / split, name, *chest(seed))
    return tmp_path / "data"


def test_a_sound_set_gives_the_numbers_and_nothing_odd(data: Path, capsys):
    found = check(data, processes=1)
    assert [case.name for case in found.cases] == ["train/a", "train/b", "val/c"] and not found.odd
    case = found.cases[0]
    assert (
        (case.shape, case.spacing_mm, case.axes) == (SHAPE, (5, 5, 5), "LPS")
        and case.hu[0] < -990
        and case.hu[1] == 700
    )
    assert case.volumes_ml == {"left lung": 2000.0, "right lung": 2000.0, "trachea": 20.0}
    assert main(["data", "check", str(data), "--processes", "1"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "train/a",
        "60x40x50",
        "5.00 5.00 5.00",
        "LPS",
        f"{case.hu[0]:.0f} to 700",
        "2000",
        "2000",
        "20",
        "",
    ]
    assert (
        lines[-1] == "3 cases, 0 with something odd, 0 of them unusable"
        and len(set(map(len, lines[:5]))) == 1
    )


def test_jupyter_shows_the_table_and_what_is_odd_below_it(data: Path):
    change(data, label=lambda a: np.where(a == 5, 0, a).astype(np.uint8))
    html = check(data, processes=1)._repr_html_()
    assert html.count("<tr>") == 4 and "<td>train/a" in html
    assert "3 cases, 1 with something odd, 0 of them unusable<br>train/a: the mask has no" in html


def test_half_written_files_are_no_cases(data: Path):
    (data / "train/image/.a.part-host-1-00c0ffee.nii.gz").write_bytes(b"half")
    write(data / "train", "own.part", *chest(5))  # a name that a user may give
    assert [case.name for case in check(data, processes=1).cases][:3] == [
        "train/a",
        "train/b",
        "train/own.part",
    ]


def test_the_middle_of_a_long_name_is_left_out_of_the_table():
    name = "train/1.3.6.1.4.1.14519.5.2.1.6279.6001.100225287222365663678666836860"
    shown = CaseCheck(name).cells()[0]
    assert shown == "train/1.3.6.1.…663678666836860" and len(shown) == 30


def test_processes_give_the_same_as_one_and_classes_1_to_3_are_known(data: Path):
    write(data, "d", *chest(3, (1, 2, 3)))
    one, two = check(data, processes=1), check(data, processes=2)
    assert (
        one == two
        and not one.odd
        and [case.name for case in one.cases] == ["d", "train/a", "train/b", "val/c"]
    )
    assert one.cases[0].volumes_ml["right lung"] == 2000.0


def test_classes_1_to_3_are_announced_with_the_setting_for_them(data: Path):
    assert "data.lower_limit" not in str(check(data, processes=1))
    write(data / "train", "own", *chest(4, (1, 2, 3)))
    text = str(check(data, processes=1))
    assert "masks of the values 1, 2, 3: 1, such as train/own; to train on them set " in text
    assert "set data.lower_limit=1 data.upper_limit=3" in text
    assert "masks of the values 3, 4, 5: 3, such as train/a; no setting fits both kinds" in text


def test_other_values_of_luna16_count_as_background(data: Path):
    change(data, label=lambda a: np.where(np.indices(SHAPE)[0] == 0, 2, a).astype(np.uint8))
    assert odd(data) == "label values [2] are none of [3, 4, 5] and count as background"


def test_a_tilted_gantry_changes_no_volume(data: Path):
    tilted = AFFINE.copy()
    tilted[1, 2] = 2.0
    write(data, "d", *chest(3), tilted)
    assert check(data, processes=1).cases[0].volumes_ml["left lung"] == pytest.approx(
        2000, rel=1e-6
    )


def test_files_are_told_by_their_content(data: Path):
    for path in (data / IMAGE, data / LABEL):
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert not check(data, processes=1).odd


def odd(data: Path) -> str:
    found = check(data, processes=1)
    assert list(found.odd) == ["train/a"]
    return "; ".join(found.odd["train/a"]) + ("; unusable" if found.unusable else "")


def change(
    data: Path, image=lambda array: array, label=lambda array: array, affine: np.ndarray = AFFINE
) -> None:
    arrays = chest(0)
    write(data / "train", "a", image(arrays[0]), label(arrays[1]), affine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"image": lambda a: (a + 1024).astype(np.uint16)},
            r"least value is \d+, expected -10000 to -700: are these HU\?",
        ),
        ({"image": lambda a: np.minimum(a, 60)}, "greatest value is 60"),
        (
            {"image": lambda a: np.roll(a, 20, axis=1)},
            "left lung has -?[0-9]+ HU on average.*does the mask fit",
        ),
        (
            {"label": lambda a: np.where(a == 3, 4, np.where(a == 4, 3, a)).astype(np.uint8)},
            "left and right lung look swapped",
        ),
        ({"label": lambda a: np.where(a == 5, 0, a).astype(np.uint8)}, "the mask has no trachea"),
        (
            {"label": lambda a: np.where(a == 5, 9, a).astype(np.uint8)},
            r"label values \[9\] are none of \[3, 4, 5\]",
        ),
        (
            {"affine": np.diag([-5, -5, 9.0, 1])},
            "9.00 mm between voxels along axis S, expected 0.3 to 7.0",
        ),
        ({"affine": np.diag([-1, -1, 1.0, 1])}, "40 mm long along axis P"),
    ],
)
def test_what_is_odd_is_said(data: Path, options: dict, message: str):
    change(data, **options)
    text = odd(data)
    assert re.search(message, text) and "unusable" not in text


def test_the_same_scan_in_train_and_val_is_a_leak(data: Path):
    write(data / "val", "x", *chest(0))
    found = check(data, processes=1)
    assert found.odd == {
        "train/a": ("the same voxels as val/x",),
        "val/x": ("the same voxels as train/a",),
    }


def test_a_header_without_orientation_is_odd(data: Path):
    path = data / "train/image/a.nii.gz"
    image = nib.load(path)
    plain = nib.Nifti1Image(np.asarray(image.dataobj), None)
    plain.header.set_zooms((5, 5, 5))
    nib.save(plain, data / "train/image/new.nii.gz")
    (data / "train/image/new.nii.gz").replace(path)
    save_volume(Volume(chest()[1], plain.header.get_best_affine()), data / "train/seg/a.nii.gz")
    assert "does not say how the patient lies" in odd(data)


IMAGE, LABEL = "train/image/a.nii.gz", "train/seg/a.nii.gz"


def save_image(folder: Path, array: np.ndarray) -> None:
    nib.save(nib.Nifti1Image(array, AFFINE), folder / IMAGE)


def save_label(folder: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    save_volume(Volume(array, affine), folder / LABEL)


UNUSABLE = {
    "no label": (lambda d: (d / LABEL).unlink(), f"no such file: .*{LABEL}"),
    "no image": (lambda d: (d / IMAGE).unlink(), f"no such file: .*{IMAGE}"),
    "cut": (lambda d: (d / IMAGE).write_bytes((d / IMAGE).read_bytes()[:900]), f"{IMAGE}.*again"),
    "not finite": (
        lambda d: change(d, lambda a: np.where(a == 700, np.nan, a).astype("f4")),
        f"{IMAGE}.*not a number",
    ),
    "2-D": (lambda d: save_image(d, chest()[0][0]), f"{IMAGE}: expected a 3-D volume"),
    "4-D": (lambda d: save_image(d, np.stack(chest(), axis=3)), f"{IMAGE}: expected a 3-D volume"),
    "shape": (
        lambda d: save_label(d, chest()[1][1:]),
        rf"{LABEL}: .*shape \(60, 40, 50\), found \(59",
    ),
    "place": (
        lambda d: save_label(d, chest()[1], AFFINE @ np.diag([1, 1, -1, 1])),
        f"{LABEL}: .*mm away",
    ),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_cannot_be_used_is_named_and_the_others_are_checked(data: Path, kind: str, capsys):
    break_it, message = UNUSABLE[kind]
    break_it(data)
    assert re.search(message, odd(data)) and odd(data).endswith("unusable")
    assert main(["data", "check", str(data), "--processes", "1"]) == 1
    assert "3 cases, 1 with something odd, 1 of them unusable" in capsys.readouterr().out


def test_an_empty_folder_is_told_what_is_expected(tmp_path: Path, capsys):
    for folder in (tmp_path, tmp_path / "none"):
        assert main(["data", "check", str(folder)]) == 2
        assert f"{folder}: expected .nii.gz files in image and seg" in capsys.readouterr().err
