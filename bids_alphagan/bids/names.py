"""File names, entity order and BIDS URIs.

Source: BIDS 1.10, derivatives (https://bids-specification.readthedocs.io); doi 10.1038/sdata.2016.44.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from bids_alphagan.common.errors import UserError

TISSUES = ("GM", "WM", "CSF")
SUFFIXES = {"bold": "func", "T2w": "anat", "T1w": "anat", "T2starw": "anat"}
# In BIDS order. Raw scans have none of them.
DERIVATIVE_ENTITIES = ("space", "res", "label", "desc")
# Mask names do not contain the contrast, so two anatomical contrasts of one session would share them. Contrasts
# other than the usual T2w are therefore marked with `space`.
_PLAIN_MASKS = ("bold", "T2w")


@dataclass(frozen=True)
class ScanName:
    """The parts of a scan's file name.

    entities: in the order of the name, e.g. (("sub", "01"), ("ses", "1"), ("task", "rest")).
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str

    @classmethod
    def parse(cls, filename: str) -> Self:
        """Parse ``sub-01_ses-1_task-rest_bold.nii.gz``. Raises ValueError for other names."""
        *pairs, suffix = filename.split(".")[0].split("_")
        entities = tuple((key, value) for key, _, value in (pair.partition("-") for pair in pairs))
        if not entities or entities[0][0] != "sub" or not all(value for _, value in entities):
            raise ValueError(f"{filename}: not a BIDS file name")
        return cls(entities, suffix)

    @property
    def subject(self) -> str:
        return self.entities[0][1]

    @property
    def session(self) -> str | None:
        return dict(self.entities).get("ses")

    @property
    def datatype(self) -> str:
        return SUFFIXES[self.suffix]

    @property
    def folder(self) -> Path:
        """``sub-01[/ses-1]/func``, relative to the data set."""
        levels = [f"{key}-{value}" for key, value in self.entities if key in ("sub", "ses")]
        return Path(*levels, self.datatype)

    @property
    def stem(self) -> str:
        """All entities joined: ``sub-01_ses-1_task-rest``."""
        return "_".join(f"{key}-{value}" for key, value in self.entities)

    def without(self, *keys: str) -> Self:
        return type(self)(tuple(pair for pair in self.entities if pair[0] not in keys), self.suffix)

    def derived(self, suffix: str, extension: str = ".nii.gz", **more: str) -> Path:
        """Path of a file derived from this scan, with entities in BIDS order: space, res, label, desc."""
        order = [key for key in DERIVATIVE_ENTITIES if key in more]
        words = [self.stem, *(f"{key}-{more[key]}" for key in order), suffix]
        return self.folder / ("_".join(words) + extension)

    def image(self, desc: str | None = None) -> Path:
        """Path of a scan derived from this one, with the same suffix and entities."""
        return self.derived(self.suffix, **({"desc": desc} if desc else {}))

    def masks(self, desc: str | None = None) -> dict[str, Path]:
        """Paths of the masks, by "GM", "WM", "CSF", "dseg" and "brain".

        `desc` marks the probability maps and the dseg (a synthetic scan's are ``desc-synthetic``).
        """
        more = {} if self.suffix in _PLAIN_MASKS else {"space": self.suffix}
        marked = more | ({"desc": desc} if desc else {})
        paths = {tissue: self.derived("probseg", label=tissue, **marked) for tissue in TISSUES}
        paths["dseg"] = self.derived("dseg", **marked)
        paths["brain"] = self.derived("mask", desc="brain", **more)
        return paths


def sidecar(path: Path) -> Path:
    """The JSON file beside an image."""
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


def uri(path: Path, dataset: str = "") -> str:
    """``bids:<dataset>:<path>``; without `dataset`, relative to the data set of the file that holds the URI."""
    return f"bids:{dataset}:{quote(path.as_posix())}"


def require_known(word: str, labels: Sequence[str], available: Sequence[str]) -> None:
    """Raise UserError for `labels` that are not in `available`; `word` says what they label."""
    unknown = sorted(set(labels) - set(available))
    if unknown:
        shown = ", ".join(sorted(available)[:20]) + (" ..." if len(available) > 20 else "")
        raise UserError(f"unknown {word} label {', '.join(unknown)}. The data set has: {shown or 'none'}.")
