"""What reading by SimpleITK needs every time: its geometry as an affine, its errors in one line."""

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

#: Before what went wrong, ITK's errors name a line of its source and an object in memory.
ITK_PREFIX = re.compile(r"itk(?:::| )error:\s*(?:\w+\s?\(0x[0-9a-f]+\):)?", re.IGNORECASE)
#: Turns left and back, the way ITK counts (LPS), into right and front (RAS), and the other way.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine_of(image: sitk.Image) -> np.ndarray:
    """Return the affine of a 3-D image: index to RAS mm, 4 x 4."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return LPS_TO_RAS @ affine


def call_itk(path: Path, call: Callable[[], Result]) -> Result:
    """Call SimpleITK, and of its error keep what went wrong, without the lines of its source.

    Raises :class:`~unet3d_tutorial.volume.BadScanError`, which names ``path``.
    """
    try:
        return call()
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(ITK_PREFIX.split(str(error))[-1].split())
        raise BadScanError(f"{path} cannot be read: {reason}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of nibabel and ITK off the screen: what matters is checked here."""
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
