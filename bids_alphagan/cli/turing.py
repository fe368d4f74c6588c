"""``bids-alphagan-turing``: make a visual Turing test for raters, and score their answers."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.common.errors import UserError
from bids_alphagan.turing import KitOptions, make, score_kit
from bids_alphagan.turing.volumes import PLANES

MOST_MB = 2000  # the largest page that browsers open

EPILOG = """\
examples:
  bids-alphagan-turing make OUTPUT_DIR kit         kit/turing.html for raters, kit-key.json for you alone
  bids-alphagan-turing score kit answers_*.json    writes kit-scores/

exit codes: 0 all done; 1 some answers were left out, and a line each says why; 2 the call could not be carried out
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``bids-alphagan-turing``."""
    argument_parser = argparse.ArgumentParser(
        prog="bids-alphagan-turing",
        description="The visual Turing test: can people tell the real scans from the synthetic ones?",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = argument_parser.add_subparsers(dest="command", required=True)
    kit = commands.add_parser("make", help="write a page for raters and its key", allow_abbrev=False)
    kit.add_argument("output_dir", type=Path, help="an output folder of bids-alphagan: scans and cohorts")
    kit.add_argument("kit", type=Path, help="folder for the page; give all of it to the raters")
    kit.add_argument("--n-real", type=_count, default=20, metavar="N", help="real scans (default: 20)")
    kit.add_argument(
        "--n-per-model", type=_count, default=15, metavar="N", help="of each model (default: 15)"
    )
    kit.add_argument(
        "--models", nargs="+", metavar="MODEL", help="default: sigmarat1 and sigmarat2, if they exist"
    )
    kit.add_argument("--suffix", metavar="KIND", help="kind of scan (bold, T2w ...), if there are several")
    kit.add_argument(
        "--plane", choices=list(PLANES), default="axial", help="orientation of the slices (default: axial)"
    )
    kit.add_argument(
        "--seed", type=_seed, metavar="N", help="random seed of the selection of scans (default: random)"
    )
    kit.add_argument(
        "--max-mb",
        type=_size,
        default=120.0,
        metavar="MB",
        help="largest page; coarser slices if needed (default: 120)",
    )
    kit.add_argument("--key", type=Path, metavar="FILE", help="file for the key (default: KIT-key.json)")
    scores = commands.add_parser("score", help="score the raters' answers", allow_abbrev=False)
    scores.add_argument("kit", type=Path, help="the folder that `make` wrote")
    scores.add_argument("answers", type=Path, nargs="+", help="the raters' files")
    scores.add_argument("--key", type=Path, metavar="FILE", help="the kit's key (default: KIT-key.json)")
    scores.add_argument("--out", type=Path, metavar="DIR", help="folder for the tables (default: KIT-scores)")
    scores.add_argument(
        "--margin",
        type=float,
        default=0.1,
        help="an accuracy of 0.5 ± MARGIN counts as guessing (default: 0.1)",
    )
    return argument_parser


def _count(text: str) -> int:
    return _number(text, int, 1)


def _seed(text: str) -> int:
    return _number(text, int, 0)


def _size(text: str) -> float:
    return _number(text, float, 1, MOST_MB)


def _number(text: str, kind: type, least: int, most: int | None = None) -> Any:
    value = kind(text)  # argparse reports a ValueError
    if not value >= least:
        raise argparse.ArgumentTypeError(f"{text} is less than {least}")
    if most is not None and value > most:
        raise argparse.ArgumentTypeError(f"{text} is more than {most}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code (see `EPILOG`)."""
    options = parser().parse_args(argv)
    try:
        return _make(options) if options.command == "make" else _score(options)
    except (UserError, OSError) as error:
        print(f"bids-alphagan-turing: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bids-alphagan-turing: interrupted", file=sys.stderr)
        return 130


def _make(options: argparse.Namespace) -> int:
    kit_options = KitOptions(
        n_real=options.n_real,
        n_per_model=options.n_per_model,
        models=options.models,
        suffix=options.suffix,
        plane=options.plane,
        seed=options.seed,
        most_mb=options.max_mb,
        key=options.key,
    )
    kit = make(options.output_dir, options.kit, kit_options)
    slices, rows, columns = kit.shape
    print("scans         " + ", ".join(f"{n} {truth}" for truth, n in kit.counts.items()))
    print(f"slices        {slices} of {columns} x {rows} voxels in each scan")
    print(f"page          {kit.page} ({kit.size / 1e6:.1f} MB)")
    print(f"key           {kit.key}: do not give it to the raters")
    for note in kit.notes:
        print(f"note          {note}")
    key = ["--key", str(options.key)] if options.key else []
    words = ["bids-alphagan-turing", "score", str(options.kit), "ANSWERS...", *key]
    print(
        f"next          give {options.kit} to the raters, collect their files, then run: {shlex.join(words)}"
    )
    return 0


def _score(options: argparse.Namespace) -> int:
    scored = score_kit(options.kit, options.answers, options.key, options.out, options.margin)
    print(scored.text)
    for name in ("turing.html", "table3.tsv", "turing.tsv"):
        print(scored.folder / name)
    for line in scored.left_out:
        print(f"bids-alphagan-turing: {line}", file=sys.stderr)
    return 1 if scored.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
