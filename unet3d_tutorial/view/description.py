"""All that the viewer's front end needs apart from the voxels, ready for JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..labels import COLORS, ERRORS
from ..volume import Volume
from .assets import asset
from .grid import PLANES, spacing_of, tilt_degrees
from .packing import FINEST, Factors, block_affine
from .scene import Scene
from .windows import presets_for

OTHER_COLORS = ("#CC79A7", "#F0E442", "#56B4E9", "#D55E00", "#999999")
NOTICEABLE_DEGREES = 0.5


def describe(scene: Scene, factors: Factors = FINEST, step: float | None = None) -> dict[str, Any]:
    """Describe a scene whose voxels are averaged in blocks and sent in steps of ``step``.

    ``factors`` is the size of a block in voxels. With a ``step`` of ``None`` values are sent
    unchanged; otherwise ``step`` is in the image's unit.
    """
    block = block_affine(factors)
    shape = zip(scene.image.shape, factors, strict=True)
    start = zip(scene.start, factors, strict=True)
    return {
        "css": asset("viewer.css"),
        "shape": [-(-voxels // factor) for voxels, factor in shape],  # rounded up
        "spacing": _block_size(scene, factors),
        "affine": (scene.affine @ block).tolist(),
        "toArray": (scene.to_array @ block).tolist(),
        "type": scene.voxel_type.__name__ if step is None else "uint16",
        "offset": 0 if step is None else scene.value_range[0],
        "step": 1 if step is None else step,
        "range": scene.value_range,
        "unit": scene.unit,
        "window": scene.window,
        "presets": _presets(scene),
        "start": [index // factor for index, factor in start],
        "hasTruth": scene.truth is not None,
        "predictions": list(scene.predictions),
        "labelCount": len(scene.masks),
        "structures": legend(scene),
        "errors": [{"name": name, "color": color} for name, color in ERRORS.items()],
        "voxel": float(np.prod(spacing_of(scene.affine))),
        "slices": _slice_counts(scene, factors),
        "note": _note(scene, factors, step),
    }


def legend(scene: Scene) -> list[dict[str, Any]]:
    """Return name, colour, volumes in mL and Dice of each structure, on the scan's own grid."""
    voxel_ml = Volume(scene.image, scene.affine).voxel_ml
    colors = _colors(scene.structures)
    totals = scene.counts["axial"].sum(axis=1)  # (predictions, structures, 3)
    rows = []
    for number, (value, name) in enumerate(scene.structures.items()):
        counts = totals[:, number]
        predicted = counts[: len(scene.predictions)]
        row = {"value": value, "name": name, "color": colors[value]}
        row["predictions"] = [_scores(one, voxel_ml) for one in predicted]
        row["truth"] = float(counts[0, 0] * voxel_ml)
        rows.append(row)
    return rows


def _scores(counts: np.ndarray, voxel_ml: float) -> dict[str, float | None]:
    """Volume in mL and Dice of one structure in one prediction.

    ``counts`` are its voxels in truth, in the prediction and in both. Dice is ``None`` if neither
    has a voxel.
    """
    true, predicted, both = counts
    dice = float(2 * both / (true + predicted)) if true + predicted else None
    return {"volume": float(predicted * voxel_ml), "dice": dice}


def _colors(structures: Mapping[int, str]) -> dict[int, str]:
    """Colours by label value: the book's for its structures, others for the reader's."""
    colors = {}
    others = 0
    for value, name in structures.items():
        if name in COLORS:
            colors[value] = COLORS[name]
        else:
            colors[value] = OTHER_COLORS[others % len(OTHER_COLORS)]
            others += 1
    return colors


def _presets(scene: Scene) -> list[dict[str, Any]]:
    windows = presets_for(scene.unit, scene.value_range)
    return [{"name": name, "window": limits} for name, limits in windows.items()]


def _slice_counts(scene: Scene, factors: Factors) -> dict[str, list[Any]]:
    """The counts of each plane, summed over the slices that a coarser grid merges."""
    summed = {}
    for name, plane in PLANES.items():
        counts = scene.counts[name]
        firsts = np.arange(0, counts.shape[1], factors[plane.cut])
        summed[name] = np.add.reduceat(counts, firsts, axis=1).tolist()
    return summed


def _note(scene: Scene, factors: Factors, step: float | None) -> str:
    """The note below the slices: how they differ from the scan."""
    notes = []
    if step is not None and max(factors) > 1:
        size_mm = " x ".join(f"{length:.1f}" for length in _block_size(scene, factors))
        block = " x ".join(map(str, factors))
        notes.append(
            f"Without a kernel: each voxel shown is the mean of {block} voxels of the scan "
            f"(its label that of the middle one), {size_mm} mm. "
            "Volumes and Dice are those of the full scan."
        )
    if step is not None and step != 1:
        notes.append(f"Values in steps of {step:g} {scene.unit}.")
    tilt = tilt_degrees(scene.affine)
    if tilt > NOTICEABLE_DEGREES:
        notes.append(f"The scan is oblique by {tilt:.0f} degrees: letters name the nearest side.")
    return " ".join(notes)


def _block_size(scene: Scene, factors: Factors) -> list[float]:
    """The lengths of a block, in mm."""
    spacing = spacing_of(scene.affine)
    return [length * factor for length, factor in zip(spacing, factors, strict=True)]
