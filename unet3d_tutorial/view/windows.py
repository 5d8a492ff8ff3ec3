"""Windows: the values shown as black and white, with grey between them."""

from collections.abc import Sequence

import numpy as np

WINDOW_PRESETS: dict[str, tuple[float, float]] = {  # HU
    "case (-500 to 1000)": (-500, 1000),
    "wide (-1000 to 400)": (-1000, 400),
    "lung": (-1350, 150),
    "mediastinum": (-160, 240),
    "bone": (-500, 1300),
}
AIR_MARGIN_HU = 200  # how far above black the smallest value of a scan may be


def presets_for(unit: str, value_range: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return the available windows by name: the book's if the unit is HU, and all values."""
    low, high = value_range
    offered = dict(WINDOW_PRESETS) if unit == "HU" else {}
    offered["all values"] = (low, high)
    return offered


def window_at_start(
    window: tuple[float, float] | None, value_range: Sequence[float]
) -> list[float]:
    """Return ``window`` or, if it is ``None``, one that suits the values.

    That is the book's wide window if the values cover nearly all of it, otherwise all values.
    Raises ``ValueError`` unless ``window`` is two finite numbers, black below white.
    """
    if window is not None:
        if len(window) != 2 or not np.isfinite(window).all() or not window[0] < window[1]:
            raise ValueError(f"window: expected two numbers, black below white, found {window}")
        return [float(limit) for limit in window]
    low, high = value_range
    black, white = WINDOW_PRESETS["wide (-1000 to 400)"]
    if low <= black + AIR_MARGIN_HU and high >= white:
        return [black, white]
    return [low, high] if low < high else [low - 1, low + 1]
