"""Check a built site: ``python tools/site_checks.py FOLDER``.

Links and anchors inside it, alternative texts, weight.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

MAX_BYTES = 40_000_000


@dataclass
class Page:
    """What of a page matters here: the names one can jump to, where it leads, and pictures without
    a description.
    """

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    undescribed: list[str] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.page.anchors |= {values[key] for key in ("id", "name") if values.get(key)}
        self.page.links += [values[key] for key in ("href", "src") if values.get(key)]
        if tag == "meta" and (values.get("http-equiv") or "").lower() == "refresh":
            self.page.links.append((values.get("content") or "").partition("url=")[2])
        if tag == "img" and not (values.get("alt") or "").strip():
            self.page.undescribed.append(str(values.get("src"))[:80])


def read_page(path: Path) -> Page:
    """The page in an HTML file."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def defects(site: Path) -> Iterator[str]:
    """All that is wrong with a site, in words."""
    pages = {path: read_page(path) for path in sorted(site.resolve().rglob("*.html"))}
    if not pages:
        yield f"{site} has no pages"
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        yield from (
            f"{name}: picture {source} has no alternative text" for source in page.undescribed
        )
        for link in dict.fromkeys(page.links):
            if reason := _broken(link, path, pages):
                yield f"{name}: {link} {reason}"
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    if size > MAX_BYTES:
        yield f"{size / 1e6:.1f} MB in all, expected at most {MAX_BYTES / 1e6:.0f} MB"


def _broken(link: str, path: Path, pages: dict[Path, Page]) -> str | None:
    """Why a link leads nowhere, or ``None``. Links to other sites are not followed."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return f"leads to {parts.path}, which is not there"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"leads to #{anchor}, which is not on that page"
    return None


def main(site: Path) -> int:
    """Print what is wrong with a site. 0 if nothing is."""
    found = list(defects(site))
    print(*found, f"defects of the site: {len(found)}", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
