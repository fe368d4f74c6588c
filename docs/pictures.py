"""Take the README's pictures out of the demo's reports: `make pictures`, after `make demo`."""

import base64
import html
import io
import re
import sys
from pathlib import Path

from PIL import Image

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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
