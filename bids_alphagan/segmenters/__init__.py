"""Tissue segmentation: a scan on its own grid goes in, probability maps on that very grid come out.

A new segmenter is a file with a class like `base.Segmenter` and an entry in SEGMENTERS. Nothing heavy is imported.
"""

import logging
from typing import TYPE_CHECKING, Any

from bids_alphagan.common.errors import UserError
from bids_alphagan.common.lazy import Lazy, loaded

if TYPE_CHECKING:
    from bids_alphagan.segmenters.base import Segmenter
    from bids_alphagan.segmenters.methods import MaskFacts
    from bids_alphagan.segmenters.options import MaskOptions
    from bids_alphagan.templates import Template

log = logging.getLogger(__name__)

AUTO, NONE = "auto", "none"
# A class, or its name. "auto" takes the first that is there, so that what needs nothing else stands last.
SEGMENTERS: dict[str, Lazy | type] = {
    "spm": Lazy("bids_alphagan.segmenters.spm:SpmSegmenter"),
    "ants": Lazy("bids_alphagan.segmenters.ants:AntsSegmenter"),
}


def resolve_segmenter(choice: str, template: "Template", options: "MaskOptions") -> "Segmenter":
    """The segmenter for `choice`: a key of SEGMENTERS, or 'auto', the first that is there, said loudly.

    Raises UserError where the name is unknown, its program is not there, or the program does not run.
    """
    if choice not in (AUTO, *SEGMENTERS):
        raise UserError(f"Unknown segmenter {choice!r}. Known are {AUTO}, {NONE}, {', '.join(SEGMENTERS)}.")
    first = note = ""
    for name in SEGMENTERS if choice == AUTO else [choice]:
        segmenter: Any = loaded(SEGMENTERS[name])
        missing = segmenter.missing(options)
        if missing and choice != AUTO:
            others = " or ".join(f"--segmenter {other}" for other in (*SEGMENTERS, NONE) if other != name)
            raise UserError(f"{missing}. {segmenter.advice}, or choose {others}.")
        if missing:
            first, note = first or segmenter.label, note or missing
            continue
        if note:
            note += f": the tissue masks come from {segmenter.label} (--segmenter {name}), not from {first}."
            log.warning(note)
        found: Segmenter = segmenter.create(template, options, note)
        return found
    raise UserError(f"{note}, nor any other segmenter. Go without masks: --segmenter {NONE}.")


def masks_text(masks: "MaskFacts") -> str:
    """A paragraph for a manuscript, in the words of the segmenter that made the masks."""
    from_name = {cls.label: cls for cls in map(loaded, SEGMENTERS.values())}
    words = "with {name} {version} from the template {template}"
    return masks.paragraph(from_name[masks.segmenter].methods if masks.segmenter in from_name else words)
