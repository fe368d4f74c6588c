"""A template: anatomical image, brain mask and GM, WM, CSF probability maps on one grid.

Offline first: TEMPLATEFLOW_HOME (or its default, ``~/.cache/templateflow``) is searched by file name, and
the TemplateFlow client, whose import writes into that folder, is only used for what is not there.
"""

import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bids_alphagan.errors import UserError
from bids_alphagan.volume import load

log = logging.getLogger(__name__)

RAT, MOUSE = "rattus norvegicus", "mus musculus"
COARSEST = 0.3  # mm; rodent EPI has voxels of 0.3 to 0.5 mm, so finer templates only cost time

# What each part is called: TemplateFlow's names, a folder with BIDS suffixes, and SIGMA's as downloaded.
# Earlier patterns win. They are matched against the name without extension, resolution and cohort.
PARTS: dict[str, tuple[str, ...]] = {
    "t2w": (
        *(rf"(tpl-\w+?_)?{suffix}" for suffix in ("T2w", "T2star", "T1w")),
        r"SIGMA_\w+_Brain_Template",
        r"SIGMA_\w+_Brain_Template_Masked",
        *(rf"tpl-\w+?_desc-brain_{suffix}" for suffix in ("T2w", "T2star", "T1w")),
    ),
    "brain_mask": (r"(tpl-\w+?_)?(desc-brain_)?mask", r"SIGMA_\w+_Brain_Mask"),
    **{
        tissue.lower(): (rf"(tpl-\w+?_)?(label|desc)-{tissue}_probseg", rf"(SIGMA_\w+_)?{tissue}")
        for tissue in ("GM", "WM", "CSF")
    },
}

# For folders without TemplateFlow's template_description.json.
SPECIES = {
    "Fischer344": RAT,
    "RESILIENT": RAT,
    "WHS": RAT,
    "SIGMA": RAT,
    "RatPhantom": RAT,
    "MouseIn": MOUSE,
}
CITATIONS = {
    "Fischer344": "Goerzen et al. 2020, doi:10.1038/s41598-020-63965-x",
    "RESILIENT": "MacNicol et al. 2022, doi:10.3389/fninf.2021.669049",
    "WHS": "Papp et al. 2014, doi:10.1016/j.neuroimage.2014.04.001",
    "SIGMA": "Barrière et al. 2019, doi:10.1038/s41467-019-13575-7",
}


@dataclass(frozen=True)
class Template:
    """Paths of a template's parts; `t2w` is its anatomical image, whatever the contrast."""

    name: str
    t2w: Path
    brain_mask: Path
    gm: Path
    wm: Path
    csf: Path
    species: str | None
    citation: str


def find_template(spec: str, home: Path | None = None, download: bool = True) -> Template:
    """Find and check a template.

    `spec` is a TemplateFlow name, ``NAME`` or ``NAME:cohort-N``, or a folder. TemplateFlow names are looked
    up under `home` (default: TEMPLATEFLOW_HOME) and downloaded when they are not there and `download` is
    true. Of several resolutions the coarsest with voxels of at most 0.3 mm is taken, else the finest.
    Raises UserError when a part is missing or unreadable, when the parts' grids differ, when the mask is
    empty or when probabilities leave [0, 1].
    """
    name, _, cohort = spec.partition(":")
    if spec and Path(spec).is_dir():
        folder, name = Path(spec), Path(spec).resolve().name
        parts = _choose(folder.glob("*.nii*"))
        if parts is None:
            raise UserError(f"{folder} is not a template: {_missing(folder.glob('*.nii*'))}")
    else:
        if not re.fullmatch(r"[A-Za-z0-9]+(:cohort-[0-9]+)?", spec):
            raise UserError(
                f"Template {spec!r} is neither a folder nor a name such as Fischer344 or RESILIENT:cohort-1."
            )
        home = home or Path(os.environ.get("TEMPLATEFLOW_HOME") or Path.home() / ".cache" / "templateflow")
        folder = home / f"tpl-{name}" / cohort
        parts = _choose(folder.glob("*.nii*"))
        reason = _missing(folder.glob("*.nii*"))
        if parts is None and download:
            try:
                _download(home, name, cohort)
            except Exception as error:  # the client raises whatever its HTTP and BIDS libraries raise
                reason = f"{reason}; the download failed: {error}"
            parts = _choose(folder.glob("*.nii*"))
        if parts is None:
            raise UserError(
                f"Template {spec!r} is not in {folder} ({reason}). Without a network, place "
                f"tpl-{name}_T2w.nii.gz, tpl-{name}_desc-brain_mask.nii.gz and "
                f"tpl-{name}_label-{{GM,WM,CSF}}_probseg.nii.gz there (TEMPLATEFLOW_HOME=DIR with "
                f"DIR/tpl-{name}/), give a folder that has them with --template DIR, or leave the masks "
                "out with --segmenter none."
            )
    name = name.removeprefix("tpl-") + (f":{cohort}" if cohort else "")
    _check(spec, parts)
    species, citation = _describe(name, parts["t2w"])
    return Template(
        name=name,
        species=species,
        citation=citation,
        **{part: path.absolute() for part, path in parts.items()},
    )


def _sets(files: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """The parts among `files` by resolution (its entity's value, or '')."""
    sets: dict[str, dict[str, Path]] = defaultdict(dict)
    files = sorted(files)
    for part, patterns in PARTS.items():
        for pattern in patterns:
            for path in files:
                stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
                resolution = re.search(r"_res-([a-zA-Z0-9]+)", stem)
                bare = re.sub(r"_(res|cohort)-[a-zA-Z0-9]+", "", stem)
                if re.fullmatch(pattern, bare):
                    sets[resolution[1] if resolution else ""].setdefault(part, path)
    return sets


def _choose(files: Iterable[Path]) -> dict[str, Path] | None:
    """The complete set whose voxels are the coarsest up to COARSEST, else the finest.

    TemplateFlow marks files that are not downloaded yet by empty ones, which do not count.
    """
    complete = [
        parts for parts in _sets(p for p in files if p.stat().st_size).values() if len(parts) == len(PARTS)
    ]
    if not complete:
        return None
    if len(complete) == 1:
        return complete[0]
    voxels = [_voxel(parts["t2w"]) for parts in complete]
    fine = [v for v in voxels if v <= COARSEST + 1e-3]
    return complete[voxels.index(max(fine) if fine else min(voxels))]


def _voxel(path: Path) -> float:
    """The largest edge of an image's voxels, mm."""
    try:
        return float(max(load(path).header.get_zooms()[:3]))
    except Exception as error:  # nibabel, zlib and the file system each raise their own
        raise UserError(f"Template image {path} cannot be read ({error}).") from error


def _missing(files: Iterable[Path]) -> str:
    labels = {
        "t2w": "anatomical image",
        "brain_mask": "brain mask",
        "gm": "GM map",
        "wm": "WM map",
        "csf": "CSF map",
    }
    sets = _sets(p for p in files if p.stat().st_size)
    found = max(sets.values(), key=len, default={})
    return "missing: " + ", ".join(label for part, label in labels.items() if part not in found)


def _download(home: Path, name: str, cohort: str) -> None:
    """Fetch the parts of one resolution (the highest index, TemplateFlow's coarsest) into `home`."""
    from templateflow.client import TemplateFlowClient

    client = TemplateFlowClient(root=home)
    client.cache.ensure()  # lays out empty files, from which the names of all parts are known
    folder = home / f"tpl-{name}" / cohort
    complete = {r: parts for r, parts in _sets(folder.glob("*.nii*")).items() if len(parts) == len(PARTS)}
    if not complete:
        raise UserError(f"TemplateFlow has no template {name} {cohort} with GM, WM and CSF maps")
    for path in complete[max(complete, key=lambda r: int(r or 0))].values():
        log.info("Downloading %s", path.name)
        entities = dict(re.findall(r"(label|desc)-([a-zA-Z0-9]+)", path.name))
        resolution = re.search(r"_res-0*([0-9]+)", path.name)
        client.get(
            name,
            raise_empty=True,
            suffix=path.name.split(".")[0].rsplit("_", 1)[1],
            label=entities.get("label"),
            desc=entities.get("desc"),
            resolution=int(resolution[1]) if resolution else None,
            cohort=int(cohort.removeprefix("cohort-")) if cohort else None,
            hemi=None,
            atlas=None,
        )


def _check(spec: str, parts: dict[str, Path]) -> None:
    grid: tuple[tuple[int, ...], np.ndarray] | None = None
    for part, path in parts.items():
        try:
            image = load(path)
            data = np.squeeze(np.asanyarray(image.dataobj))
        except Exception as error:  # nibabel, zlib and the file system each raise their own
            raise UserError(f"Template {spec!r}: {path} cannot be read ({error}).") from error
        if data.ndim != 3 or not np.isfinite(data).all() or not data.any():
            raise UserError(
                f"Template {spec!r}: {path} is not a 3D image with finite values that are not all zero."
            )
        if grid is None:
            grid = data.shape, image.affine
        elif data.shape != grid[0] or not np.allclose(image.affine, grid[1], atol=1e-3):
            raise UserError(f"Template {spec!r}: the grid of {path} differs from that of {parts['t2w']}.")
        if part in ("gm", "wm", "csf") and not (data.min() >= -1e-3 and data.max() <= 1 + 1e-3):
            raise UserError(
                f"Template {spec!r}: {path} is not a probability map: "
                f"its values go from {data.min():g} to {data.max():g}."
            )


def _describe(name: str, image: Path) -> tuple[str | None, str]:
    """Species and citation from template_description.json beside the images or one folder up, or by name."""
    known = next(
        (key for key in SPECIES if image.name.removeprefix("tpl-").startswith(key)), name.split(":")[0]
    )
    species, citation = SPECIES.get(known), CITATIONS.get(known, "")
    for folder in (image.parent, image.parent.parent):
        path = folder / "template_description.json"
        if path.is_file() and path.stat().st_size:
            try:
                record = json.loads(path.read_text())
            except ValueError as error:
                raise UserError(f"{path} is not valid JSON: {error}") from error
            species = str(record["Species"]).lower() if record.get("Species") else species
            citation = citation or "; ".join(
                [str(record.get("Name", "")), *record.get("ReferencesAndLinks", [])]
            ).strip("; ")
            break
    return species, citation
