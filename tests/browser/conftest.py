"""One Chromium for all browser tests; without it they are skipped."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import CHROMIUM, FLAGS, Watch

from unet3d_tutorial.viewer import SliceViewer

SHAPE = (40, 36, 24)
SPACING = (2.0, 2.0, 3.0)


@pytest.fixture(scope="package")
def browser() -> Iterator:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium: on Debian and Ubuntu, apt install chromium")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, tmp_path: Path) -> Iterator:
    """A fresh page that has neither complained nor asked another machine for anything when the test
    ends.
    """
    context = browser.new_context(viewport={"width": 1100, "height": 900}, accept_downloads=True)
    context.set_default_timeout(60_000)
    opened = context.new_page()
    watch = opened.watch = Watch(opened)
    yield opened
    context.close()
    assert watch.errors == [] and watch.abroad == []


def volumes(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scan with a value of its own in each voxel, two balls of label, a shifted prediction."""
    i, j, k = np.indices(SHAPE)
    image = (
        np.random.default_rng(seed).integers(0, 60, SHAPE) + 30 * i + 20 * j + 10 * k - 1000
    ).astype(np.int16)
    label = np.zeros(SHAPE, np.uint8)
    label[(i - 12) ** 2 + (j - 18) ** 2 + (k - 12) ** 2 < 60] = 1
    label[(i - 28) ** 2 + (j - 18) ** 2 + (k - 8) ** 2 < 40] = 2
    prediction = np.roll(label, 2, axis=0)
    prediction[30:34, 2:6, 20] = 2  # a blunder that stands out in one slice only
    return image, label, prediction


def open_viewer(page, folder: Path, viewer: SliceViewer) -> None:
    """Show a stored viewer as a page of its own."""
    page.goto(viewer.save_html(folder / "viewer.html").as_uri())
    page.wait_for_selector(".slice-viewer[data-ready]")
