"""Take the docs' pictures out of the demo's reports: `make pictures`, after `make demo`. Needs Chromium."""

import base64
import html
import io
import re
import sys
import tempfile
from pathlib import Path

from PIL import Image

from bids_alphagan.cli import turing as turing_cli

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browser import Browser, chromium

WIDTH = 600  # at most, pixels
# report, what the picture's description begins with, file in docs/pictures
WANTED = (
    ("group.html", "Real: scans in three planes", "real.png"),
    ("group.html", "Synthetic, α-WGAN-SigmaRat2: scans in three planes", "synthetic.png"),
    ("group.html", "Synthetic, α-WGAN-SigmaRat2: scans with tissue masks", "synthetic_masks.png"),
    ("sub-01.html", "sub-01_task-rest_bold: the same slices with tissue outlines", "masks.png"),
)


def main(out: Path) -> None:
    """Write the wanted pictures of the run in `out`. KeyError where a report lacks one."""
    folder = Path(__file__).with_name("pictures")
    folder.mkdir(exist_ok=True)
    for report, description, name in WANTED:
        text = (out / report).read_text(encoding="utf-8")
        found = re.findall(r'<img src="data:image/png;base64,([^"]+)"\s+alt="([^"]*)"', text)
        pictures = {html.unescape(alt): data for data, alt in found}
        picture = Image.open(io.BytesIO(base64.b64decode(pictures[description])))
        picture.thumbnail((WIDTH, 2 * WIDTH))
        picture.convert("RGB").save(folder / name, optimize=True)
    with tempfile.TemporaryDirectory() as name, chromium(Path(name) / "profile") as browser:
        report = browser.tab(out / "group.html", 1100, 1150)
        save(report.picture(Path(name) / "report.png"), folder / "report.png", 1150)
        rate(browser, out, Path(name), folder)


def rate(browser: Browser, out: Path, scratch: Path, folder: Path) -> None:
    """Make a kit of the visual Turing test and look at its first scan, on a phone."""
    kit = scratch / "kit"
    if turing_cli.main(["make", str(out), str(kit), "--n-real", "6", "--n-per-model", "6"]) != 0:
        raise SystemExit("bids-alphagan-turing failed")
    page = browser.tab(kit / "turing.html", 390, 844, touch=True)
    page.write("#rater", "A")
    page.js("expertise.value = 'medium'")
    page.click("#unseen")
    page.click("#form button")
    page.wait("!document.getElementById('scan').hidden")
    save(page.picture(scratch / "turing.png"), folder / "turing.png", 844)


def save(picture: Path, to: Path, height: int) -> None:
    """Keep what a window of that height shows of a page."""
    image = Image.open(picture).convert("RGB")
    image.crop((0, 0, image.width, min(height, image.height))).quantize(128).save(to, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
