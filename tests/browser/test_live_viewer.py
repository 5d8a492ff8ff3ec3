"""The viewer in a real JupyterLab.

Open the chapter's notebook, run it, and use the viewer as a reader does.
"""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browsing import jupyterlab, run_all_cells

from notebooks import read_script
from unet3d_tutorial.dataset import list_cases
from unet3d_tutorial.files.nifti import load_volume
from unet3d_tutorial.sample_ct import SampleUnavailable, fetch

ROOT = Path(__file__).parents[2]
LIVE = ".slice-viewer:not([data-key])"  # a stored page has a key
FAILED = "[anywidget] Failed to initialize model."
PATIENCE = 300_000  # ms, for a chapter on a busy machine


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the chapter and the data that it needs, so that JupyterLab saves nothing into
    this one.
    """
    for needed in ("data/phantom/done", "runs/quick/unet3d.ckpt"):
        if not (ROOT / needed).exists():
            pytest.skip(f"no {needed}: make book")
    folder = tmp_path / "project"
    (folder / "notebooks").mkdir(parents=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name in ("data", "runs"):
        (folder / name).symlink_to(ROOT / name)
    nbformat.write(
        read_script(ROOT / "notebooks" / "10_viewer.py"), folder / "notebooks" / "10_viewer.ipynb"
    )
    return folder


def the_scan() -> np.ndarray:
    try:
        return load_volume(fetch().image).array
    except SampleUnavailable:
        return load_volume(list_cases(ROOT / "data" / "phantom" / "val")[0][0]).array


def run_chapter(page, address: str) -> None:
    """Open the notebook, run all of it, and wait until its viewer has the whole volume and the last
    cell is done.
    """
    page.set_default_timeout(PATIENCE)
    run_all_cells(page, f"{address}/lab/tree/notebooks/10_viewer.ipynb")
    page.wait_for_selector(f'{LIVE}[data-loaded="1.000"]', state="attached")
    page.get_by_text("Time and memory of this chapter, measured").wait_for(state="attached")
    assert (
        page.locator(
            ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
        ).count()
        == 0
    )
    page.locator(LIVE).first.scroll_into_view_if_needed()
    page.set_default_timeout(30_000)
    page.wait_for_timeout(500)  # the wheel is for the page while the page moves


def test_the_chapter_in_jupyterlab(page, project: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with jupyterlab(project, home) as address:
        run_chapter(page, address)
        viewer = page.locator(LIVE).first
        assert viewer.locator(".note").first.text_content() == ""  # nothing is coarser here
        values_are_those_of_numpy(page, viewer)
        wheel_drag_and_keys(page, viewer)
        with page.expect_download() as download:
            viewer.get_by_text("save as page").click()
        assert 100_000 < Path(download.value.path()).stat().st_size <= 2_500_000
        page.goto("about:blank")


@pytest.mark.parametrize("application", ["jupyterlab", "notebook"])
def test_one_viewer_is_seen_even_where_the_browser_is_slow(
    page, tmp_path: Path, application: str
) -> None:
    """The browser takes, as anywidget sees it, too long for the model; the volume comes, and the
    page stays hidden.
    """
    if find_spec(application) is None:
        pytest.skip(f"{application} is not installed")
    root, home = tmp_path / "root", tmp_path / "home"
    root.mkdir(), home.mkdir()
    cell = nbformat.v4.new_code_cell(
        "import numpy as np\nfrom unet3d_tutorial.viewer import SliceViewer\n"
        "SliceViewer(np.arange(64 ** 3).reshape(64, 64, 64) % 2000, spacing_mm=(1, 1, 1))"
    )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(
        nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel}),
        root / "small.ipynb",
    )
    # anywidget waits for a model, but only two seconds
    page.add_init_script("""AbortSignal.timeout = () => {
        const controller = new AbortController();
        queueMicrotask(() => controller.abort());
        return controller.signal; }""")
    with jupyterlab(root, home, application) as address:
        page.set_default_timeout(60_000)
        run_all_cells(
            page,
            f"{address}/{'lab/tree' if application == 'jupyterlab' else 'notebooks'}/small.ipynb",
        )
        page.wait_for_selector(f'{LIVE}[data-loaded="1.000"]')
        page.wait_for_selector("[data-slice-viewer]", state="attached")
        page.wait_for_timeout(500)
        assert page.locator(".slice-viewer:visible").count() == 1
        page.goto("about:blank")
    # Notebook 7.6 has an error of its own as it starts.
    own = ["reading 'schema'"] if application == "notebook" else []
    page.watch.errors[:] = [
        text for text in page.watch.errors if not any(known in text for known in [FAILED, *own])
    ]


def values_are_those_of_numpy(page, viewer) -> None:
    scan = the_scan()
    box = viewer.locator('[data-plane="axial"] .slice').bounding_box()
    for x, y in ((0.2, 0.3), (0.52, 0.5), (0.7, 0.61)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        text = viewer.locator(".readout").text_content()
        element = tuple(int(n) for n in re.search(r"voxel \[(.*?)\]", text)[1].split(", "))
        assert float(re.search(r"(\S+) HU", text)[1]) == scan[element]


def wheel_drag_and_keys(page, viewer) -> None:
    axial = viewer.locator('[data-plane="axial"]')
    slices, box = axial.locator(".slice"), axial.locator(".slice").bounding_box()

    def at(plane: str) -> int:
        return int(viewer.locator(f'[data-plane="{plane}"] input').input_value())

    start, across = at("axial"), at("sagittal")
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.wheel(0, 100)
    page.wait_for_function(
        "([e, n]) => Number(e.value) === n",
        arg=[axial.locator("input").element_handle(), start - 1],
    )
    page.mouse.down()
    moved = at("sagittal")
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.up()
    assert across != moved > at("sagittal")  # to the left of the patient
    active = page.locator(".jp-Notebook .jp-Cell.jp-mod-active").first
    before = active.element_handle()
    slices.press("ArrowUp")
    assert at("axial") == start
    # The notebook did not take the key.
    assert before.evaluate("(cell) => cell.classList.contains('jp-mod-active')")
