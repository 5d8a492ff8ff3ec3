"""Conversion of LUNA16's layout: what must survive exactly, and what must be refused by name."""

import os
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from filelock import FileLock

from unet3d_tutorial.files.metaimage import read_mhd
from unet3d_tutorial.files.nifti import PIECE, load_volume
from unet3d_tutorial.luna16 import conversion
from unet3d_tutorial.luna16.conversion import ConversionError, ConversionReport, convert
from unet3d_tutorial.luna16.layout import LOCK, MASK_FOLDER
from unet3d_tutorial.volume import BadScanError

SHAPE = (7, 6, 5)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
COS, SIN = np.cos(0.3), np.sin(0.3)
GRIDS = {  # direction (columns: where i, j and k point, in LPS), spacing, origin
    "as LUNA16": (np.eye(3), (0.703125, 0.703125, 2.5), (-166.0, -171.699997, -207.5)),
    "anisotropic": (np.eye(3), (0.5, 1.25, 3.0), (10.0, 20.0, 30.0)),
    "flipped in plane": (np.diag([-1.0, -1.0, 1.0]), (0.8, 0.8, 1.0), (200.0, 199.5, -12.25)),
    "flipped along z": (np.diag([1.0, 1.0, -1.0]), (0.8, 0.8, 1.0), (0.0, 0.0, 0.0)),
    "coronal": (
        np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
        (0.9, 1.1, 2.0),
        (-5.0, 6.0, 7.0),
    ),
    "oblique": (
        np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, 1]])
        @ np.array([[1, 0, 0], [0, COS, -SIN], [0, SIN, COS]]),
        (0.6, 0.7, 1.9),
        (-120.125, 33.0, 250.5),
    ),
}


def write_mhd(
    path: Path, array: np.ndarray, *, grid="as LUNA16", compressed=False, element=None, newline="\n"
) -> None:
    """Write MetaImage by hand, so that reader and writer are not the same library.

    ``array`` is (I, J, K).
    """
    direction, spacing, origin = GRIDS[grid] if isinstance(grid, str) else grid
    raw = array.tobytes(order="F")  # the first index runs fastest
    data = path.with_name(path.stem + (".zraw" if compressed else ".raw"))
    element = (
        element
        or {"int16": "MET_SHORT", "uint8": "MET_UCHAR", "float32": "MET_FLOAT"}[array.dtype.name]
    )
    header = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": compressed,
        "TransformMatrix": " ".join(repr(float(v)) for v in np.ravel(direction, "F")),
        "Offset": " ".join(map(str, origin)),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI",
        "ElementSpacing": " ".join(map(str, spacing)),
        "DimSize": " ".join(map(str, array.shape)),
        "ElementType": element,
        "ElementDataFile": data.name,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{key} = {value}{newline}" for key, value in header.items()).encode())
    data.write_bytes(zlib.compress(raw) if compressed else raw)


def image_array(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2048, 3072, SHAPE).astype(np.int16)


def mask_array() -> np.ndarray:
    """Left lung at high i (in LPS the patient's left), right lung at low i, trachea between.

    One more value is there to be dropped.
    """
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:, 1:4, 1:4], mask[:2, 1:4, 1:4], mask[3, 2, 2:], mask[4, 0, 0] = 3, 4, 5, 7
    return mask


def write_scan(source: Path, subset: int, uid: str, **options) -> None:
    write_mhd(source / f"subset{subset}" / f"{uid}.mhd", image_array(), **options)
    write_mhd(source / MASK_FOLDER / f"{uid}.mhd", mask_array(), compressed=True, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two scans in subset0 and three in subset1."""
    for subset, uid in [(0, "1.2.9"), (0, "1.2.8"), (1, "1.2.3"), (1, "1.2.10"), (1, "1.2.2")]:
        write_scan(tmp_path / "luna", subset, uid)
    return tmp_path / "luna"


def outputs(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != LOCK
    )


def run(source: Path, destination: Path, **options) -> ConversionReport:
    return convert(source, destination, **{"num_validation": 2, "processes": 1, **options})


# ------------------------------------------------------------------------------------ what survives


@pytest.mark.parametrize("grid", GRIDS)
def test_every_voxel_keeps_its_value_and_its_place_in_the_patient(tmp_path: Path, grid: str):
    write_scan(tmp_path / "luna", 0, "1.2.3", grid=grid)
    run(tmp_path / "luna", tmp_path / "out", num_validation=0)
    itk = sitk.ReadImage(tmp_path / "luna/subset0/1.2.3.mhd")
    for kind, truth in (
        ("image", image_array()),
        ("seg", np.where(mask_array() == 7, 0, mask_array())),
    ):
        written = nib.load(tmp_path / f"out/train/{kind}/1.2.3.nii.gz")
        assert written.get_data_dtype() == truth.dtype
        np.testing.assert_array_equal(np.asarray(written.dataobj), truth)
        for index in np.ndindex(SHAPE):
            place = LPS_TO_RAS @ itk.TransformIndexToPhysicalPoint([int(i) for i in index])
            np.testing.assert_allclose(
                nib.affines.apply_affine(written.affine, index), place, atol=2e-5, rtol=0
            )
            if kind == "image":
                assert itk.GetPixel(*index) == truth[index]


@pytest.mark.parametrize("grid", GRIDS)
def test_affine_and_itk_geometry_survive_to_a_hundredth_of_a_micrometre(tmp_path: Path, grid: str):
    write_scan(tmp_path / "luna", 0, "1.2.3", grid=grid)
    run(tmp_path / "luna", tmp_path / "out", num_validation=0)
    direction, spacing, origin = GRIDS[grid]
    expected = np.eye(4)
    expected[:3, :3] = LPS_TO_RAS @ direction @ np.diag(spacing)
    expected[:3, 3] = LPS_TO_RAS @ np.array(origin)
    before = read_mhd(tmp_path / "luna/subset0/1.2.3.mhd")
    np.testing.assert_allclose(before.affine, expected, atol=1e-12)
    written = load_volume(tmp_path / "out/train/image/1.2.3.nii.gz")
    np.testing.assert_allclose(written.affine, expected, atol=1e-5, rtol=0)  # NIfTI keeps float32
    np.testing.assert_allclose(written.spacing_mm, spacing, atol=1e-6)
    after = sitk.ReadImage(tmp_path / "out/train/image/1.2.3.nii.gz")
    np.testing.assert_allclose(after.GetOrigin(), origin, atol=1e-5, rtol=0)
    np.testing.assert_allclose(after.GetSpacing(), spacing, atol=1e-6)
    np.testing.assert_allclose(after.GetDirection(), np.ravel(direction), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after).transpose(2, 1, 0), image_array())
    seg = load_volume(tmp_path / "out/train/seg/1.2.3.nii.gz")
    np.testing.assert_array_equal(seg.affine, written.affine)


def test_axis_codes_name_where_the_axes_point(tmp_path: Path):
    expected = {
        "as LUNA16": "LPS",
        "flipped in plane": "RAS",
        "flipped along z": "LPI",
        "coronal": "LIP",
    }
    for grid, codes in expected.items():
        write_mhd(tmp_path / f"{codes}.mhd", image_array(), grid=grid)
        assert read_mhd(tmp_path / f"{codes}.mhd").axis_codes == codes


def test_files_that_simpleitk_wrote_are_read(tmp_path: Path):
    image = sitk.GetImageFromArray(image_array().transpose(2, 1, 0))
    for name, compress in (("plain.mhd", False), ("packed.mhd", True)):
        sitk.WriteImage(image, tmp_path / name, useCompression=compress)
        np.testing.assert_array_equal(read_mhd(tmp_path / name).array, image_array())


def test_windows_line_ends_and_big_whole_floats_are_read(tmp_path: Path):
    write_mhd(tmp_path / "luna/subset0/a.mhd", image_array().astype(np.float32), newline="\r\n")
    write_mhd(tmp_path / "luna" / MASK_FOLDER / "a.mhd", mask_array())
    run(tmp_path / "luna", tmp_path / "out", num_validation=0)
    written = load_volume(tmp_path / "out/train/image/a.nii.gz")
    assert written.array.dtype == np.int16
    np.testing.assert_array_equal(written.array, image_array())


# ----------------------------------------------------------------------- splits, repeats, processes


def test_validation_is_the_end_of_the_last_subset_in_lexicographic_order(
    source: Path, tmp_path: Path
):
    report = run(source, tmp_path / "out")
    assert (
        report.converted == ["1.2.10", "1.2.2", "1.2.3", "1.2.8", "1.2.9"] and not report.existing
    )
    splits = {"train": ["1.2.10", "1.2.8", "1.2.9"], "val": ["1.2.2", "1.2.3"]}
    assert outputs(tmp_path / "out") == [
        f"{split}/{kind}/{uid}.nii.gz"
        for split, uids in splits.items()
        for kind in ("image", "seg")
        for uid in uids
    ]


def test_subset10_comes_after_subset9(tmp_path: Path):
    for subset in (2, 9, 10):
        write_scan(tmp_path / "luna", subset, f"uid{subset}")
    run(tmp_path / "luna", tmp_path / "out", num_validation=1)
    assert (tmp_path / "out/val/image/uid10.nii.gz").is_file()


@pytest.mark.parametrize("count", [-1, 5, 10])
def test_num_validation_must_leave_something_to_train_on(source: Path, tmp_path: Path, count: int):
    with pytest.raises(ValueError, match=f"num_validation.*fewer than the 5 scans.*found {count}"):
        run(source, tmp_path / "out", num_validation=count)


def test_a_second_call_redoes_only_what_is_missing_or_out_of_date(source: Path, tmp_path: Path):
    out = tmp_path / "out"
    run(source, out)
    (out / "train/image/1.2.8.nii.gz").unlink()  # as if killed while it was written
    half = (
        "import os, sys; from unet3d_tutorial.files.whole import written_whole\n"
        "with written_whole(sys.argv[1]): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", half, out / "train/image/1.2.8.nii.gz"])
    assert list(out.rglob("*.part-*"))
    (out / "train/image/own.part.nii.gz").write_bytes(b"not ours")
    newer = (out / "val/image/1.2.3.nii.gz").stat().st_mtime + 10
    os.utime(source / "subset1/1.2.3.raw", (newer, newer))
    kept = (out / "train/image/1.2.9.nii.gz").stat().st_mtime_ns
    report = run(source, out)
    assert report.converted == ["1.2.3", "1.2.8"] and report.existing == [
        "1.2.10",
        "1.2.2",
        "1.2.9",
    ]
    assert (out / "train/image/1.2.9.nii.gz").stat().st_mtime_ns == kept
    assert not list(out.rglob("*.part-*")) and (out / "train/image/own.part.nii.gz").exists()
    np.testing.assert_array_equal(
        load_volume(out / "train/image/1.2.8.nii.gz").array, image_array()
    )


def test_a_scan_that_changes_split_is_moved_so_that_it_is_never_in_both(
    source: Path, tmp_path: Path
):
    out = tmp_path / "out"
    run(source, out)
    write_scan(source, 2, "1.2.50")
    write_scan(source, 2, "1.2.51")
    report = run(source, out)
    assert report.converted == ["1.2.50", "1.2.51"] and len(report.existing) == 5
    assert sorted(path.name for path in (out / "val/seg").iterdir()) == [
        "1.2.50.nii.gz",
        "1.2.51.nii.gz",
    ]
    assert (
        len(list((out / "train/image").iterdir())) == len(list((out / "train/seg").iterdir())) == 5
    )


def test_nothing_of_an_outdated_pair_stays_when_its_source_has_gone_bad(
    source: Path, tmp_path: Path
):
    run(source, tmp_path / "out")
    newer = (tmp_path / "out/train/image/1.2.8.nii.gz").stat().st_mtime + 10
    raw = source / "subset0/1.2.8.raw"
    raw.write_bytes(b"too short")
    os.utime(raw, (newer, newer))
    assert list(run(source, tmp_path / "out", skip_bad=True).skipped) == ["1.2.8"]
    assert not list((tmp_path / "out").rglob("1.2.8*"))


def test_processes_give_the_same_files_as_one(source: Path, tmp_path: Path):
    (source / "subset0/1.2.9.raw").unlink()
    one = run(source, tmp_path / "one", skip_bad=True)
    two = run(source, tmp_path / "two", skip_bad=True, processes=2)
    assert one == two and len(two.converted) == 4 and list(two.skipped) == ["1.2.9"]
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    for name in outputs(tmp_path / "one"):
        a, b = load_volume(tmp_path / "one" / name), load_volume(tmp_path / "two" / name)
        np.testing.assert_array_equal(a.array, b.array)
        np.testing.assert_array_equal(a.affine, b.affine)


@pytest.mark.parametrize("compressed", [False, True])
def test_converting_needs_no_more_memory_than_three_scans(tmp_path: Path, compressed: bool):
    """The figure that ``convert`` promises. Noise, which does not pack well."""
    shape = (160, 120, 100)
    mask = np.zeros(shape, np.uint8)
    mask[90:150, 30:90, 20:80], mask[10:70, 30:90, 20:80], mask[76:84, 50:60, 30:90] = 3, 4, 5
    scan = np.random.default_rng(0).integers(-1024, 400, shape).astype(np.int16)
    write_mhd(tmp_path / "luna/subset0/1.2.mhd", scan, compressed=compressed)
    write_mhd(tmp_path / "luna/subset0/1.3.mhd", scan[:9, :9, :9])
    write_mhd(tmp_path / f"luna/{MASK_FOLDER}/1.2.mhd", mask, compressed=compressed)
    write_mhd(tmp_path / f"luna/{MASK_FOLDER}/1.3.mhd", mask[78:87, 52:61, 32:41])
    tracemalloc.start()
    convert(tmp_path / "luna", tmp_path / "out", num_validation=1, processes=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Of a real scan, a piece is next to nothing.
    assert scan.nbytes < peak < 3 * scan.nbytes + PIECE


def test_a_script_without_a_main_guard_is_told_what_to_do(source: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        f"from unet3d_tutorial.luna16.conversion import convert\n"
        f"convert({str(source)!r}, {str(tmp_path / 'out')!r}, num_validation=2, processes=2)\n",
        encoding="utf-8",
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300)
    assert result.returncode != 0 and "if __name__ == '__main__'" in result.stderr.splitlines()[-1]


def test_a_full_disk_is_not_taken_for_a_bad_scan(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "save_volume", full)
    with pytest.raises(OSError, match="No space left"):
        run(source, tmp_path / "out", skip_bad=True)


def small_disk_run(folder: Path, kilobytes: int, script: str) -> subprocess.CompletedProcess:
    """Run a shell script with ``folder`` on a disk of its own, which is gone afterwards.

    Skips the test where that is not allowed.
    """
    folder.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k none {folder}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this system does not let a user mount a small disk")
    command = ["unshare", "-rm", "sh", "-c", f"{mount} && {script}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs Linux")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_fills_up_leaves_whole_pairs_only_and_the_next_call_goes_on(
    tmp_path: Path, processes: int
):
    rng = np.random.default_rng(0)
    for number in range(12):  # noise does not pack: 100 kB a scan
        write_mhd(
            tmp_path / f"luna/subset0/{number}.mhd",
            rng.integers(-2048, 3072, (42, 42, 40)).astype(np.int16),
        )
        mask = np.kron(mask_array(), np.ones((6, 7, 8), np.uint8))
        write_mhd(tmp_path / "luna" / MASK_FOLDER / f"{number}.mhd", mask, compressed=True)
    disk, command = (
        tmp_path / "disk",
        f"{sys.executable} -m unet3d_tutorial.cli data luna16 {tmp_path}/luna --no-fetch",
    )
    script = (
        f"{command} {disk} --processes {processes}; echo code $?; "
        f"find {disk} -type f -not -name .lock; "
        f"mount -o remount,size=9000k {disk} && {command} {disk} --processes 1"
    )
    result = small_disk_run(disk, 600, script)
    first, _, second = result.stdout.partition("code 2\n")
    found = {
        line.removeprefix(f"{disk}/train/").removeprefix(f"{disk}/val/")
        for line in second.splitlines()
        if line.endswith(".nii.gz")
    }
    names = {name.removeprefix("image/") for name in found if name.startswith("image/")}
    assert (
        not first
        and 1 <= len(names) < 12
        and found == {f"{kind}/{name}" for name in names for kind in ("image", "seg")}
    )
    assert (
        "No space left on device" in result.stderr
        and "make room" in result.stderr
        and "Traceback" not in result.stderr
    )
    assert f"{12 - len(names)} converted, {len(names)} already there, 0 skipped" in second


def test_two_conversions_at_once_are_refused(source: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with (
        FileLock(tmp_path / "out" / LOCK),
        pytest.raises(RuntimeError, match="another process converts into this"),
    ):
        run(source, tmp_path / "out")


def test_luna16_does_not_import_mindspore():
    code = (
        "import sys, unet3d_tutorial.luna16.conversion, unet3d_tutorial.sample_ct; "
        "sys.exit('mindspore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ---------------------------------------------------------------------------------- what is refused


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def without_line(path: Path, key: str) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(True)
    path.write_text("".join(line for line in lines if not line.startswith(key)), encoding="utf-8")


OTHER_GRID = (np.eye(3), GRIDS["as LUNA16"][1], (-166.0, -171.699997, -205.0))
IMAGE, MASK = "subset0/1.2.8", f"{MASK_FOLDER}/1.2.8"
BREAK = {  # what is broken -> how, and what the reason must say
    "no raw": (lambda s: (s / f"{IMAGE}.raw").unlink(), r"subset0/1.2.8.raw is missing"),
    "cut raw": (
        lambda s: cut(s / f"{IMAGE}.raw"),
        r"subset0/1.2.8.raw: expected 420 bytes.*found 417",
    ),
    "long raw": (
        lambda s: (s / f"{IMAGE}.raw").write_bytes(bytes(422)),
        r"1.2.8.raw: expected 420 bytes.*found 422",
    ),
    "no header": (lambda s: (s / f"{IMAGE}.mhd").unlink(), r"subset0/1.2.8.mhd is missing"),
    "empty header": (
        lambda s: (s / f"{IMAGE}.mhd").write_bytes(b""),
        r"subset0/1.2.8.mhd: .*no ElementDataFile",
    ),
    "no size": (
        lambda s: without_line(s / f"{IMAGE}.mhd", "DimSize"),
        r"1.2.8.mhd: expected the field DimSize",
    ),
    "odd type": (
        lambda s: write_mhd(s / f"{IMAGE}.mhd", image_array(), element="MET_X"),
        r"1.2.8.mhd: ElementType: expected one of MET_CHAR, .*'MET_X'",
    ),
    "not HU": (
        lambda s: write_mhd(s / f"{IMAGE}.mhd", image_array().astype(np.float32) + 0.5),
        r"subset0/1.2.8.mhd: expected whole HU .*found float32 from -2\d+.5 to",
    ),
    "not a number": (
        lambda s: write_mhd(s / f"{IMAGE}.mhd", np.full(SHAPE, np.nan, np.float32)),
        r"1.2.8.raw: expected finite values, found 210 voxels",
    ),
    "no mask": (lambda s: (s / f"{MASK}.mhd").unlink(), r"seg-lungs-LUNA16/1.2.8.mhd is missing"),
    "no mask voxels": (
        lambda s: (s / f"{MASK}.zraw").unlink(),
        r"seg-lungs-LUNA16/1.2.8.zraw is missing",
    ),
    "cut mask": (lambda s: cut(s / f"{MASK}.zraw"), r"seg-lungs-LUNA16/1.2.8.zraw"),
    "damaged mask": (lambda s: damage(s / f"{MASK}.zraw"), r"seg-lungs-LUNA16/1.2.8.zraw"),
    "other shape": (
        lambda s: write_mhd(s / f"{MASK}.mhd", mask_array()[:, :, 1:]),
        r"1.2.8.mhd: expected the scan's shape \(7, 6, 5\), found \(7, 6, 4\)",
    ),
    "other place": (
        lambda s: write_mhd(s / f"{MASK}.mhd", mask_array(), grid=OTHER_GRID),
        r"1.2.8.mhd: .*2.50 mm away",
    ),
    "other labels": (
        lambda s: write_mhd(s / f"{MASK}.mhd", np.ones(SHAPE, np.uint8)),
        r"1.2.8.mhd: expected label values \(3, 4, 5\), found \[1\]",
    ),
}


@pytest.mark.parametrize("kind", BREAK)
def test_a_bad_scan_is_named_and_the_others_are_converted(source: Path, tmp_path: Path, kind: str):
    break_it, reason = BREAK[kind]
    break_it(source)
    with pytest.raises(ConversionError, match=reason) as caught:
        run(source, tmp_path / "out")
    report = caught.value.report
    assert report.converted == ["1.2.10", "1.2.2", "1.2.3", "1.2.9"] and list(report.skipped) == [
        "1.2.8"
    ]
    assert "4 converted, 0 already there, 1 skipped" in str(caught.value)
    assert len(outputs(tmp_path / "out")) == 8 and not [
        name for name in outputs(tmp_path / "out") if "1.2.8" in name
    ]
    again = run(source, tmp_path / "out", skip_bad=True)
    assert again.existing == report.converted and again.skipped == report.skipped


def test_a_scan_in_two_subsets_is_in_neither_split(source: Path, tmp_path: Path):
    write_scan(source, 1, "1.2.8")
    report = run(source, tmp_path / "out", skip_bad=True)
    assert "more than one subset" in report.skipped["1.2.8"] and len(report.converted) == 4


def test_masks_of_subsets_that_were_not_downloaded_are_no_error(source: Path, tmp_path: Path):
    write_mhd(source / MASK_FOLDER / "1.2.99.mhd", mask_array())
    assert len(run(source, tmp_path / "out").converted) == 5


def test_grids_that_differ_by_the_rounding_of_a_header_are_the_same(source: Path, tmp_path: Path):
    direction, spacing, origin = GRIDS["as LUNA16"]
    write_mhd(
        source / f"{MASK}.mhd", mask_array(), grid=(direction, spacing, np.add(origin, 0.001))
    )
    run(source, tmp_path / "out")
    image, seg = (
        load_volume(tmp_path / f"out/train/{kind}/1.2.8.nii.gz") for kind in ("image", "seg")
    )
    np.testing.assert_array_equal(image.affine, seg.affine)


@pytest.mark.parametrize("make", ["nothing", "empty", "no masks", "flat"])
def test_a_folder_of_another_layout_is_told_what_is_expected(
    source: Path, tmp_path: Path, make: str
):
    folder = tmp_path / make
    if make != "nothing":
        folder.mkdir()
    if make == "no masks":
        (source / "subset0").rename(folder / "subset0")
    if make == "flat":
        write_mhd(folder / "a.mhd", image_array())
    with pytest.raises(
        ValueError, match=f"{make} is not in LUNA16's layout.*subset0/<uid>.mhd.*seg-lungs-LUNA16"
    ):
        run(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_read_mhd_raises_its_own_error(tmp_path: Path):
    with pytest.raises(BadScanError, match="none.mhd is missing"):
        read_mhd(tmp_path / "none.mhd")


# ----------------------------------------------------------------------------------- what looks odd


@pytest.mark.parametrize(
    "grid, swapped", [("as LUNA16", False), ("flipped along z", False), ("flipped in plane", True)]
)
def test_swapped_lungs_are_noticed_by_geometry(tmp_path: Path, grid: str, swapped: bool):
    # Flipping the axis, not the labels, swaps the sides.
    write_scan(tmp_path / "luna", 0, "a", grid=grid)
    report = run(tmp_path / "luna", tmp_path / "out", num_validation=0)
    assert list(report.warnings) == (["a"] if swapped else [])
    if swapped:
        # 5 voxels of 0.8 mm.
        assert "left and right lung look swapped: the left one's centre is 4 mm" in str(report)


def test_an_absent_structure_is_noticed(source: Path, tmp_path: Path):
    write_mhd(source / f"{MASK}.mhd", np.where(mask_array() == 5, 0, mask_array()).astype(np.uint8))
    report = run(source, tmp_path / "out")
    assert report.warnings == {"1.2.8": "the mask has no trachea"}
