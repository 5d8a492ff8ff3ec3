"""Synthetic chest CTs with exact labels: data for the whole book without a download.

A phantom is painted like a picture, back to front: air, arms, body, abdomen, lungs, mediastinum,
airway, bones, couch, and finally the scanner's artefacts (noise, streaks, a round field of view).
:func:`generate` shows this order. Each part is in its own module of this package; the package's
docstring lists them and explains how to add an organ.

Coordinates are millimetres from the carina, where the trachea divides: x towards the patient's
left, y towards the back, z towards the head (LPS, the convention of LUNA16's files). The patients
are varied rather than realistic: sizes, poses and diseases are drawn from wide ranges, so that the
rule "air is lung" is not enough for a network.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from ..files.pool import map_in_processes
from ..files.whole import written_whole
from ..labels import LEFT_LUNG, RIGHT_LUNG, TRACHEA
from ..volume import Volume
from .abdomen import paint_abdomen
from .airway import Airway, paint_airway
from .body import paint_body
from .canvas import Canvas
from .chest import (
    diaphragm_height,
    lung_distance,
    paint_chest_fat,
    pleura_distance,
    rib_cage_distance,
)
from .disease import paint_diseases
from .field_of_view import FieldOfView
from .lungs import paint_lungs
from .mediastinum import (
    lay_out_mediastinum,
    paint_heart,
    paint_lymph_nodes,
    paint_oesophagus,
)
from .patient import FAMILIES, Patient
from .scanner import add_scanner_marks, paint_couch
from .skeleton import paint_bones
from .vessels import paint_great_vessels, paint_upper_vessels

WARP_MM = (2, 7)  #: how far the body of a training phantom is bent

MASK_FOLDER = "seg-lungs-LUNA16"
LUNA16_VALUES = {LEFT_LUNG: 3, RIGHT_LUNG: 4, TRACHEA: 5}
TESTED = 10  #: number of phantoms to validate on, all in subset9


def generate(
    seed: int | list[int], *, spacing_mm: float = 4.0, family: str = "train"
) -> tuple[Volume, Volume]:
    """Make one synthetic chest CT.

    Args:
        seed: the same seed gives the same phantom, bit for bit.
        spacing_mm: distance between voxels, equal along all axes.
        family: ``"train"``, or ``"holdout"`` for patients from other ranges, to test on.

    Returns:
        Image (int16, HU) and label (uint8: 0 background, 1 left lung, 2 right lung, 3 trachea),
        both ``(I, J, K)`` with axes left, posterior, superior (LPS). The field of view differs from
        patient to patient.

    Raises:
        ValueError: for an unknown ``family``, or if ``spacing_mm`` is not 1 to 8.
    """
    if family not in FAMILIES:
        raise ValueError(f"family: expected 'train' or 'holdout', found {family!r}")
    if not 1.0 <= spacing_mm <= 8.0:
        raise ValueError(f"spacing_mm: expected 1 to 8 mm, found {spacing_mm}")
    _check_seed(seed)

    # The patient, and the part of the patient that the scanner sees.
    rng = np.random.default_rng([*np.atleast_1d(seed), list(FAMILIES).index(family)])
    patient = Patient.draw(rng, family)
    canvas = Canvas(FieldOfView.draw(patient, rng, spacing_mm))
    canvas.bend(rng, patient.tilt, warp_mm=rng.uniform(*WARP_MM) * FAMILIES[family].warp)

    # The outside of the body, and the organs below the diaphragm.
    paint_body(canvas, patient, rng)
    rib_cage = rib_cage_distance(canvas, patient)
    pleura = pleura_distance(canvas, rng, rib_cage)
    diaphragm = diaphragm_height(canvas, patient)
    paint_abdomen(canvas, patient, rng, rib_cage, diaphragm)
    paint_chest_fat(canvas, pleura, diaphragm)

    # The lungs: the part of the chest outside the mediastinum.
    airway = Airway.draw(patient, rng)
    mediastinum = lay_out_mediastinum(canvas, patient, rng, airway)
    lung = lung_distance(canvas, patient, pleura, diaphragm, mediastinum.distance)
    paint_lungs(canvas, patient, rng, lung)
    paint_diseases(canvas, patient, rng, lung)

    # Between and around the lungs.
    paint_heart(canvas, patient, rng, mediastinum)
    paint_great_vessels(canvas, patient, rng)
    paint_lymph_nodes(canvas, rng)
    paint_upper_vessels(canvas, patient, rng)
    paint_oesophagus(canvas, rng, mediastinum)
    paint_airway(canvas, patient, rng, airway)
    paint_bones(canvas, patient, rng, pleura, mediastinum.spine_y)

    # The scanner.
    paint_couch(canvas, patient, rng)
    add_scanner_marks(canvas, patient, rng)
    return canvas.volumes()


def write_luna16(
    folder: str | Path, *, n: int = 190, seed: int = 0, spacing_mm: float = 4.0
) -> Path:
    """Write ``n`` phantoms in LUNA16's layout and return their folder.

    Images are ``subset0..9/*.mhd`` with ``.raw``, masks ``seg-lungs-LUNA16/*.mhd`` with ``.raw``.
    Masks hold 3 (left lung), 4 (right lung), 5 (trachea). The last ten phantoms, all in subset9,
    are of the ``"holdout"`` family. The work is shared by as many processes as there are cores.
    Phantoms that already exist are kept.

    Raises ``ValueError`` if ``n`` is below 20, or if the folder holds phantoms of a different
    recipe.
    """
    _check_seed(seed)
    if n < 2 * TESTED:
        raise ValueError(
            f"n: expected at least 20 phantoms, ten to train on and ten to validate, found {n}"
        )
    folder = Path(folder)
    _record_recipe(folder, n, seed, spacing_mm)
    for name in (*(f"subset{number}" for number in range(10)), MASK_FOLDER):
        (folder / name).mkdir(exist_ok=True)

    missing = [number for number in range(n) if not _scan_path(folder, number, n).exists()]
    write = partial(_write_phantom, folder, n, seed, spacing_mm)
    with _one_thread_a_process():
        written = map_in_processes(write, missing)
        for _ in tqdm(written, "phantoms", len(missing), unit="scan"):
            pass
    return folder


def _check_seed(seed: int | list[int]) -> None:
    if np.min(seed) < 0:
        raise ValueError(f"seed: expected whole numbers of at least 0, found {seed}")


@contextmanager
def _one_thread_a_process() -> Iterator[None]:
    """Let processes that start meanwhile compute with one thread each: they share the cores."""
    name = "OPENBLAS_NUM_THREADS"
    is_set = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if not is_set:
            del os.environ[name]


def _record_recipe(folder: Path, n: int, seed: int, spacing_mm: float) -> None:
    """Record the recipe of the phantoms in ``folder``; refuse a folder with a different one."""
    recipe = {"n": n, "seed": seed, "spacing_mm": spacing_mm}
    if n < 10 * TESTED:
        # Version 0.1.0 put fewer into subset9: its folders must not be continued.
        recipe["subset9"] = TESTED
    record = folder / "phantoms.json"
    if not record.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(record) as part:
            part.write_text(json.dumps(recipe), encoding="utf-8")
        return
    recorded = record.read_text(encoding="utf-8")
    if json.loads(recorded) != recipe:
        raise ValueError(
            f"{folder} holds phantoms of a different recipe, {recorded}; "
            "delete it or choose a different folder"
        )


def _scan_path(folder: Path, number: int, n: int) -> Path:
    """The path of phantom ``number`` of ``n``: a tenth in each subset, the last ten in subset9."""
    subset = number * 10 // n
    if n < 10 * TESTED:  # a tenth would not hold them
        subset = 9 if number >= n - TESTED else number * 9 // (n - TESTED)
    return folder / f"subset{subset}" / f"phantom-{number:04d}.mhd"


def _write_phantom(folder: Path, n: int, seed: int, spacing_mm: float, number: int) -> None:
    """Make one phantom; write its mask, then its image, which marks it as complete."""
    family = "holdout" if number >= n - TESTED else "train"
    image, label = generate([seed, number], spacing_mm=spacing_mm, family=family)
    values = np.zeros(4, np.uint8)
    for ours, theirs in LUNA16_VALUES.items():
        values[ours] = theirs
    mask = Volume(values[label.array], label.affine)
    path = _scan_path(folder, number, n)
    _write_mhd(mask, folder / MASK_FOLDER / path.name)
    _write_mhd(image, path)


def _write_mhd(volume: Volume, path: Path) -> None:
    """Write ``path`` (.mhd) and its ``.raw``, each completely or not at all."""
    image = sitk.GetImageFromArray(volume.array.transpose(2, 1, 0))
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin([float(mm) for mm in volume.affine[:3, 3] * [-1, -1, 1]])
    # The header contains the name of the voxel file, so both are written under their final names,
    # in a temporary folder. The header marks the scan as complete, so it is moved last.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as part:
        sitk.WriteImage(image, str(Path(part) / path.name))
        for suffix in (".raw", ".mhd"):
            name = path.with_suffix(suffix).name
            (Path(part) / name).replace(path.parent / name)
