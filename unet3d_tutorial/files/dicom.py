"""Read a folder of DICOM slices as one volume, and refuse a folder that is not one regular stack of
them.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from ..volume import BadScanError, Volume

NEEDED_TAGS = {
    "0020|0032": "Image Position",
    "0020|0037": "Image Orientation",
    "0028|0030": "Pixel Spacing",
}


def read_dicom(folder: str | Path, series: str | None = None) -> Volume:
    """Read one series of a folder of DICOM slices as ``(I, J, K)`` HU, K along the scan, with its
    affine in RAS mm.

    The slices are put in order by their position, never by their file names. A tilted gantry's
    shear is kept in the affine. Raises :class:`BadScanError` if there are several series and
    ``series`` names none, and if slices are missing, double, turned against each other or without
    position.
    """
    folder = Path(folder)
    files = _choose(folder, list_series(folder), series)
    with quiet():
        slices = [_read_slice(path) for path in files]
    if len(slices) < 2:
        raise BadScanError(f"{files[0]}: expected several slices in the series, found one")
    normal = slices[0][1][:3, 2] / np.linalg.norm(slices[0][1][:3, 2])
    order = sorted(range(len(slices)), key=lambda n: normal @ slices[n][1][:3, 3])
    files, slices = [files[n] for n in order], [slices[n] for n in order]
    affine = _stack_affine(
        files, [array.shape for array, _ in slices], np.stack([a for _, a in slices])
    )
    return Volume(np.stack([array for array, _ in slices], axis=2), affine)


def list_series(folder: str | Path) -> dict[str, list[Path]]:
    """Series UID -> its files, of the DICOM files that lie in the folder itself."""
    with quiet():
        reader = sitk.ImageSeriesReader
        return {
            uid: [Path(name) for name in reader.GetGDCMSeriesFileNames(str(folder), uid)]
            for uid in reader.GetGDCMSeriesIDs(str(folder))
        }


def _choose(folder: Path, found: dict[str, list[Path]], series: str | None) -> list[Path]:
    """The files of the series whose UID ends in ``series``, or of the only one."""
    if not found:
        raise BadScanError(f"{folder}: expected DICOM slices in this folder, found none")
    matches = [uid for uid in found if series is None or uid.endswith(series)]
    if len(matches) != 1:
        listed = "; ".join(f"{uid} ({_describe(files)})" for uid, files in found.items())
        wanted = "one series" if series is None else f"one series whose UID ends in {series}"
        raise BadScanError(
            f"{folder}: expected {wanted}, found {len(matches)} of these, choose with --series: {listed}"
        )
    return found[matches[0]]


def _describe(files: list[Path]) -> str:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(files[0]))
    with quiet():
        call_itk(files[0], reader.ReadImageInformation)
    words = [
        reader.GetMetaData(tag).strip()
        for tag in ("0008|0060", "0008|103e")
        if reader.HasMetaDataKey(tag)
    ]
    return ", ".join([f"{len(files)} slices", *words])


def _read_slice(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One slice ``(I, J)`` in HU and its affine, whose third column is along the slice's normal."""
    image = call_itk(path, lambda: sitk.ReadImage(str(path)))
    if image.GetSize()[2:] != (1,) or image.GetNumberOfComponentsPerPixel() != 1:
        raise BadScanError(
            f"{path}: expected one grey slice a file, found size {image.GetSize()} with "
            f"{image.GetNumberOfComponentsPerPixel()} values a pixel"
        )
    if (
        image.HasMetaDataKey("0008|0060")
        and (modality := image.GetMetaData("0008|0060").strip()) != "CT"
    ):
        raise BadScanError(f"{path}: expected the modality CT, found {modality or 'none'}")
    for tag, name in NEEDED_TAGS.items():
        if not image.HasMetaDataKey(tag) or not image.GetMetaData(tag).strip():
            raise BadScanError(
                f"{path}: expected the DICOM field {name} ({tag.replace('|', ',')}), found none"
            )
    return sitk.GetArrayFromImage(image)[0].T, affine_of(image)


def _stack_affine(
    files: list[Path], shapes: list[tuple[int, ...]], affines: np.ndarray
) -> np.ndarray:
    """The affine of slices in order, ``affines`` is ``(n, 4, 4)``; checks that they form one
    regular stack.
    """
    for file, shape, affine in zip(files, shapes, affines, strict=True):
        if shape != shapes[0]:
            raise BadScanError(
                f"{file}: expected {shapes[0]} pixels as in {files[0].name}, found {shape}"
            )
        if not np.allclose(affine[:3, :2], affines[0, :3, :2], atol=1e-3):
            raise BadScanError(
                f"{file}: expected the orientation and spacing of {files[0].name}, found another"
            )
    places = affines[:, :3, 3]
    steps = np.diff(places, axis=0)
    usual = np.median(steps, axis=0)
    apart = np.linalg.norm(usual)
    odd = np.flatnonzero(np.linalg.norm(steps - usual, axis=1) > 0.1 * apart)
    if len(odd) or apart < 1e-3:
        first = int(odd[0]) if len(odd) else 0
        raise BadScanError(
            f"{files[first]} and {files[first + 1].name}: expected neighbours {apart:.3g} mm apart, found "
            f"{np.linalg.norm(steps[first]):.3g} mm; slices are missing, double or out of place"
        )
    affine = affines[0].copy()
    affine[:3, 2] = (places[-1] - places[0]) / (len(places) - 1)
    return affine


# ----------------------------------------------------------------------------- for every ITK format


def affine_of(image: sitk.Image) -> np.ndarray:
    """Index to RAS mm of a 3-D image: directions times spacing, then the origin, left and back
    turned to right and front.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def call_itk(path: Path, call: Callable[[], Any]) -> Any:
    """Call SimpleITK; of its error, which comes with lines of its source, keep what went wrong."""
    try:
        return call()
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split("ITK ERROR:")[-1].split())
        raise BadScanError(f"{path} cannot be read: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of nibabel and ITK off the screen: what matters is checked here."""
    log, shown = logging.getLogger("nibabel.global"), sitk.ProcessObject.GetGlobalWarningDisplay()
    level = log.level
    log.setLevel(logging.CRITICAL)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        log.setLevel(level)
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
