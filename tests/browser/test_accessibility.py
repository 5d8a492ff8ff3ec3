"""Every page of the built site, on a desktop in light and dark and on a phone.

axe-core finds nothing serious, nothing scrolls sideways, the console is silent and no other machine
is asked for anything.
"""

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Watch

DESKTOP, PHONE = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
MODES = {"light": (DESKTOP, "light"), "dark": (DESKTOP, "dark"), "phone": (PHONE, "light")}
GRAVE = ("serious", "critical")
AXE = """async (grave) => (
    await axe.run(document, { resultTypes: ['violations'], preload: false })
    ).violations
    .filter(({ impact }) => grave.includes(impact))
    .map(({ id, impact, nodes }) => `${impact} ${id}: ` +
        `${nodes.map(({ html }) => html.slice(0, 99)).slice(0, 3).join(' | ')}`)"""
WIDER = """() => { const wide = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= wide) return [];
    return [`${document.documentElement.scrollWidth} px on a screen of ${wide}`]; }"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core, from a package that carries it."""
    package = pytest.importorskip(
        "axe_playwright_python", reason="pip install axe-playwright-python"
    )
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served on this machine as it would be on the web."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """No line for each request."""

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def opened(browser, mode: str) -> Iterator:
    size, scheme = MODES[mode]
    context = browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


def settle(page, url: str) -> None:
    """Open a page and wait until its slice viewers and equations are there."""
    page.goto(url)
    page.wait_for_function("""() => [
        ...document.querySelectorAll('[data-slice-viewer] > .slice-viewer')]
        .every((viewer) => viewer.dataset.ready)""")
    page.wait_for_function(
        "() => !window.MathJax?.startup?.promise || MathJax.startup.promise.then(() => true)"
    )


@pytest.mark.parametrize("mode", MODES)
def test_every_page_is_accessible(browser, axe: str, site: Path, address: str, mode: str) -> None:
    pages = sorted(
        page.relative_to(site).as_posix()
        for page in site.rglob("*.html")
        if "_static" not in page.parts
    )
    pages.remove("index.html")  # which only leads on to the first page
    assert {"book/intro.html", "search.html", "notebooks/10_viewer.html"} <= set(pages)
    defects = []
    with opened(browser, mode) as page:
        watch = Watch(page)
        for name in pages:
            settle(page, f"{address}/{name}")
            page.evaluate(axe)
            found = [
                *page.evaluate(AXE, list(GRAVE)),
                *page.evaluate(WIDER),
                *watch.errors,
                *watch.abroad,
            ]
            theme = page.evaluate("document.documentElement.dataset.theme")
            found += [] if theme == MODES[mode][1] else [f"the theme is {theme}"]
            defects += [f"{name}: {defect}" for defect in found]
            watch.errors.clear(), watch.abroad.clear()
    assert not defects, "\n".join(defects)


def test_no_frame_around_the_viewer_in_the_dark(browser, address: str) -> None:
    """The theme gives outputs a light ground in its dark mode; the viewer has its own colours."""
    with opened(browser, "dark") as page:
        settle(page, f"{address}/notebooks/10_viewer.html")
        frames = page.locator(".text_html:has([data-slice-viewer])").evaluate_all(
            """(all) => all.map((one) => getComputedStyle(one))
                .map((style) => [style.backgroundColor, style.padding])"""
        )
    assert frames == [["rgba(0, 0, 0, 0)", "0px"]] * 2


def test_axe_finds_what_is_wrong(browser, axe: str) -> None:
    """The check is alive: grey on grey, in a shadow as the viewer's, is found."""
    with opened(browser, "light") as page:
        page.set_content("<html lang='en'><title>x</title><main><div></div></main>")
        page.evaluate(
            "document.querySelector('div').attachShadow({ mode: 'open' }).innerHTML = "
            "'<p style=\"color: #999; background: #aaa\">grey</p>'"
        )
        page.evaluate(axe)
        assert page.evaluate(AXE, list(GRAVE))[0].startswith("serious color-contrast")
        page.set_content("<div style='width: 2000px'>wide</div>")
        assert page.evaluate(WIDER)[0].endswith("px on a screen of 1400")
