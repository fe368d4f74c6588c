"""Making a kit: one page for the raters, and the key, which stays with the lab.

The page holds nothing that follows from the truth: scans are named after their own grey values and stored in
the order of these names; the order in which a rater sees them is drawn in the browser. The seed that chose
them stands in the key alone.
"""

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from bids_alphagan import __version__
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, write_json, write_text
from bids_alphagan.turing import selection, volumes
from bids_alphagan.turing.selection import REAL, Chosen

PAGE = "turing.html"
KEY_FORMAT = "bids-alphagan turing key 1"


@dataclass(frozen=True)
class KitOptions:
    """What a kit is made of. models: cohorts (None: the paper's two, or those that are there).

    suffix: the kind of scan, where there are several. plane: one of `volumes.PLANES`.
    seed: which scans are drawn (None: at random; the key tells it). most_mb: the largest page.
    key: where the key goes (None: beside the kit).
    """

    n_real: int = 20
    n_per_model: int = 15
    models: Sequence[str] | None = None
    suffix: str | None = None
    plane: str = "axial"
    seed: int | None = None
    most_mb: float = 120.0
    key: Path | None = None


@dataclass(frozen=True)
class Kit:
    """What was made: paths, the kit's id, its scans by truth, shape (slices, rows, columns), bytes."""

    page: Path
    key: Path
    id: str
    counts: dict[str, int]
    shape: tuple[int, int, int]
    size: int
    notes: tuple[str, ...]


def key_place(kit: Path, key: Path | None = None) -> Path:
    """Where the key of a kit is: as given, or beside the kit. Raises UserError for a place in the kit."""
    kit = kit.absolute()
    place = (key or kit.with_name(f"{kit.name}-key.json")).absolute()
    refuse_inside(kit, place, "--key")
    return place


def refuse_inside(kit: Path, place: Path, option: str) -> None:
    """Raise UserError where `place` is the kit's folder or in it: raters would get it."""
    if place.resolve().is_relative_to(kit.resolve()):
        raise UserError(
            f"{option} {place}: is in the kit, which raters get, and would tell the truth. Choose another."
        )


def make(output_dir: Path, kit: Path, options: KitOptions) -> Kit:
    """Write KIT/turing.html and the key.

    Raises
    ------
    UserError: too few scans, a folder with other things in it, a key that would be lost, or in the kit.
    """
    key = key_place(kit, options.key)
    _check_folder(kit)
    seed = secrets.randbits(63) if options.seed is None else options.seed
    scans, grid = _choose(output_dir, options, seed)
    most = int(options.most_mb * 0.75e6)  # base64 writes three bytes as four letters
    stack = volumes.prepare(scans, grid, most, options.plane)
    names = scan_names(stack.data)
    kit_id = hashlib.sha256(" ".join(sorted(names)).encode()).hexdigest()[:16]
    _check_key(key, kit_id)
    _check_page(kit / PAGE, kit_id)
    write_json(key, _key(kit_id, names, scans, output_dir, stack, seed, options))
    page = _page(kit_id, names, stack, options.plane)
    try:
        write_text(kit / PAGE, page)
    except OSError:
        key.unlink()
        raise
    counts = {truth: sum(scan.truth == truth for scan in scans) for truth in dict.fromkeys(_truths(scans))}
    _, *shape = stack.data.shape
    return Kit(kit / PAGE, key, kit_id, counts, (shape[0], shape[1], shape[2]), len(page), stack.notes)


def _truths(scans: Sequence[Chosen]) -> list[str]:
    return [scan.truth for scan in scans]


def _check_folder(kit: Path) -> None:
    if kit.exists() and not kit.is_dir():
        raise UserError(f"{kit}: is a file. Give the name of a folder that is to hold the kit.")
    others = sorted(path.name for path in kit.iterdir() if path.name != PAGE) if kit.is_dir() else []
    if others:
        raise UserError(
            f"{kit}: holds other things ({', '.join(others[:3])}), and raters get the whole folder. "
            "Give a new one."
        )


def _check_page(page: Path, kit_id: str) -> None:
    if page.is_file() and page_id(page) != kit_id:
        raise UserError(
            f"{page}: is there, with other scans; its raters' answers would be lost. Give another KIT."
        )


def _check_key(key: Path, kit_id: str) -> None:
    if key.exists() and read_key(key)["Kit"] != kit_id:
        raise UserError(
            f"{key}: is the key of another kit, whose answers nobody could score without it. Give another "
            "KIT or --key."
        )


def _choose(output_dir: Path, options: KitOptions, seed: int) -> tuple[list[Chosen], selection.Grid]:
    if not output_dir.is_dir():
        raise UserError(f"{output_dir}: no such folder. OUTPUT_DIR is what bids-alphagan has written to.")
    real = selection.real_candidates(output_dir, options.suffix)
    assert real[0].prepared
    suffix = real[0].prepared.name.suffix
    grid = selection.common_grid(real)
    models = selection.models_of(output_dir, options.models)
    rng = np.random.default_rng(seed)
    chosen = selection.choose(real, options.n_real, grid, rng, "--n-real")
    for model in models:
        drawn = selection.synthetic_candidates(output_dir, model, suffix)
        if not drawn:
            raise UserError(f"{output_dir / 'derivatives' / model}: no synthetic scans of kind {suffix}.")
        chosen += selection.choose(drawn, options.n_per_model, grid, rng, "--n-per-model")
    return chosen, grid


def scan_names(data: np.ndarray) -> list[str]:
    """Eight hexadecimal digits for each scan, from its grey values alone; twins are counted."""
    names: list[str] = []
    for scan in data:
        content, twin, name = scan.tobytes(), 0, ""
        while not name or name in names:
            name = hashlib.sha256(content + twin.to_bytes(4, "big")).hexdigest()[:8]
            twin += 1
        names.append(name)
    return names


def _key(
    kit_id: str,
    names: Sequence[str],
    scans: Sequence[Chosen],
    output_dir: Path,
    stack: volumes.Stack,
    seed: int,
    options: KitOptions,
) -> dict[str, Any]:
    told = {}
    for name, scan in sorted(zip(names, scans, strict=True), key=lambda pair: pair[0]):
        told[name] = {"Truth": scan.truth, "File": str(scan.path.relative_to(output_dir))}
        if scan.animal:
            told[name]["Animal"] = scan.animal
    return {
        "Format": KEY_FORMAT,
        "Kit": kit_id,
        "Version": __version__,
        "OutputDir": output_dir.resolve().name,
        "Seed": seed,
        "Options": {
            "n_real": options.n_real,
            "n_per_model": options.n_per_model,
            "models": [truth for truth in dict.fromkeys(_truths(scans)) if truth != REAL],
            "suffix": options.suffix,
            "plane": options.plane,
        },
        "Animals": len({scan.animal for scan in scans if scan.animal}),
        "Shape": list(stack.data.shape[1:]),
        "VoxelSize": list(stack.zooms),
        "WhitePercentile": volumes.white_percentile(scans),
        "BlackShareOfWhite": volumes.BLACK,
        "Notes": list(stack.notes),
        "Scans": told,
    }


def _page(kit_id: str, names: Sequence[str], stack: volumes.Stack, plane: str) -> str:
    order = sorted(range(len(names)), key=lambda k: names[k])
    _, slices, rows, columns = stack.data.shape
    facts = {
        "kit": kit_id,
        "scans": [names[k] for k in order],
        "slices": slices,
        "rows": rows,
        "columns": columns,
        "aspect": round(stack.zooms[1] * rows / (stack.zooms[2] * columns), 5),
    }
    environment = Environment(
        loader=PackageLoader("bids_alphagan.turing", "page"), autoescape=True, undefined=StrictUndefined
    )
    coded = [base64.b64encode(stack.data[k].tobytes()).decode() for k in order]
    return environment.get_template("turing.html.j2").render(
        facts=json.dumps(facts), scans=list(zip(sorted(names), coded, strict=True)), n=len(order), plane=plane
    )


def page_id(page: Path) -> str | None:
    """The id of the kit that a page is, or None where it is no such page."""
    with page.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line.startswith('{"kit": '):
                with suppress(ValueError, RecursionError):
                    return str(json.loads(line)["kit"])
    return None


def read_key(path: Path) -> dict[str, Any]:
    """Read and check a key. Raises UserError where there is none or it is damaged."""
    if not path.is_file():
        raise UserError(
            f"{path}: no key. It was written when the kit was made, beside the kit: give --key FILE."
        )
    try:
        key = read_json(path)
        if key["Format"] != KEY_FORMAT:
            raise ValueError(f"its format is {key['Format']!r}")
        truths = {name: scan["Truth"] for name, scan in key["Scans"].items()}
        if not all(isinstance(truth, str) for truth in truths.values()):
            raise ValueError("it does not say of every scan what it is")
        if not (isinstance(key["Kit"], str) and REAL in truths.values() and len(set(truths.values())) > 1):
            raise ValueError("it lacks the kit's id, real scans or synthetic ones")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: not a key of bids-alphagan-turing, or damaged ({what}).") from error
    return dict(key)
