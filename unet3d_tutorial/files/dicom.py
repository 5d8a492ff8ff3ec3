"""DICOM, the format used in hospitals: read a folder of slices as one volume.

A folder that is not one regular stack of slices is refused.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..volume import BadScanError, Volume
from .itk import affine_of, call_itk, quiet

MODALITY = "0008|0060"
SERIES_DESCRIPTION = "0008|103e"
NEEDED_TAGS = {
    "0020|0032": "Image Position",
    "0020|0037": "Image Orientation",
    "0028|0030": "Pixel Spacing",
}
STEP_TOLERANCE = 0.1  #: how far a step between slices may differ, as a share of the median step


@dataclass(frozen=True)
class _Slice:
    """One slice of a stack."""

    path: Path
    array: np.ndarray  #: ``(I, J)``, HU
    affine: np.ndarray  #: 4 x 4, index to RAS mm; the third column is the slice's normal

    @property
    def place(self) -> np.ndarray:
        """Position of its first voxel, in RAS mm."""
        return self.affine[:3, 3]


def read_dicom(folder: str | Path, series: str | None = None) -> Volume:
    """Read one series of DICOM slices as ``(I, J, K)`` HU, with its affine in RAS mm.

    K runs from slice to slice. The slices are sorted by position, never by file name. The shear of
    a tilted gantry is kept in the affine. ``series`` is a series UID or the end of one; ``None``
    takes the only series.

    Raises :class:`~unet3d_tutorial.volume.BadScanError` unless exactly one series fits, and if
    slices are missing, duplicated, not parallel or without a position.
    """
    folder = Path(folder)
    files = _choose(folder, list_series(folder), series)
    with quiet():
        slices = [_read_slice(path) for path in files]
    if len(slices) < 2:
        raise BadScanError(f"{files[0]}: expected several slices in the series, found one")

    axis = slices[0].affine[:3, 2]
    normal = axis / np.linalg.norm(axis)
    slices.sort(key=lambda one: normal @ one.place)
    _check_alike(slices)
    _check_steps(slices)
    array = np.stack([one.array for one in slices], axis=2)
    return Volume(array, _stack_affine(slices))


def list_series(folder: str | Path) -> dict[str, list[Path]]:
    """Return series UID -> files, for the DICOM files directly in the folder."""
    reader = sitk.ImageSeriesReader
    series = {}
    with quiet():
        for uid in reader.GetGDCMSeriesIDs(str(folder)):
            names = reader.GetGDCMSeriesFileNames(str(folder), uid)
            series[uid] = [Path(name) for name in names]
    return series


def _choose(folder: Path, all_series: dict[str, list[Path]], series: str | None) -> list[Path]:
    """The files of the series whose UID ends in ``series``; ``None`` takes the only series."""
    if not all_series:
        raise BadScanError(f"{folder}: expected DICOM slices in this folder, found none")
    matches = [uid for uid in all_series if series is None or uid.endswith(series)]
    if len(matches) == 1:
        return all_series[matches[0]]
    listed = "; ".join(f"{uid} ({_describe(files)})" for uid, files in all_series.items())
    expected = "one series" if series is None else f"one series whose UID ends in {series}"
    raise BadScanError(
        f"{folder}: expected {expected}, found {len(matches)} of these, "
        f"choose with --series: {listed}"
    )


def _describe(files: list[Path]) -> str:
    """Describe a series in a few words, for example ``133 slices, CT, chest``."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(files[0]))
    with quiet():
        call_itk(files[0], reader.ReadImageInformation)
    words = [f"{len(files)} slices"]
    for tag in (MODALITY, SERIES_DESCRIPTION):
        if reader.HasMetaDataKey(tag):
            words.append(reader.GetMetaData(tag).strip())
    return ", ".join(words)


# ------------------------------------------------------------------------------------------- slices


def _read_slice(path: Path) -> _Slice:
    image = call_itk(path, lambda: sitk.ReadImage(str(path)))
    channels = image.GetNumberOfComponentsPerPixel()
    if image.GetSize()[2:] != (1,) or channels != 1:
        raise BadScanError(
            f"{path}: expected one grey slice a file, found size {image.GetSize()} with "
            f"{channels} values a pixel"
        )
    if image.HasMetaDataKey(MODALITY):
        modality = image.GetMetaData(MODALITY).strip()
        if modality != "CT":
            raise BadScanError(f"{path}: expected the modality CT, found {modality or 'none'}")
    for tag, name in NEEDED_TAGS.items():
        if not image.HasMetaDataKey(tag) or not image.GetMetaData(tag).strip():
            raise BadScanError(
                f"{path}: expected the DICOM field {name} ({tag.replace('|', ',')}), found none"
            )
    return _Slice(path, sitk.GetArrayFromImage(image)[0].T, affine_of(image))


def _check_alike(slices: list[_Slice]) -> None:
    """Refuse slices of different size, spacing or orientation."""
    first = slices[0]
    for one in slices:
        if one.array.shape != first.array.shape:
            raise BadScanError(
                f"{one.path}: expected {first.array.shape} pixels as in {first.path.name}, "
                f"found {one.array.shape}"
            )
        if not np.allclose(one.affine[:3, :2], first.affine[:3, :2], atol=1e-3):
            raise BadScanError(
                f"{one.path}: expected the orientation and spacing of {first.path.name}, "
                "found another"
            )


def _check_steps(slices: list[_Slice]) -> None:
    """Refuse sorted slices unless all steps from one to the next are about equal."""
    places = np.stack([one.place for one in slices])
    steps = np.diff(places, axis=0)
    usual = np.median(steps, axis=0)
    distance = np.linalg.norm(usual)
    deviations = np.linalg.norm(steps - usual, axis=1)
    odd = np.flatnonzero(deviations > STEP_TOLERANCE * distance)
    if len(odd) or distance < 1e-3:
        at = int(odd[0]) if len(odd) else 0
        raise BadScanError(
            f"{slices[at].path} and {slices[at + 1].path.name}: expected neighbours "
            f"{distance:.3g} mm apart, found {np.linalg.norm(steps[at]):.3g} mm; "
            "slices are missing, double or out of place"
        )


def _stack_affine(slices: list[_Slice]) -> np.ndarray:
    """The first slice's affine, with the mean step between slices as its third column."""
    affine = slices[0].affine.copy()
    affine[:3, 2] = (slices[-1].place - slices[0].place) / (len(slices) - 1)
    return affine
