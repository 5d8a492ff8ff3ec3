"""Scroll through a scan with its labels: live in Jupyter, and alive on a page that has no kernel.

Show a :class:`SliceViewer` as the last line of a cell. With a kernel the browser gets the voxels
themselves, as they are. The cell also stores a page of its own, a coarser volume with the program
that shows it, which needs nothing but a browser and stays hidden next to a live viewer. Both are
drawn by ``view/viewer.js``; nothing is asked of the kernel for a slice, and nothing of the network
ever. NumPy in, no MindSpore.
"""

import base64
import zlib
from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .files.whole import written_whole
from .labels import STRUCTURES
from .view import checks
from .view.checks import Labels
from .view.description import describe
from .view.grid import spacing_of
from .view.packing import coarser, ever_coarser, finest_step, pack, sample
from .view.page import fragment, whole_page, with_key, with_volume
from .view.scene import Scene
from .view.windows import window_at_start
from .volume import Volume

MAX_BYTES = 2_500_000  #: of a stored viewer
#: of what a browser is asked to hold; larger scans are shown coarser, as on a page
MAX_LIVE_BYTES = 1_000_000_000
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
STEP_FACTORS = (1, 1.25, 1.5)  # coarser values, which are tried before coarser voxels
HOPELESS, TOO_LARGE = 1.5, 1.03  # estimated sizes of a page, as shares of its budget


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
        names = dict(enumerate(STRUCTURES, start=1)) if structures is None else dict(structures)
        checks.check_structures(names)
        affine = checks.affine_of(image, spacing_mm, affine)
        predictions = checks.predictions_by_name(prediction)
        array = checks.array_of(image)
        value_range = checks.check_image(array)

        grid = array.shape, affine
        truth = None if label is None else checks.check_labels("label", label, grid, names)
        masks = {}
        for name, labels in predictions.items():
            argument = f"prediction {name!r}" if isinstance(prediction, Mapping) else "prediction"
            masks[name] = checks.check_labels(argument, labels, grid, names)

        scene = Scene(
            image=array,
            truth=truth,
            predictions=masks,
            structures=names,
            affine=affine,
            to_array=np.eye(4),
            unit=str(unit),
            value_range=value_range,
            window=window_at_start(window, value_range),
        )
        self.scene = scene.in_ras_order()
        self.max_bytes = max_bytes
        self.live = live

    def __repr__(self) -> str:
        scene = self.scene
        shape = " x ".join(map(str, scene.image.shape))
        label = "no label" if scene.truth is None else "label"
        predictions = list(scene.predictions)
        return f"SliceViewer({shape} voxels, {label}, predictions: {predictions})"

    # ---------------------------------------------------------------------------------- in Jupyter

    def _ipython_display_(self) -> None:
        """Display two outputs: the live viewer at once, and the page, which takes a second to pack.

        Both carry the same key, by which the page knows that a live viewer is there, and stays
        hidden. Where there is no kernel, the first output is blank and the page is seen.
        """
        from IPython.display import display

        if self._is_live:
            bundle, *_ = self._widget._repr_mimebundle_()
            display({WIDGET_MIME: bundle[WIDGET_MIME]}, raw=True)
        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The stored page, and a line of text for where there is no browser."""
        page = with_key(self._fragment, self._key) if self._is_live else self._fragment
        return {"text/plain": repr(self), "text/html": page}

    @property
    def _is_live(self) -> bool:
        return self.live and has_anywidget() and self.scene.browser_bytes <= MAX_LIVE_BYTES

    @cached_property
    def _widget(self) -> Any:
        from .view.widget import LiveViewer  # needs anywidget

        return LiveViewer(self.scene, self._key, self._page)

    @cached_property
    def _key(self) -> str:
        """The same for the same picture: a chapter that is run again is stored as it was."""
        seed = zlib.crc32(repr(self).encode())
        for bounds in self.scene.first_boxes():
            for part in self.scene.box(bounds):
                seed = zlib.crc32(part, seed)
        return f"{seed:08x}"

    # ---------------------------------------------------------------------------- without a kernel

    def to_html(self) -> str:
        """The viewer as a piece of HTML that needs nothing else, of at most ``max_bytes``."""
        return self._fragment

    def save_html(self, path: str | Path) -> Path:
        """Write the viewer as a page of its own, whole file or not at all."""
        path = Path(path)
        with written_whole(path) as part:
            part.write_text(self._page(), encoding="utf-8")
        return path

    def _page(self) -> str:
        return whole_page(self._fragment)

    @cached_property
    def _fragment(self) -> str:
        """The finest page within the budget: coarser values are tried first, then coarser voxels.

        Packing a volume takes long, so the size of each page is estimated from some of its slices.
        """
        scene = self.scene
        low = scene.value_range[0]
        finest = finest_step(scene)
        for factors in ever_coarser(scene.image.shape, spacing_of(scene.affine)):
            slices, share = sample(scene, factors)
            for step_factor in STEP_FACTORS:
                step = finest * step_factor
                page = fragment(describe(scene, factors, step))
                base64_bytes = 4 / 3 * len(pack(slices, low, step)) / share
                estimate = (len(page) + base64_bytes) / self.max_bytes
                if estimate > HOPELESS:
                    break
                if estimate > TOO_LARGE:
                    continue
                volume = pack(coarser(scene, factors), low, step)
                packed = base64.b64encode(volume).decode()
                if len(page) + len(packed) <= self.max_bytes:
                    return with_volume(page, packed)
        raise ValueError(
            f"max_bytes: the viewer of a volume of shape {scene.image.shape} takes {len(page)} "
            f"bytes at its coarsest, found a budget of {self.max_bytes}"
        )


def has_anywidget() -> bool:
    """Whether the live viewer can be shown; without it a viewer is shown as on a page."""
    return find_spec("anywidget") is not None
