"""Tissue segmentation: from a scan on its own grid to probability maps on the same grid.

A new segmenter is a file with a class like `base.Segmenter` and an entry in SEGMENTERS. No heavy imports here.
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
# A class, or its name. "auto" takes the first one available, so the one that needs no other program is last.
SEGMENTERS: dict[str, Lazy | type] = {
    "spm": Lazy("bids_alphagan.segmenters.spm:SpmSegmenter"),
    "ants": Lazy("bids_alphagan.segmenters.ants:AntsSegmenter"),
}


def resolve_segmenter(choice: str, template: "Template", options: "MaskOptions") -> "Segmenter":
    """The segmenter for `choice`: a key of SEGMENTERS, or 'auto' for the first one available (logged as a warning).

    Raises UserError if the name is unknown, or if its program is missing or does not run.
    """
    if choice not in (AUTO, *SEGMENTERS):
        raise UserError(f"Unknown segmenter {choice!r}. Choose {AUTO}, {NONE}, {', '.join(SEGMENTERS)}.")
    first = note = ""
    for name in SEGMENTERS if choice == AUTO else [choice]:
        segmenter: Any = loaded(SEGMENTERS[name])
        missing = segmenter.missing(options)
        if missing and choice != AUTO:
            alternatives = " or ".join(
                f"--segmenter {other}" for other in (*SEGMENTERS, NONE) if other != name
            )
            raise UserError(f"{missing}. {segmenter.advice}, or choose {alternatives}.")
        if missing:
            first, note = first or segmenter.label, note or missing
            continue
        if note:
            note += f": the tissue masks come from {segmenter.label} (--segmenter {name}), not from {first}."
            log.warning(note)
        resolved: Segmenter = segmenter.create(template, options, note)
        return resolved
    raise UserError(f"{note}, and no other segmenter is available. Do without masks: --segmenter {NONE}.")


def masks_text(masks: "MaskFacts") -> str:
    """A paragraph for a manuscript, with the text of the segmenter that made the masks."""
    from_name = {cls.label: cls for cls in map(loaded, SEGMENTERS.values())}
    words = "with {name} {version} from the template {template}"
    return masks.paragraph(from_name[masks.segmenter].methods if masks.segmenter in from_name else words)
