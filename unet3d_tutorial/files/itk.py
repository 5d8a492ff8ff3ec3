"""Helpers for reading with SimpleITK: its geometry as an affine, its errors in one line."""

import locale
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from ..volume import BadScanError

Result = TypeVar("Result")

#: The beginning of an ITK error: a line of ITK's source and an object in memory.
ITK_PREFIX = re.compile(r"itk(?:::| )error:\s*(?:\w+\s?\(0x[0-9a-f]+\):)?", re.IGNORECASE)
#: Converts ITK's coordinates (LPS: left, back, head) to RAS (right, front, head), and back.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(image: sitk.Image) -> np.ndarray:
    """Return the affine of a 3-D image: index to RAS mm, 4 x 4."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def call_itk(path: Path, call: Callable[[], Result]) -> Result:
    """Return ``call()``, a call of SimpleITK, and turn its errors into one line.

    The process keeps its locale: ITK's DICOM reader would leave ``C`` behind, with which Python
    decodes the output of other programs as ASCII.

    Raises :class:`~unet3d_tutorial.volume.BadScanError` that names ``path`` and the reason.
    """
    before = locale.setlocale(locale.LC_ALL)
    try:
        return call()
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(ITK_PREFIX.split(str(error))[-1].split())
        raise BadScanError(f"{path} cannot be read: {reason}") from error
    finally:
        if locale.setlocale(locale.LC_ALL) != before:
            locale.setlocale(locale.LC_ALL, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of nibabel and ITK: this package checks what matters itself."""
    log = logging.getLogger("nibabel.global")
    level = log.level
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    log.setLevel(logging.CRITICAL)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        log.setLevel(level)
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
