"""How well the masks fit the phantom's truth, and how long they take: prints JSON as its last line.

python benchmarks/masks.py --n-subjects 3 --shape 32 32 20 --quick
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from bids_alphagan.phantom import main as phantom
from bids_alphagan.segmenters import SEGMENTERS, TISSUES, Segmentation, resolve_segmenter
from bids_alphagan.templates import find_template
from bids_alphagan.volume import load, read_reference, save

FIELD = (24.0, 24.0, 20.0)  # mm, as the Sigma acquisition's


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two masks: 2 |a & b| / (|a| + |b|)."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def overlaps(made: Segmentation, truth: np.ndarray) -> dict[str, float]:
    """Dice of the brain and of each tissue; `truth` (x, y, z): 0 outside the brain, then as in TISSUES."""
    tissues = {name: dice(made.dseg == k, truth == k) for k, name in enumerate(TISSUES, start=1)}
    return {"brain": dice(made.brain, truth > 0), **tissues}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n-subjects", type=int, default=3, metavar="N")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 64, 40), metavar=("X", "Y", "Z"))
    parser.add_argument("--quick", action="store_true", help="as in the demo")
    parser.add_argument("--segmenter", choices=SEGMENTERS, default="ants")
    parser.add_argument("--threads", type=int, default=1, metavar="N")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        heads = Path(folder, "heads")
        words = {
            "--n-subjects": [options.n_subjects],
            "--shape": options.shape,
            "--zooms": [f / n for f, n in zip(FIELD, options.shape, strict=True)],
        }
        with redirect_stdout(sys.stderr):
            phantom([str(heads), *(str(word) for flag in words for word in (flag, *words[flag]))])
        template = find_template(str(heads / "derivatives" / "templateflow" / "tpl-RatPhantom"))
        segmenter = resolve_segmenter(
            options.segmenter, template, quick=options.quick, threads=options.threads
        )
        scans = []
        for bold in sorted(heads.glob("sub-*/func/*_bold.nii.gz")):
            subject = bold.name.split("_")[0]
            reference, scratch = Path(folder, f"{subject}.nii.gz"), Path(folder, subject)
            scratch.mkdir()
            save(read_reference(bold)[0], reference)
            start, processor = time.perf_counter(), time.process_time()
            made = segmenter(reference, scratch)
            spent = {
                "seconds": time.perf_counter() - start,
                "cpu_seconds": time.process_time() - processor,  # of this process: not SPM's
            }
            labels = load(next(heads.glob(f"derivatives/truth/{subject}/func/*_dseg.nii.gz")))
            truth = np.asarray(labels.dataobj).reshape(made.dseg.shape)
            scans.append({"scan": subject, **overlaps(made, truth), **spent})
            print({key: v if isinstance(v, str) else round(v, 3) for key, v in scans[-1].items()})
    mean = {key: round(float(np.mean([s[key] for s in scans])), 4) for key in scans[0] if key != "scan"}
    settings = {"shape": list(options.shape), "quick": options.quick, "threads": options.threads}
    print(json.dumps({"segmenter": segmenter.describe(), **settings, "n": len(scans), "mean": mean}))


if __name__ == "__main__":
    main()
