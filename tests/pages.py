"""Pages and sections of reports, read as a browser does: what they say and what may reach out of them."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from browser import dom
from PIL import Image

from bids_alphagan.report.html import Section

EVIL = "<script>alert(1)</script>"
_PROBE = """<script>
var failures = []; addEventListener("error", function (e) { failures.push(e.message); });
addEventListener("load", function () {
  var shown = Array.from(document.images).filter(function (i) { return i.naturalWidth > 0; }).length;
  var charts = Array.from(document.querySelectorAll("figure:not(.scan) img"));
  var tiny = charts.filter(function (i) { return i.clientWidth < 640; }).length;
  document.title = [failures.length, document.images.length - shown,
    document.documentElement.scrollWidth > innerWidth, tiny].join(" ");
});</script>"""
_VOID = {"meta", "br", "img", "link", "hr", "input"}


class Page(HTMLParser):
    """Reads HTML, fails on tags that do not match, and keeps what may reach out of it.

    sources: of pictures, with their alts. links: where they lead. words: the text, with single spaces.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.sources: list[str] = []
        self.links: list[str] = []
        self.alts: list[str | None] = []
        self.scripts = 0
        self._open: list[str] = []
        self._data: list[str] = []
        self.feed(text)
        assert self._open == []
        self.words = " ".join(" ".join(self._data).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in _VOID:
            self._open.append(tag)
        self.scripts += tag == "script"
        if tag == "img":
            self.alts.append(values.get("alt"))
        self.sources += [values["src"] or ""] if "src" in values else []
        self.links += [values["href"] or ""] if "href" in values else []

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("script", "style"):
            self._data.append(data)


def read(path: Path) -> Page:
    """The page, checked for what holds for every page."""
    page = _checked(path.read_text(encoding="utf-8"))
    assert page.scripts == 1 + ('id="scroller"' in page.text)  # the copy button's, and the slider's
    for anchor in (link[1:] for link in page.links if link.startswith("#")):
        assert f'id="{anchor}"' in page.text
    return page


def read_section(section: Section) -> Page:
    """The section, rendered and checked for what holds for every section."""
    page = _checked(str(section.html))
    assert page.scripts == 0
    assert page.text.count("<section ") == page.text.count(f'<section id="{section.id}">') == 1
    return page


def _checked(text: str) -> Page:
    page = Page(text)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith(("#", "https://doi.org/")) for link in page.links)
    assert "@import" not in text
    assert "url(" not in text
    assert len(page.alts) == len(page.sources)
    assert all(page.alts)
    return page


def picture(uri: str) -> np.ndarray:
    """The pixels of a picture in a page: (rows, columns, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


def fits_a_browser(path: Path, profile: Path, width: int) -> bool:
    """In headless Chromium: no script error, every picture decoded, no page too wide, no chart tiny."""
    probed = path.with_suffix(".probed.html")
    probed.write_text(path.read_text().replace("<head>", "<head>" + _PROBE))
    return "<title>0 0 false 0</title>" in dom(probed, profile, width)
