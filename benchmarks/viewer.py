"""How fast the slice viewer is.

``python benchmarks/viewer.py`` needs the real CT, Chromium and playwright.

It prints a table: in JupyterLab, from running the cell to the first picture and to the whole
volume; there and on the stored page, from a wheel tick to the finished drawing and to the next
frame after it (medians and 90th percentiles of 100 ticks, in a full scan with labels and
prediction, three planes); and how much memory the kernel takes for it.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
from browsing import CHROMIUM, FLAGS, jupyterlab, run_all_cells

TICKS = 100
PREPARE = """
import resource, time
import numpy as np
from unet3d_tutorial.sample_ct import fetch
from unet3d_tutorial.viewer import SliceViewer
from unet3d_tutorial.files.nifti import load_volume
from unet3d_tutorial.volume import Volume
ct = fetch()
scan, label = load_volume(ct.image), load_volume(ct.label)
image = Volume(scan.array.astype(np.int16), scan.affine)
prediction = Volume(np.roll(label.array, 3, axis=1), label.affine)
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
before = rss()
"""
SHOW = "start = time.time()\nviewer = SliceViewer(image, label, prediction)\nviewer"
REPORT = "print('MEMORY', image.array.nbytes / 1e6, rss() - before)"
OBSERVE = """() => { window.seen = {};
    const look = () => { const viewer = document.querySelector('.slice-viewer:not([data-key])');
        if (viewer?.dataset.ready && !seen.first) seen.first = Date.now() / 1000;
        if (viewer?.dataset.loaded === '1.000' && !seen.all) seen.all = Date.now() / 1000;
        if (!seen.all) requestAnimationFrame(look); };
    look(); }"""
TIME_TICKS = """() => { window.ticks = []; let start;
    addEventListener('wheel', () => (start = performance.now()), { capture: true, passive: true });
    addEventListener('wheel', () => {
        const tick = { drawn: performance.now() - start }, from = start;
        ticks.push(tick);
        requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = () => (tick.frame = performance.now() - from);
            channel.port2.postMessage(0); });
    }, { passive: true }); }"""


def main() -> None:
    """Measure both lives of the viewer and print the table."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        root, home = Path(folder) / "root", Path(folder) / "home"
        root.mkdir(), home.mkdir()
        write_notebook(root / "bench.ipynb")
        print("| | seconds or ms |\n|---|---|")
        with jupyterlab(root, home) as address:
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            live(page, address)
            page.goto("about:blank")
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        stored(page, Path(folder))
        browser.close()


def write_notebook(path: Path) -> None:
    cells = [
        nbformat.v4.new_code_cell(source)
        for source in (PREPARE, SHOW, "print('START', start)", REPORT)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def live(page, address: str) -> None:
    page.set_default_timeout(600_000)
    page.add_init_script(f"({OBSERVE})()")
    run_all_cells(page, f"{address}/lab/tree/bench.ipynb")
    page.wait_for_selector('.slice-viewer[data-loaded="1.000"]')
    page.get_by_text("MEMORY").last.wait_for()
    printed = " ".join(page.locator(".jp-OutputArea-output pre").all_text_contents()).split()
    start = float(printed[printed.index("START") + 1])
    volume, more = (float(printed[printed.index("MEMORY") + n]) for n in (1, 2))
    seen = page.evaluate("seen")
    print(f"| live: from the cell's start to the first picture | {seen['first'] - start:.2f} s |")
    print(f"| live: to the whole volume | {seen['all'] - start:.2f} s |")
    print(f"| live: memory of the kernel, volume of {volume:.0f} MB | {more:+.0f} MB |")
    ticks(page, "live")


def stored(page, folder: Path) -> None:
    from unet3d_tutorial.files.nifti import load_volume
    from unet3d_tutorial.sample_ct import fetch
    from unet3d_tutorial.viewer import SliceViewer
    from unet3d_tutorial.volume import Volume

    ct = fetch()
    label = load_volume(ct.label)
    viewer = SliceViewer(
        load_volume(ct.image), label, Volume(np.roll(label.array, 3, axis=1), label.affine)
    )
    path = viewer.save_html(folder / "viewer.html")
    page.goto(path.as_uri())
    page.wait_for_selector(".slice-viewer[data-ready]")
    opened = page.evaluate("performance.now()") / 1000
    megabytes = path.stat().st_size / 1e6
    print(f"| stored: page of {megabytes:.2f} MB, to the first picture | {opened:.2f} s |")
    ticks(page, "stored")


def ticks(page, name: str) -> None:
    """Turn the wheel over the axial picture, up and down."""
    slices = page.locator('.panel[data-plane="axial"] .slice').first
    slices.scroll_into_view_if_needed()
    slices.hover()
    page.wait_for_timeout(500)
    page.evaluate(TIME_TICKS)
    for number in range(TICKS):
        page.mouse.wheel(0, 100 if number // 25 % 2 else -100)
        page.wait_for_timeout(30)
    for key, text in (("drawn", "drawn"), ("frame", "in the next frame")):
        values = [tick[key] for tick in page.evaluate("ticks") if key in tick]
        median, most = np.percentile(values, [50, 90])
        print(f"| {name}: wheel tick to new picture, {text} | {median:.1f} ms (90 %: {most:.1f}) |")


if __name__ == "__main__":
    main()
