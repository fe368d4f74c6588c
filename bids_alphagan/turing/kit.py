"""Making a kit: one page for the raters, and the key, which stays with the lab.

The page holds nothing that depends on the truth: scans are named after their own grey values and stored in
the order of these names; the browser draws the order in which a rater sees them. The seed of the selection
is only in the key.
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
    """The options of a kit. models: cohorts (None: the paper's two if they exist, else all).

    suffix: the kind of scan, if there are several. plane: one of `volumes.PLANES`.
    seed: of the selection of scans (None: random; the key records it). most_mb: the largest page, MB.
    key: path of the key (None: beside the kit).
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
    """The result: paths, the kit's id, numbers of scans by truth, shape (slices, rows, columns), size in bytes."""

    page: Path
    key: Path
    id: str
    counts: dict[str, int]
    shape: tuple[int, int, int]
    size: int
    notes: tuple[str, ...]


def key_place(kit: Path, key: Path | None = None) -> Path:
    """The path of a kit's key, as given or beside the kit. Raises UserError if it is inside the kit."""
    kit = kit.absolute()
    path = (key or kit.with_name(f"{kit.name}-key.json")).absolute()
    refuse_inside(kit, path, "--key")
    return path


def refuse_inside(kit: Path, path: Path, option: str) -> None:
    """Raise UserError if `path` is the kit's folder or inside it, because raters would get it."""
    if path.resolve().is_relative_to(kit.resolve()):
        raise UserError(
            f"{option} {path}: is in the kit, which raters get, and would reveal the truth. Choose another."
        )


def make(output_dir: Path, kit: Path, options: KitOptions) -> Kit:
    """Write KIT/turing.html and the key.

    Raises
    ------
    UserError: too few scans, a folder with other files in it, a key that would be overwritten, or inside the kit.
    """
    key = key_place(kit, options.key)
    _check_folder(kit)
    seed = secrets.randbits(63) if options.seed is None else options.seed
    scans, grid = _choose(output_dir, options, seed)
    most = int(options.most_mb * 0.75e6)  # base64 encodes three bytes as four characters
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
        raise UserError(f"{kit}: is a file. Give the name of a folder for the kit.")
    other_files = sorted(path.name for path in kit.iterdir() if path.name != PAGE) if kit.is_dir() else []
    if other_files:
        raise UserError(
            f"{kit}: holds other files ({', '.join(other_files[:3])}), but raters get the whole folder. "
            "Give a new one."
        )


def _check_page(page: Path, kit_id: str) -> None:
    if page.is_file() and page_id(page) != kit_id:
        raise UserError(
            f"{page}: exists with other scans, and its raters' answers would be lost. Give another KIT."
        )


def _check_key(key: Path, kit_id: str) -> None:
    if key.exists() and read_key(key)["Kit"] != kit_id:
        raise UserError(
            f"{key}: is the key of another kit, whose answers could not be scored without it. Give another "
            "KIT or --key."
        )


def _choose(output_dir: Path, options: KitOptions, seed: int) -> tuple[list[Chosen], selection.Grid]:
    if not output_dir.is_dir():
        raise UserError(f"{output_dir}: no such folder. OUTPUT_DIR is the output folder of bids-alphagan.")
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
    """Eight hexadecimal digits for each scan, from its grey values alone; equal scans get different names."""
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
    entries = {}
    for name, scan in sorted(zip(names, scans, strict=True), key=lambda pair: pair[0]):
        entries[name] = {"Truth": scan.truth, "File": str(scan.path.relative_to(output_dir))}
        if scan.animal:
            entries[name]["Animal"] = scan.animal
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
        "Scans": entries,
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
    """The kit id of a page; None if it is not a page of a kit."""
    with page.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            if line.startswith('{"kit": '):
                with suppress(ValueError, RecursionError):
                    return str(json.loads(line)["kit"])
    return None


def read_key(path: Path) -> dict[str, Any]:
    """Read and check a key. Raises UserError if it is missing or damaged."""
    if not path.is_file():
        raise UserError(f"{path}: no key. It was written beside the kit by default: give --key FILE.")
    try:
        key = read_json(path)
        if key["Format"] != KEY_FORMAT:
            raise ValueError(f"its format is {key['Format']!r}")
        truths = {name: scan["Truth"] for name, scan in key["Scans"].items()}
        if not all(isinstance(truth, str) for truth in truths.values()):
            raise ValueError("the truth of some scans is missing")
        if not (isinstance(key["Kit"], str) and REAL in truths.values() and len(set(truths.values())) > 1):
            raise ValueError("it lacks the kit's id, real scans or synthetic ones")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path}: not a key of bids-alphagan-turing, or damaged ({what}).") from error
    return dict(key)
