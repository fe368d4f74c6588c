"""File names of templates: which file is which part.

Known are the names of TemplateFlow (``tpl-NAME[_cohort-N][_res-N]_label-GM_probseg``, or ``desc-GM``, with or
without a background class), the original names of the SIGMA rat resources (version 1 ``SIGMA_EPI_GM.nii``, version 2
``SIGMA_InVivo_Anatomical_Brain_gm.nii.gz``), and the plain names of a lab's own folder (``T2w.nii.gz``,
``mask.nii.gz``, ``GM.nii.gz``). Files belong together if they share a folder, a prefix and a resolution.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

# Names of each part after the prefix, in any letter case; earlier names win. Whole heads come before extracted
# brains, of which only the contour can be registered.
NAMES: dict[str, tuple[str, ...]] = {
    "t2w": (
        "T2w",
        "T2starw?",
        "T1w",
        "(brain_)?template",
        "brain_epi",
        "brain_t2",
        "brain_b0",
        "UNIT1",
        "(brain_)?template_masked",
        "desc-brain_(T2w|T2starw?|T1w)",
    ),
    "brain_mask": ("(desc-)?brain_?mask", "mask"),
    "gm": ("(brain_)?((label|desc)-)?(GM|grey|gray)(_probseg|_tpm)?",),
    "wm": ("(brain_)?((label|desc)-)?(WM|white)(_probseg|_tpm)?",),
    "csf": ("(brain_)?((label|desc)-)?CSF(_probseg|_tpm)?",),
    "background": ("((label|desc)-)?(other|BG|background)(_probseg|_tpm)?", "brain_out"),
}
LABELS = {
    "t2w": "anatomical image",
    "brain_mask": "brain mask",
    "gm": "GM map",
    "wm": "WM map",
    "csf": "CSF map",
}  # the parts that a template must have
_PATTERNS = {
    part: [re.compile(rf"((?P<prefix>.*?)_)?{name}", re.IGNORECASE) for name in names]
    for part, names in NAMES.items()
}
DEPTH = 4  # levels of subfolders that are searched; SIGMA's archive needs two, its parent folders more

Parts = dict[str, Path]


class Set(NamedTuple):
    """What the files of one template share."""

    folder: Path
    prefix: str
    resolution: str


def sets_of(files: Iterable[Path]) -> dict[Set, Parts]:
    """Group files into templates, complete or not, by their names alone."""
    ranked: dict[Set, dict[str, tuple[int, Path]]] = defaultdict(dict)
    for path in sorted(files):
        stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
        resolution = re.search(r"_res-([a-zA-Z0-9]+)", stem)
        bare = re.sub(r"_(res|cohort)-[a-zA-Z0-9]+", "", stem)
        for part, patterns in _PATTERNS.items():
            for rank, pattern in enumerate(patterns):
                if match := pattern.fullmatch(bare):
                    key = Set(
                        path.parent, (match["prefix"] or "").lower(), resolution[1] if resolution else ""
                    )
                    if part not in ranked[key] or rank < ranked[key][part][0]:
                        ranked[key][part] = rank, path
                    break
    return {key: {part: path for part, (_, path) in parts.items()} for key, parts in ranked.items()}


def complete(sets: Mapping[Set, Parts]) -> dict[Set, Parts]:
    """The templates that have all required parts."""
    return {key: parts for key, parts in sets.items() if parts.keys() >= LABELS.keys()}


def there(path: Path) -> bool:
    """Whether a file exists and has content; TemplateFlow and DataLad leave empty files and dead links for absent ones.

    A file that may not be accessed counts as absent.
    """
    try:
        return path.is_file() and path.stat().st_size > 0
    except PermissionError:
        return False


def images(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The NIfTI files of a folder and its subfolders to `depth`, including empty files and dead links."""
    for root, folders, files in os.walk(folder):
        inside = len(Path(root).relative_to(folder).parts) < depth
        folders[:] = sorted(name for name in folders if inside and not name.startswith("."))
        yield from (
            Path(root, name)
            for name in sorted(files)
            if name.endswith((".nii", ".nii.gz")) and not name.startswith(".")
        )


def missing(files: Iterable[Path]) -> str:
    """What the most complete template among `files` lacks, as text."""
    files = list(files)
    sets = sets_of(filter(there, files))
    key, parts = max(sets.items(), key=lambda item: len(item[1].keys() & LABELS.keys()), default=(None, {}))
    placeholders = sets_of(path for path in files if not there(path))
    empty = placeholders.get(key, {}) if key else {}
    lacks = [
        label + (f" ({empty[part].name} is empty: its content was never fetched)" if part in empty else "")
        for part, label in LABELS.items()
        if part not in parts
    ]
    return "missing: " + ", ".join(lacks)
