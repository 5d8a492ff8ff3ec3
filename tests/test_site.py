"""The built site: complete, not too heavy, and nothing comes from the network.

No link leads nowhere, and every picture is described.
"""

import re
from pathlib import Path

import pytest
import site_checks

ROOT = Path(__file__).parents[1]


def test_every_chapter_has_a_page(site: Path) -> None:
    pages = {path.stem for path in (site / "notebooks").glob("*.html")}
    assert pages == {path.stem for path in (ROOT / "notebooks").glob("[0-9]*.py")}


def test_no_page_loads_anything_from_the_network(site: Path) -> None:
    loaded = re.compile(
        r"<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=[\"'](?:https?:)?//[^\"']+"
    )
    for page in site.rglob("*.html"):
        assert not loaded.findall(page.read_text(encoding="utf-8")), (
            f"{page.name} loads something from the network"
        )


def test_links_pictures_and_weight(site: Path) -> None:
    found = list(site_checks.defects(site))
    assert not found, "\n".join(found)


def write_site(folder: Path, body: str) -> Path:
    (folder / "other.html").write_text('<h2 id="there">There</h2>', encoding="utf-8")
    (folder / "index.html").write_text(f"<h1 id='top'>Top</h1>{body}", encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "body",
    [
        '<a href="#top">',
        '<a href="other.html#there">',
        '<a href="other.html?v=1#there">',
        '<a href="https://example.org/gone#away">',
        '<a href="./">',
        '<img src="other.html" alt="A picture">',
        '<a href="mailto:someone@example.org">',
    ],
)
def test_sound_links(tmp_path: Path, body: str) -> None:
    assert list(site_checks.defects(write_site(tmp_path, body))) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('<a href="#bottom">', "leads to #bottom"),
        ('<a href="other.html#here">', "leads to #here"),
        ('<a href="gone.html">', "gone.html, which is not there"),
        ('<script src="gone.js"></script>', "gone.js, which is not there"),
        ('<meta http-equiv="Refresh" content="0; url=gone.html">', "gone.html, which is not there"),
        ('<img src="other.html">', "no alternative text"),
        ('<img src="other.html" alt=" ">', "no alternative text"),
    ],
)
def test_unsound_pages(tmp_path: Path, body: str, complaint: str) -> None:
    found = list(site_checks.defects(write_site(tmp_path, body)))
    assert len(found) == 1 and complaint in found[0], found


def test_a_heavy_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_checks, "MAX_BYTES", 10)
    assert any("MB in all" in defect for defect in site_checks.defects(write_site(tmp_path, "")))


def test_an_empty_folder(tmp_path: Path) -> None:
    assert list(site_checks.defects(tmp_path)) == [f"{tmp_path} has no pages"]
