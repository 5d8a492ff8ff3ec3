"""Scroll through a scan with its labels: live in Jupyter, and alive on a page that has no kernel.

Show a :class:`SliceViewer` as the last line of a cell. With a kernel the browser gets the voxels
themselves, as they are. The cell also stores a page of its own, a coarser volume with the program
that shows it, which needs nothing but a browser and stays hidden beside a live viewer. Both are
drawn by ``viewer.js``; nothing is asked of the kernel for a slice, and nothing of the network ever.
NumPy in, no MindSpore.
"""

import base64
import html
import json
import uuid
import zlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

try:
    import anywidget
    import traitlets
except ImportError:  # then a viewer is shown as on a page without a kernel
    anywidget = None

from .labels import COLORS, ERRORS, STRUCTURES
from .volume import Volume, check_same_grid

PRESETS = {  # HU
    "case (-500 to 1000)": (-500, 1000),
    "wide (-1000 to 400)": (-1000, 400),
    "lung": (-1350, 150),
    "mediastinum": (-160, 240),
    "bone": (-500, 1300),
}
MAX_BYTES = 2_500_000  #: of a stored viewer
#: of what a browser is asked to hold; larger scans are shown coarser, as on a page
MAX_LIVE_BYTES = 1_000_000_000
MAX_LABEL = 250  #: the browser keeps labels in one byte, and four values for itself
HERE = "(volume)"
NO_KEY = "00000000"
WIDGET = "application/vnd.jupyter.widget-view+json"
OTHER_COLORS = ("#CC79A7", "#F0E442", "#56B4E9", "#D55E00", "#999999")
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}  # name: the RAS axis that is cut
ASLEEP = (
    "Slice viewer. It starts where scripts may run: run this cell, or trust the notebook "
    "(in JupyterLab: View, Activate Command Palette, Trust Notebook)."
)

Labels = np.ndarray | Volume


class SliceViewer:
    """Three linked slices of a scan, with labels, predictions and their errors.

    ``image`` is ``(I, J, K)``, a NumPy array in HU (or another ``unit``) or a :class:`Volume`.
    ``label`` holds whole numbers on the same grid; ``prediction`` does too, or is a mapping of up
    to two names to such arrays, which can be compared. Booleans count as label 1, floats are taken
    if they are whole. A plain array needs ``spacing_mm``, three lengths, and has its axes in RAS
    order then; or an ``affine``, as in :class:`Volume`. The grid may be oblique: slices follow its
    axes, the letters name the side that each axis is nearest to, positions in mm are exact.

    ``structures`` names the label values; ``None`` takes the book's. ``window`` is black and white
    at the start. ``max_bytes`` is the most that the stored page may take: voxels are averaged in
    blocks until it fits, and the page says so. ``live=False`` shows this page in Jupyter too, for
    notebooks that are published as they are saved.

    Arrays are referred to, not copied. Raises ``ValueError`` for shapes, label values or numbers
    that cannot be shown.
    """

    def __init__(
        self,
        image: np.ndarray | Volume,
        label: Labels | None = None,
        prediction: Labels | Mapping[str, Labels] | None = None,
        *,
        spacing_mm: tuple[float, float, float] | None = None,
        affine: np.ndarray | None = None,
        structures: Mapping[int, str] | None = None,
        window: tuple[float, float] | None = None,
        unit: str = "HU",
        max_bytes: int = MAX_BYTES,
        live: bool = True,
    ) -> None:
        if structures is None:
            structures = dict(enumerate(STRUCTURES, start=1))
        _check_structures(structures)
        affine = _affine_of(image, spacing_mm, affine)
        array = image.array if isinstance(image, Volume) else np.asarray(image)
        # Which NumPy does not subtract.
        array = array.view(np.uint8) if array.dtype == bool else array
        predictions = prediction if isinstance(prediction, Mapping) else {"prediction": prediction}
        predictions = {name: one for name, one in predictions.items() if one is not None}
        if len(predictions) > 2:
            raise ValueError(
                f"prediction: expected one or two to compare, found {len(predictions)}: {list(predictions)}"
            )
        self.range = _check_image(array)
        masks = {} if label is None else {"label": label}
        masks.update(
            {
                f"prediction {name!r}" if isinstance(prediction, Mapping) else name: one
                for name, one in predictions.items()
            }
        )
        masks = [
            _check_labels(name, one, array.shape, affine, structures) for name, one in masks.items()
        ]

        ornt = nib.io_orientation(affine)
        #: index of the shown grid -> index of ``image``
        self.to_array = nib.orientations.inv_ornt_aff(ornt, array.shape)
        self.affine = affine @ self.to_array  #: index of the shown grid (RAS order) -> mm
        self.image, *self.masks = (nib.apply_orientation(one, ornt) for one in (array, *masks))
        self.has_truth = label is not None
        self.names = list(predictions)
        self.structures = dict(structures)
        self.unit = str(unit)
        self.window = _check_window(window, self.range)
        self.max_bytes = max_bytes
        self.live = live
        self._widget = None

    # -------------------------------------------------------------------------------------- showing

    def _ipython_display_(self) -> None:
        """Two outputs: the live viewer where there is a kernel, at once; then the page, which takes
        a second to pack.

        Both carry the same key, by which the page knows that a live viewer is there, and stays
        hidden. Where there is no kernel, the first output is blank and the page is seen.
        """
        from IPython.display import display

        if self._is_live:
            self._widget = self._widget or _live_widget(self)
            display({WIDGET: self._widget._repr_mimebundle_()[0][WIDGET]}, raw=True)
        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The stored page, and a line of text for where there is no browser."""
        page = self.to_html()
        if self._is_live:
            page = page.replace(f'data-key="{NO_KEY}"', f'data-key="{self._key}"', 1)
        return {"text/plain": repr(self), "text/html": page}

    @property
    def _is_live(self) -> bool:
        return bool(self.live and anywidget and self._live_bytes <= MAX_LIVE_BYTES)

    @cached_property
    def _key(self) -> str:
        """The same for the same picture, so that a chapter that is run again is stored as it was."""
        seed = zlib.crc32(repr(self).encode())
        for part in (part for bounds in self.first_boxes() for part in self.box(bounds)):
            seed = zlib.crc32(part, seed)
        return f"{seed:08x}"

    def __repr__(self) -> str:
        sizes = " x ".join(str(n) for n in self.image.shape)
        return f"SliceViewer({sizes} voxels, {'label' if self.has_truth else 'no label'}, predictions: {self.names})"

    def to_html(self) -> str:
        """The viewer as a piece of HTML that needs nothing else, of at most ``max_bytes``."""
        return self._stored

    def save_html(self, path: str | Path) -> Path:
        """Write the viewer as a page of its own: to a temporary name first, then rename."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        part.write_text(_page(self.to_html()), encoding="utf-8")
        part.replace(path)
        return path

    @cached_property
    def _stored(self) -> str:
        low, spacing = self.range[0], _spacing(self.affine)
        for factors in _ever_coarser(self.image.shape, spacing):
            sample, share = self._sample(factors)
            for step in (self._finest_step * times for times in (1, 1.25, 1.5)):
                text = _fragment(self._meta(factors, step))
                expected = (
                    len(text) + 4 / 3 * len(_pack(sample, low, step)) / share
                ) / self.max_bytes
                if expected > 1.5:
                    break  # no step makes up for that
                if expected > 1.03:
                    continue
                packed = base64.b64encode(_pack(self._coarser(factors), low, step)).decode()
                if len(text) + len(packed) <= self.max_bytes:
                    return text.replace(HERE, packed)
        raise ValueError(
            f"max_bytes: the viewer of a volume of shape {self.image.shape} takes {len(text)} bytes at its "
            f"coarsest, found a budget of {self.max_bytes}"
        )

    # ----------------------------------------------------------------------------------- describing

    def _meta(
        self, factors: tuple[int, ...] = (1, 1, 1), step: float | None = None
    ) -> dict[str, Any]:
        """All that the front end must know besides the voxels.

        ``step`` of ``None``: the voxels are sent as they are.
        """
        block = _block_affine(factors)
        shape = [-(-n // f) for n, f in zip(self.image.shape, factors, strict=True)]
        spacing = _spacing(self.affine)
        return {
            "css": _asset("viewer.css"),
            "shape": shape,
            "spacing": [s * f for s, f in zip(spacing, factors, strict=True)],
            "affine": (self.affine @ block).tolist(),
            "toArray": (self.to_array @ block).tolist(),
            "type": self._number.__name__ if step is None else "uint16",
            "offset": 0 if step is None else self.range[0],
            "step": 1 if step is None else step,
            "range": self.range,
            "unit": self.unit,
            "window": self.window,
            "presets": [
                {"name": name, "window": limits} for name, limits in self._presets().items()
            ],
            "start": [at // f for at, f in zip(self._start, factors, strict=True)],
            "hasTruth": self.has_truth,
            "predictions": self.names,
            "labelCount": len(self.masks),
            "structures": self._legend(),
            "errors": [{"name": name, "color": color} for name, color in ERRORS.items()],
            "voxel": float(np.prod(spacing)),
            "slices": {
                name: _grouped(self._counts[name], factors[axis]) for name, axis in PLANES.items()
            },
            "note": self._note(factors, step),
        }

    def _presets(self) -> dict[str, tuple[float, float]]:
        whole = {"all values": tuple(self.range)}
        return {**PRESETS, **whole} if self.unit == "HU" else whole

    def _legend(self) -> list[dict[str, Any]]:
        """Name, colour, volumes in mL and Dice of each structure, counted on the scan's own grid."""
        millilitres = Volume(self.image, self.affine).voxel_ml
        colors = _colors(self.structures)
        totals = self._counts["axial"].sum(axis=1)  # (predictions, structures, 3)
        rows = []
        for number, (value, name) in enumerate(self.structures.items()):
            found = [
                {
                    "volume": float(pred * millilitres),
                    "dice": float(2 * both / (true + pred)) if true + pred else None,
                }
                for true, pred, both in totals[: len(self.names), number]
            ]
            rows.append(
                {
                    "value": value,
                    "name": name,
                    "color": colors[value],
                    "predictions": found,
                    "truth": float(totals[0, number, 0] * millilitres),
                }
            )
        return rows

    def _note(self, factors: tuple[int, ...], step: float | None) -> str:
        notes = []
        if step is not None and max(factors) > 1:
            shown = " x ".join(
                f"{s * f:.1f}" for s, f in zip(_spacing(self.affine), factors, strict=True)
            )
            block = " x ".join(str(f) for f in factors)
            notes.append(
                f"Without a kernel: each voxel shown is the mean of {block} voxels of the scan (its label that of "
                f"the middle one), {shown} mm. Volumes and Dice are those of the full scan."
            )
        if step is not None and step != 1:
            notes.append(f"Values in steps of {step:g} {self.unit}.")
        tilt = _tilt_degrees(self.affine)
        if tilt > 0.5:
            notes.append(
                f"The scan is oblique by {tilt:.0f} degrees: letters name the nearest side."
            )
        return " ".join(notes)

    @cached_property
    def _start(self) -> list[int]:
        """Where the planes cross at first: the centre of the labels, or of the volume."""
        where = []
        for axis, plane in enumerate(("sagittal", "coronal", "axial")):
            weight = self._counts[plane][0].sum(axis=1)[:, :2].max(axis=1).astype(float)
            length = self.image.shape[axis]
            where.append(
                int(round(np.average(np.arange(length), weights=weight)))
                if weight.any()
                else length // 2
            )
        return where

    @cached_property
    def _counts(self) -> dict[str, np.ndarray]:
        """For each plane ``(predictions, slices, structures, 3)``: voxels in truth, in prediction,
        in both.
        """
        truth = self.masks[0] if self.has_truth else None
        predictions = self.masks[1:] if self.has_truth else self.masks
        found = [
            _count(truth, one, list(self.structures), self.image.shape)
            for one in predictions or [None]
        ]
        return {name: np.stack([counts[axis] for counts in found]) for name, axis in PLANES.items()}

    # --------------------------------------------------------------------------------------- voxels

    @cached_property
    def _number(self) -> type:
        """The type in which the browser gets the voxels: int16 if it holds them exactly, else
        float32.
        """
        fits = -32768 <= self.range[0] and self.range[1] <= 32767
        if not fits:
            return np.float32
        whole = self.image.dtype.kind in "biu" or all(
            (slab == slab.astype(np.int16)).all() for slab in _slabs(self.image)
        )
        return np.int16 if whole else np.float32

    @property
    def _live_bytes(self) -> int:
        return self.image.size * (4 + len(self.masks))

    def _coarser(
        self, factors: tuple[int, ...], slices: slice | np.ndarray = slice(None)
    ) -> list[np.ndarray]:
        """Image and masks on the grid of a stored page, ``(K, J, I)``; of ``slices`` of the scan
        only.
        """
        image, *masks = (one[..., slices].T for one in (self.image, *self.masks))
        return [
            _block_mean(image, factors[::-1]),
            *(_block_middle(mask, factors[::-1]) for mask in masks),
        ]

    def _sample(self, factors: tuple[int, ...]) -> tuple[list[np.ndarray], float]:
        """Some slices of :meth:`_coarser`, about half a million voxels, and their share of the
        whole.
        """
        slices = self.image.shape[2]
        blocks = -(-slices // factors[2])
        chosen = np.linspace(
            0,
            blocks - 1,
            min(blocks, 3 + int(500_000 * blocks * np.prod(factors) / self.image.size)),
        )
        within = np.arange(factors[2])
        used = np.minimum(
            np.rint(chosen)[:, None].astype(int) * factors[2] + within, slices - 1
        ).ravel()
        return self._coarser(factors, used), len(chosen) / blocks

    @cached_property
    def _finest_step(self) -> float:
        """256 steps for the range that all but one voxel in a thousand fall into, of a sample; 16
        bits hold all values.
        """
        sample = self.image[::4, ::4, ::4]
        low, high = np.percentile(sample, [0.1, 99.9])
        whole = self.range[1] - self.range[0]
        # or: where nearly all voxels are equal.
        step = max(float(high - low) / 256 or whole / 256 or 1.0, whole / 65535)
        return float(max(1, round(step))) if self._number is np.int16 else step

    def box(self, bounds: list[list[int]]) -> list[memoryview]:
        """The voxels of a box of the shown grid, ``[[i0, i1], [j0, j1], [k0, k1]]``: image and
        masks, i fastest.
        """
        where = tuple(slice(*pair) for pair in bounds)
        kinds = (self._number, *[np.uint8] * len(self.masks))
        cut = (
            one[where].T.astype(kind, order="C")
            for one, kind in zip((self.image, *self.masks), kinds, strict=True)
        )
        return [memoryview(part).cast("B") for part in cut]

    def first_boxes(self) -> list[list[list[int]]]:
        """Three boxes of one slice each: what the first picture shows."""
        whole = [[0, n] for n in self.image.shape]
        return [
            [[at, at + 1] if other == axis else bounds for other, bounds in enumerate(whole)]
            for axis, at in enumerate(self._start)
        ]


# ------------------------------------------------------------------------------------ with a kernel


def _live_widget(viewer: SliceViewer) -> Any:
    """The viewer as a Jupyter widget. Its state is small; the browser asks for the volume in slabs."""

    class LiveViewer(anywidget.AnyWidget):
        _esm = _asset("viewer.js")
        own_id = traitlets.Unicode().tag(sync=True)
        key = traitlets.Unicode().tag(sync=True)
        meta = traitlets.Dict().tag(sync=True)
        first = traitlets.List().tag(sync=True)

    def answer(widget: LiveViewer, content: Any, buffers: Any) -> None:
        if content.get("want") == "slab":
            bounds = [[0, viewer.image.shape[0]], [0, viewer.image.shape[1]], content["slices"]]
            widget.send({"box": bounds}, viewer.box(bounds))
        elif content.get("want") == "page":
            widget.send({"page": _page(viewer.to_html())})

    boxes = [{"box": bounds, "parts": viewer.box(bounds)} for bounds in viewer.first_boxes()]
    own_id = uuid.uuid4().hex
    widget = LiveViewer(
        model_id=own_id, own_id=own_id, key=viewer._key, meta=viewer._meta(), first=boxes
    )
    widget.on_msg(answer)
    return widget


# --------------------------------------------------------------------------------- without a kernel


def _ever_coarser(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Iterator[tuple[int, ...]]:
    """Blocks of voxels to average: single voxels first, then always longer along the axis that is
    finest by now.
    """
    factors = [1, 1, 1]
    while True:
        yield tuple(factors)
        sizes = [
            s * f if f < n else np.inf for s, f, n in zip(spacing, factors, shape, strict=True)
        ]
        if min(sizes) == np.inf:
            return
        for axis, size in enumerate(sizes):
            factors[axis] += size <= 1.05 * min(sizes)


def _pack(parts: list[np.ndarray], low: float, step: float) -> bytes:
    """Compress an image as two bytes a voxel, low bytes first, and the labels as one.

    Prediction from the neighbours, as in PNG, was tried: a CT's noise leaves it without gain.
    """
    codes = np.rint((parts[0] - low) / step).astype(np.uint16)
    parts = [codes.astype(np.uint8), (codes >> 8).astype(np.uint8), *parts[1:]]
    return zlib.compress(b"".join(part.tobytes() for part in parts), 6)


def _block_mean(array: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """Mean over blocks, float32; a block that sticks out repeats the last voxel of its axis."""
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        lines = np.moveaxis(array, axis, 0)
        total = lines[::factor].astype(np.float32)
        for n in range(1, factor):
            part = lines[n::factor]
            total[: len(part)] += part
            total[len(part) :] += lines[-1]
        array = np.moveaxis(total / np.float32(factor), 0, axis)
    return array


def _block_middle(mask: np.ndarray, factors: tuple[int, ...]) -> np.ndarray:
    """The label of the middle voxel of each block."""
    middles = (
        np.minimum(np.arange(0, n, f) + f // 2, n - 1)
        for n, f in zip(mask.shape, factors, strict=True)
    )
    return mask[np.ix_(*middles)]


def _block_affine(factors: tuple[int, ...]) -> np.ndarray:
    """From the index of a block to that of its centre, in voxels."""
    block = np.diag([*map(float, factors), 1.0])
    block[:3, 3] = (np.array(factors) - 1) / 2
    return block


def _fragment(meta: dict[str, Any]) -> str:
    """HTML that holds description and program and runs on any page; the volume belongs
    :data:`HERE`.
    """
    # No name can end the script element.
    text = json.dumps(meta, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<div data-slice-viewer><div class="slice-viewer" data-key="{NO_KEY}"><p>{html.escape(ASLEEP)}</p></div>'
        f'<script type="application/json" class="meta">{text}</script>'
        f'<script type="text/plain" class="volume">{HERE}</script>'
        f'<script type="module">{_asset("viewer.js")}\nwake();</script></div>'
    )


def _page(fragment: str) -> str:
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Slice viewer</title>'
    return f'<!doctype html>\n<html lang="en">{head}\n<body><main>{fragment}</main></body></html>\n'


def _asset(name: str) -> str:
    return resources.files(f"{__package__}.view").joinpath(name).read_text(encoding="utf-8")


# ----------------------------------------------------------------------------------------- counting


def _count(
    truth: np.ndarray | None,
    prediction: np.ndarray | None,
    values: list[int],
    shape: tuple[int, ...],
) -> list[np.ndarray]:
    """For each axis ``(slices, structures, 3)``: voxels in truth, in prediction and in both, slice
    by slice.
    """
    counts = [np.zeros((n, len(values), 3), np.int64) for n in shape]
    box = _box_of([labels for labels in (truth, prediction) if labels is not None])
    for number, value in enumerate(values):
        masks = [None if labels is None else labels[box] == value for labels in (truth, prediction)]
        masks.append(None if masks[0] is None or masks[1] is None else masks[0] & masks[1])
        for column, mask in enumerate(masks):
            if mask is not None:
                for axis, sums in enumerate(_sums(mask)):
                    counts[axis][box[axis], number, column] = sums
    return counts


def _box_of(masks: list[np.ndarray]) -> tuple[slice, ...]:
    """The smallest box around all labels: most of a scan is background."""
    box = []
    for axis in range(3):
        used = (
            np.flatnonzero(np.logical_or.reduce([_is_used(mask, axis) for mask in masks]))
            if masks
            else []
        )
        box.append(slice(used[0], used[-1] + 1) if len(used) else slice(0, 0))
    return tuple(box)


def _is_used(mask: np.ndarray, axis: int) -> np.ndarray:
    """Which slices across an axis hold a label.

    Walks memory forwards: NumPy is 20 times slower on a mirrored view.
    """
    forwards = mask[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in mask.strides)]
    used = forwards.max(axis=tuple(other for other in range(3) if other != axis)) > 0
    return used[::-1] if mask.strides[axis] < 0 else used


def _sums(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many voxels of a mask each slice holds, for each axis."""
    # The longest axis that fits is 65535: see _check_image.
    along_k = mask.view(np.uint8).sum(axis=2, dtype=np.uint16)
    along_i = mask.view(np.uint8).sum(axis=0, dtype=np.uint16)
    return along_k.sum(axis=1), along_k.sum(axis=0), along_i.sum(axis=0)


def _grouped(counts: np.ndarray, factor: int) -> list[Any]:
    """Add up the slices that a coarser grid puts together."""
    starts = np.arange(0, counts.shape[1], factor)
    return np.add.reduceat(counts, starts, axis=1).tolist()


def _slabs(array: np.ndarray) -> Iterator[np.ndarray]:
    """A few slices at a time, so that a check of a large volume needs little memory."""
    for k in range(0, array.shape[2], 8):
        yield array[:, :, k : k + 8]


def _spacing(affine: np.ndarray) -> tuple[float, ...]:
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))


def _tilt_degrees(affine: np.ndarray) -> float:
    """The largest angle between an axis of the grid and the patient's axis that it is nearest to."""
    cosines = np.abs(affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)).max(axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))))


def _colors(structures: Mapping[int, str]) -> dict[int, str]:
    others = (OTHER_COLORS[n % len(OTHER_COLORS)] for n in range(len(structures)))
    return {value: COLORS.get(name) or next(others) for value, name in structures.items()}


# ----------------------------------------------------------------------------------------- checking


def _affine_of(
    image: np.ndarray | Volume,
    spacing_mm: tuple[float, float, float] | None,
    affine: np.ndarray | None,
) -> np.ndarray:
    given = [
        name
        for name, value in (("spacing_mm", spacing_mm), ("affine", affine))
        if value is not None
    ]
    if isinstance(image, Volume):
        if given:
            raise ValueError(f"{given[0]}: a Volume has its own affine; leave it out")
        affine = image.affine
    elif len(given) != 1:
        raise ValueError(
            f"expected spacing_mm or affine for an image of shape {np.shape(image)}, "
            f"found {' and '.join(given) or 'neither'}"
        )
    elif spacing_mm is not None:
        lengths = np.asarray(spacing_mm, float)
        if lengths.shape != (3,) or not np.isfinite(lengths).all() or (lengths <= 0).any():
            raise ValueError(f"spacing_mm: expected three lengths above 0 mm, found {spacing_mm}")
        affine = np.diag([*lengths, 1.0])
    affine = np.asarray(affine, float)
    if (
        affine.shape != (4, 4)
        or not np.isfinite(affine).all()
        or abs(np.linalg.det(affine[:3, :3])) < 1e-9
    ):
        raise ValueError(
            f"affine: expected 4 x 4 finite numbers with positive spacing, found {affine.tolist()}"
        )
    return affine


def _check_image(array: np.ndarray) -> list[float]:
    """Smallest and largest value of a sound image."""
    if array.ndim != 3 or 0 in array.shape or max(array.shape) > 65535:
        raise ValueError(f"image: expected a 3-D volume (I, J, K), found shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"image: expected real numbers, found {array.dtype} of shape {array.shape}"
        )
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():  # the extremes are NaN if any voxel is
        bad = sum(int(np.count_nonzero(~np.isfinite(slab))) for slab in _slabs(array))
        raise ValueError(
            f"image of shape {array.shape}: expected finite values, found {bad} NaN or infinite voxels"
        )
    return [low, high]


def _check_labels(
    name: str,
    labels: Labels,
    shape: tuple[int, ...],
    affine: np.ndarray,
    structures: Mapping[int, str],
) -> np.ndarray:
    """Labels as whole numbers that all have a name."""
    array = labels.array if isinstance(labels, Volume) else np.asarray(labels)
    own = labels.affine if isinstance(labels, Volume) else affine
    check_same_grid(name, (array.shape, own), "the image", (shape, affine))
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: expected whole numbers, found {array.dtype} of shape {array.shape}"
        )
    if array.dtype.kind == "f" and not all(
        np.array_equal(slab, np.rint(slab)) for slab in _slabs(array)
    ):
        raise ValueError(
            f"{name}: expected whole numbers, found fractions or NaN in {array.dtype} of shape {array.shape}"
        )
    if array.min() >= 0 and array.max() <= 255:
        array = array if array.dtype == np.uint8 else array.astype(np.uint8)
        inner = array[_box_of([array])]
        found = set(
            np.flatnonzero(
                sum(np.bincount(slab.ravel("K"), minlength=256) for slab in _slabs(inner))
            ).tolist()
        )
    else:
        found = set(np.unique(array).tolist())
    unknown = sorted(found - {0} - set(structures))
    if unknown:
        raise ValueError(
            f"{name} of shape {array.shape}: expected the values 0 and {sorted(structures)}, "
            f"found {unknown[:10]}; name them with structures={{value: name}}"
        )
    return array


def _check_structures(structures: Mapping[int, str]) -> None:
    wrong = [
        value
        for value in structures
        if isinstance(value, bool) or int(value) != value or not 1 <= value <= MAX_LABEL
    ]
    if wrong or not structures:
        raise ValueError(
            f"structures: expected names for label values from 1 to {MAX_LABEL}, found {wrong or 'none'}"
        )


def _check_window(window: tuple[float, float] | None, values: list[float]) -> list[float]:
    """The window at the start: as given, or the book's if the values reach beyond it on both sides,
    or all values.
    """
    if window is not None:
        if len(window) != 2 or not np.isfinite(window).all() or not window[0] < window[1]:
            raise ValueError(f"window: expected two numbers, black below white, found {window}")
        return [float(limit) for limit in window]
    wide = PRESETS["wide (-1000 to 400)"]
    if values[0] <= wide[0] + 200 and values[1] >= wide[1]:
        return list(wide)
    return values if values[0] < values[1] else [values[0] - 1, values[0] + 1]
