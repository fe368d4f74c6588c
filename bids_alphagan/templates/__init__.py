"""A template: anatomical image, brain mask and GM, WM, CSF probability maps on one grid.

``names`` has the file names, ``checks`` tests whether the parts fit together and belong to a rodent, ``fetch``
downloads from TemplateFlow's archive. Local files come first: TEMPLATEFLOW_HOME and ``~/.cache/templateflow`` are
searched by file name, and only what is in neither is downloaded.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.process.scratch import CACHES, trouble, user_home
from bids_alphagan.templates import fetch
from bids_alphagan.templates.checks import MOUSE, RAT, Volumes, check
from bids_alphagan.templates.grids import open_image, same_grid, voxel
from bids_alphagan.templates.names import DEPTH, LABELS, Parts, Set, complete, images, missing, sets_of, there

__all__ = ["Template", "Volumes", "check_spec", "find_template", "locate", "templateflow_homes"]

COARSEST = 0.3  # mm; rodent EPI has voxels of 0.3 to 0.5 mm, so finer templates only cost time

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
    """Paths of a template's parts; `t2w` is its anatomical image, of any contrast.

    `background` is the probability of none of the three tissues, if the template has such a map on the same grid.
    `volumes`: of the brain and the tissues, mL.
    """

    name: str
    t2w: Path
    brain_mask: Path
    gm: Path
    wm: Path
    csf: Path
    species: str | None
    citation: str
    background: Path | None = None
    volumes: Volumes | None = None

    @property
    def parts(self) -> dict[str, Path]:
        """The parts that every template has, by their plain names."""
        return {label: getattr(self, part) for part, label in LABELS.items()}


def find_template(
    spec: str, home: Path | None = None, download: bool = True, again: bool = False
) -> Template:
    """Find and check a template.

    `spec` is a TemplateFlow name, ``NAME`` or ``NAME:cohort-N``, or a folder. TemplateFlow names are looked up in
    `home` (default: each of `templateflow_homes`). With `download`, missing templates are downloaded, and with
    `again` existing ones too: to the folder that has them, else to the first one that can be written. A folder
    may hold the template in a subfolder, if there is only one. Of several resolutions the coarsest with voxels of
    at most 0.3 mm is taken, else the finest.

    Raises UserError if a part is missing or damaged, or if `checks.check` rejects the parts.
    """
    name, parts = locate(spec, home, download, again)
    species, citation = _describe(name, parts["t2w"])
    is_folder = Path(spec).is_dir()
    remedy = "Copy it again." if is_folder else f"Fetch it again: bids-alphagan-template {spec} --again"
    try:
        volumes = check(parts, species, remedy)
        background = parts.pop("background", None)
        if background and not same_grid(open_image(background, remedy), open_image(parts["t2w"])):
            background = None
    except UserError as error:
        raise UserError(f"Template {spec!r}: {error}") from error
    return Template(
        name=name,
        species=species,
        citation=citation,
        background=background and background.absolute(),
        volumes=volumes,
        **{part: path.absolute() for part, path in parts.items()},
    )


def locate(
    spec: str, home: Path | None = None, download: bool = True, again: bool = False
) -> tuple[str, Parts]:
    """The name of a template and its parts' paths, unchecked. Arguments and errors as `find_template`."""
    if spec and Path(spec).is_dir():
        return _in_folder(Path(spec))
    check_spec(spec)
    name, _, cohort = spec.partition(":")
    homes = [home] if home else templateflow_homes()
    folders = {root: root / f"tpl-{name}" / cohort for root in homes}
    home = next((root for root, folder in folders.items() if _flow_sets(folder, name)), None)
    reason = missing(path for folder in folders.values() for path in images(folder))
    sets = _flow_sets(folders[home], name) if home else {}
    home = home or next((root for root in homes if not trouble(root)), homes[0])
    if download and (again or not sets):
        try:
            fetch.download(home, name, cohort, again)
        except Exception as error:  # the client raises whatever its HTTP and BIDS libraries raise
            if again:
                raise UserError(f"Template {spec!r} could not be fetched again: {error}.") from error
            reason = f"{reason}; the download failed: {error}"
        sets = _flow_sets(folders[home], name)
    if not sets:
        where = " nor in ".join(map(str, folders.values()))
        raise UserError(
            f"Template {spec!r} is not in {where} ({reason}). {fetch.by_hand(home, name, cohort)} Or give a "
            "folder with its parts as --template DIR, or do without masks: --segmenter none."
        )
    return spec, _best(sets)


def check_spec(spec: str) -> None:
    """Raise UserError unless `spec` is a folder with a template, or has the form of a TemplateFlow name."""
    if spec and Path(spec).is_dir():
        _in_folder(Path(spec))
    elif not re.fullmatch(r"[A-Za-z0-9]+(:cohort-[0-9]+)?", spec):
        raise UserError(
            f"Template {spec!r} is neither a folder nor a name such as Fischer344 or RESILIENT:cohort-1."
        )


def templateflow_homes() -> list[Path]:
    """The folders to search, in order: TEMPLATEFLOW_HOME, and the cache of TemplateFlow's client.

    The first may be read-only, in an image or at a site; downloads then go to the second.
    """
    given, cache, home = os.environ.get("TEMPLATEFLOW_HOME"), os.environ.get("XDG_CACHE_HOME"), user_home()
    caches = Path(cache) if cache else (home or Path("/nonexistent")) / CACHES["XDG_CACHE_HOME"]
    return list(dict.fromkeys([*([Path(given)] if given else []), caches / "templateflow"]))


def _flow_sets(folder: Path, name: str) -> dict[Set, Parts]:
    sets = complete(sets_of(filter(there, images(folder))))
    return {key: parts for key, parts in sets.items() if key.prefix == f"tpl-{name}".lower()}


def _in_folder(folder: Path) -> tuple[str, Parts]:
    """The one template in a folder or its subfolders."""
    for depth in (0, DEPTH):
        files = list(images(folder, depth))
        sets = complete(sets_of(filter(there, files)))
        several = sorted({(key.folder, key.prefix) for key in sets})
        if len(several) > 1:
            which = ", ".join(f"{path} ({prefix}*)" if prefix else str(path) for path, prefix in several)
            raise UserError(
                f"{folder} holds {len(several)} templates: {which}. Give the folder of one of them, "
                "which must hold no other."
            )
        if several:
            root = several[0][0].resolve()
            names = [root.parent.name, root.name] if root.name.startswith("cohort-") else [root.name]
            return ":".join(names).removeprefix("tpl-"), _best(sets)
    raise UserError(
        f"{folder} is not a template: {missing(files)}. It must hold a T2w, T1w or T2star image, a brain "
        "mask and GM, WM and CSF maps, whose names have the same prefix (such as Lab_T2w.nii.gz, Lab_mask.nii.gz, "
        "Lab_GM.nii.gz, Lab_WM.nii.gz, Lab_CSF.nii.gz)."
    )


def _best(sets: dict[Set, Parts]) -> Parts:
    """The set with the coarsest voxels up to COARSEST, else the one with the finest."""
    if len(sets) == 1:
        return next(iter(sets.values()))
    voxels = {voxel(parts["t2w"]): parts for parts in sets.values()}
    fine = [size for size in voxels if size <= COARSEST + 1e-3]
    return voxels[max(fine) if fine else min(voxels)]


def _describe(name: str, image: Path) -> tuple[str | None, str]:
    """Species and citation from template_description.json beside the images or one folder up, or by name."""
    label = next(
        (key for key in SPECIES if image.name.removeprefix("tpl-").startswith(key)), name.split(":")[0]
    )
    species, citation = SPECIES.get(label), CITATIONS.get(label, "")
    for folder in (image.parent, image.parent.parent):
        path = folder / "template_description.json"
        if there(path):
            try:
                record = json.loads(path.read_text())
            except ValueError as error:
                raise UserError(f"{path} is not valid JSON: {error}") from error
            species = str(record["Species"]).lower() if record.get("Species") else species
            links = record.get("ReferencesAndLinks") or []
            links = links.values() if isinstance(links, dict) else links
            citation = citation or "; ".join(map(str, [record.get("Name", ""), *links])).strip("; ")
            break
    return species, citation
