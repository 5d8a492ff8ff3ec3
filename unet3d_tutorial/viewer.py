"""Scroll through a scan with its labels: in Jupyter, and on a web page without a kernel.

Put a :class:`SliceViewer` on the last line of a cell. With a kernel, the browser gets the original
voxels. The cell also stores a self-contained page: a coarser volume, and the program that shows it.
The page needs only a browser, and stays hidden while there is a live viewer. Both are drawn by
``view/viewer.js``. No slice is requested from the kernel, and nothing is loaded from the network.
NumPy in, no MindSpore.
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

MAX_BYTES = 2_500_000  #: default limit for the size of a stored viewer
#: limit for the data that a live viewer sends to the browser; larger scans are shown coarser, as on
#: a page
MAX_LIVE_BYTES = 1_000_000_000
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
STEP_FACTORS = (1, 1.25, 1.5)  # coarser steps of the values, tried before coarser voxels
HOPELESS, TOO_LARGE = 1.5, 1.03  # limits for the estimated size of a page, as shares of its budget


class SliceViewer:
    """Three linked slices of a scan, with labels, predictions and their errors.

    ``image`` is ``(I, J, K)``, a NumPy array in HU (or a different ``unit``) or a :class:`Volume`.
    ``label`` holds whole numbers on the same grid, or is ``None``. So does ``prediction``, which
    may also be a mapping of up to two names to such arrays, to compare them. ``True`` counts as
    label 1; floats are accepted if they are whole numbers. A plain array needs either
    ``spacing_mm``, three lengths, and then its axes are in RAS order; or an ``affine``, as in
    :class:`Volume`. The grid may be oblique: slices follow its axes, letters name the side that is
    nearest to each axis, and positions in mm are exact.

    ``structures`` maps label values to names; ``None`` means those of the book. ``window`` gives
    the values shown as black and white at the start; ``None`` chooses them from the image.
    ``max_bytes`` limits the size of the stored page: voxels are averaged in blocks until it fits,
    and the page says so. ``live=False`` shows this page in Jupyter, too, for notebooks that are
    published as they are saved.

    Arrays are referenced, not copied. Raises ``ValueError`` for shapes, label values or numbers
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
        """Display two outputs: the live viewer at once, then the page, which takes a second.

        Both have the same key. By this key the page recognises that there is a live viewer, and
        stays hidden. Without a kernel, the first output is empty and the page is shown.
        """
        from IPython.display import display

        if self._is_live:
            bundle, *_ = self._widget._repr_mimebundle_()
            display({WIDGET_MIME: bundle[WIDGET_MIME]}, raw=True)
        display(self._repr_mimebundle_(), raw=True)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """The stored page as HTML, and a line of plain text for programs that cannot show HTML."""
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
        """A key that depends only on the picture, so re-running a chapter does not change it."""
        seed = zlib.crc32(repr(self).encode())
        for bounds in self.scene.first_boxes():
            for part in self.scene.box(bounds):
                seed = zlib.crc32(part, seed)
        return f"{seed:08x}"

    # ---------------------------------------------------------------------------- without a kernel

    def to_html(self) -> str:
        """The viewer as a self-contained piece of HTML of at most ``max_bytes``.

        Raises ``ValueError`` if even the coarsest volume does not fit.
        """
        return self._fragment

    def save_html(self, path: str | Path) -> Path:
        """Write the viewer as a self-contained page; return ``path``."""
        path = Path(path)
        with written_whole(path) as part:
            part.write_text(self._page(), encoding="utf-8")
        return path

    def _page(self) -> str:
        return whole_page(self._fragment)

    @cached_property
    def _fragment(self) -> str:
        """The finest page within the budget; coarser values are tried before coarser voxels.

        Packing a whole volume is slow, so the size of a page is first estimated from some slices.
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
    """Whether anywidget is installed; without it, only the stored page can be shown."""
    return find_spec("anywidget") is not None
