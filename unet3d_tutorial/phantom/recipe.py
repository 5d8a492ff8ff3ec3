"""Synthetic chest CTs with exact labels: data for the whole book without a download.

A phantom is painted like a picture, back to front: air, arms, body, abdomen, lungs, mediastinum,
airway, bones, table, and last the scanner's own marks (noise, streaks, a round field of view). Each
part has a module of its own: ``phantom_patient`` draws the measures, ``phantom_canvas`` holds the
grid and the shapes, ``phantom_body``, ``phantom_chest`` and ``phantom_scanner`` paint.
:func:`generate` below is the order in which they do.

Coordinates are millimetres from the carina, where the trachea divides: x towards the patient's
left, y towards the back, z towards the head (LPS, the convention of LUNA16's files). The patients
are breadth, not likeness: sizes, poses and diseases are drawn from wide ranges, so that a network
cannot get by with "air is lung".
"""

import json
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from ..files.pool import map_in_processes
from ..files.whole import written_whole
from ..labels import LEFT_LUNG, RIGHT_LUNG, TRACHEA
from ..volume import Volume
from .body import FAT, abdomen, body, bones, cavity_distance, diaphragm
from .canvas import Canvas
from .chest import airway, airway_paths, disease, lungs, mediastinum, mediastinum_distance
from .patient import Patient, field_of_view
from .scanner import scanner, table

MASK_FOLDER = "seg-lungs-LUNA16"
LUNA16_VALUES = {LEFT_LUNG: 3, RIGHT_LUNG: 4, TRACHEA: 5}
TESTED = 10  #: phantoms to validate on, all in subset9


def generate(
    seed: int | list[int], *, spacing_mm: float = 4.0, family: str = "train"
) -> tuple[Volume, Volume]:
    """Make one synthetic chest CT.

    Args:
        seed: the same seed gives the same phantom, to the bit.
        spacing_mm: distance between voxels, equal along all axes.
        family: ``"train"``, or ``"holdout"`` for patients from other ranges, to test on.

    Returns:
        Image (int16, HU) and label (uint8: 0 background, 1 left lung, 2 right lung, 3 trachea),
        both ``(I, J, K)`` with axes left, posterior, superior (LPS). The field of view differs from
        patient to patient.
    """
    if family not in ("train", "holdout"):
        raise ValueError(f"family: expected 'train' or 'holdout', found {family!r}")
    if not 1.0 <= spacing_mm <= 8.0:
        raise ValueError(f"spacing_mm: expected 1 to 8 mm, found {spacing_mm}")
    rng = np.random.default_rng([*np.atleast_1d(seed), ["train", "holdout"].index(family)])
    p = Patient.draw(rng, family)
    c = Canvas(*field_of_view(p, rng, spacing_mm))
    grid = c.x, c.y
    c.bend(rng, p.tilt, warp_mm=rng.uniform(2, 7) * (1.3 if family == "holdout" else 1))
    body(c, p, rng)
    cavity = cavity_distance(c, p)
    inside = cavity + rng.uniform(0, 2.5) * c.noise(rng, 22)
    dome = diaphragm(c, p)
    abdomen(c, p, rng, np.maximum(cavity, c.z - p.apex), dome)
    c.paint(np.maximum(inside, dome - c.z), FAT + 20)
    airways = airway_paths(p, rng)
    lung = np.maximum.reduce(
        [inside, dome - c.z, -mediastinum_distance(c, p, rng, airways), c.z - p.apex]
    )
    lungs(c, p, rng, lung)
    disease(c, p, rng, lung)
    mediastinum(c, p, rng)
    airway(c, p, rng, airways)
    bones(c, p, rng, inside)
    table(c, p, rng, p.cavity[1] + p.wall + p.fat)
    scanner(c, p, rng, grid)
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = c.origin * [-1, -1, 1]
    return Volume(np.rint(c.hu).astype(np.int16), affine), Volume(c.label, affine)


def write_luna16(
    folder: str | Path, *, n: int = 190, seed: int = 0, spacing_mm: float = 4.0
) -> Path:
    """Write ``n`` phantoms in LUNA16's layout and return their folder.

    Images are ``subset0..9/*.mhd`` with ``.raw``, masks ``seg-lungs-LUNA16/*.mhd`` with ``.raw``.
    Masks hold 3 (left lung), 4 (right lung), 5 (trachea). The last ten phantoms, all in subset9,
    are of the ``"holdout"`` family. As many processes as cores share the work; phantoms that are
    there already are kept.

    Raises ``ValueError`` if ``n`` is too small, and if the folder holds phantoms of another recipe.
    """
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
    # The processes share the cores; each inherits this when it starts.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    written = map_in_processes(write, missing)
    for _ in tqdm(written, "phantoms", len(missing), unit="scan"):
        pass
    return folder


def _record_recipe(folder: Path, n: int, seed: int, spacing_mm: float) -> None:
    """Write to ``folder`` what its phantoms are made from; refuse a folder with another record."""
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
            f"{folder} holds phantoms of another recipe, {recorded}; delete it or choose another"
        )


def _scan_path(folder: Path, number: int, n: int) -> Path:
    """Where phantom ``number`` of ``n`` goes: a tenth to each subset, the last ten to subset9."""
    subset = number * 10 // n
    if n < 10 * TESTED:  # a tenth would not hold them
        subset = 9 if number >= n - TESTED else number * 9 // (n - TESTED)
    return folder / f"subset{subset}" / f"phantom-{number:04d}.mhd"


def _write_phantom(folder: Path, n: int, seed: int, spacing_mm: float, number: int) -> None:
    """Make one phantom and write its mask, then its image, by which it counts as there."""
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
    """Write ``path`` (.mhd) and its ``.raw``, each whole or not at all."""
    image = sitk.GetImageFromArray(volume.array.transpose(2, 1, 0))
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin([float(mm) for mm in volume.affine[:3, 3] * [-1, -1, 1]])
    # The header has the name of the voxel file in it, so both are written under their own names, in
    # a folder of their own. The header, by which a scan counts as there, is moved last.
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as part:
        sitk.WriteImage(image, str(Path(part) / path.name))
        for suffix in (".raw", ".mhd"):
            name = path.with_suffix(suffix).name
            (Path(part) / name).replace(path.parent / name)
