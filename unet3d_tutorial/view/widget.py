"""The live viewer: a Jupyter widget that sends the browser all voxels unchanged."""

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from .assets import asset
from .description import describe
from .scene import Scene


class LiveViewer(anywidget.AnyWidget):
    """A scene in the browser.

    The widget's state is small: the description and the slices of the first picture. The browser
    asks for the rest of the volume in slabs, and for the page when the reader saves it.
    """

    _esm = asset("viewer.js")
    own_id = traitlets.Unicode().tag(sync=True)
    key = traitlets.Unicode().tag(sync=True)
    meta = traitlets.Dict().tag(sync=True)
    first: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)

    def __init__(self, scene: Scene, key: str, make_page: Callable[[], str]) -> None:
        own_id = uuid.uuid4().hex
        boxes = scene.first_boxes()
        first = [{"box": box, "parts": scene.box(box)} for box in boxes]
        super().__init__(model_id=own_id, own_id=own_id, key=key, meta=describe(scene), first=first)
        self._scene = scene
        self._make_page = make_page
        self.on_msg(self._answer)

    def _answer(self, _widget: Any, content: Mapping[str, Any], _buffers: Any) -> None:
        wanted = content.get("want")
        if wanted == "slab":
            length_i, length_j, _ = self._scene.image.shape
            box = [[0, length_i], [0, length_j], content["slices"]]
            self.send({"box": box}, self._scene.box(box))
        elif wanted == "page":
            self.send({"page": self._make_page()})
