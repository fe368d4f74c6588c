"""Which participants get masks: those of the template's species."""

import logging
from collections.abc import Mapping, Sequence

from bids_alphagan.bids.raw import RawScan
from bids_alphagan.segmenters.base import Segmenter
from bids_alphagan.templates import Template

log = logging.getLogger(__name__)


def per_participant(
    scans: Sequence[RawScan],
    species: Mapping[str, str],
    template: Template | None,
    segmenter: Segmenter | None,
) -> tuple[dict[str, Segmenter | None], dict[str, list[str]]]:
    """A segmenter for each participant, or None with a note if the template is of another species.

    species: by participant label, lower case, if known.
    """
    if segmenter is None:
        log.warning("no tissue masks: --segmenter none")
    segmenters: dict[str, Segmenter | None] = {}
    notes: dict[str, list[str]] = {}
    for label in dict.fromkeys(scan.name.subject for scan in scans):
        segmenters[label], notes[label] = segmenter, []
        own = species.get(label)
        if template and template.species and own and own != template.species.lower():
            segmenters[label] = None
            notes[label] = [
                f"No masks: the animal is {own}, the template {template.name} is {template.species}. "
                "Give a template of its species with --template."
            ]
        elif segmenter is None:
            notes[label] = ["No masks: --segmenter none was given."]
        for note in notes[label]:
            log.warning("sub-%s: %s", label, note)
    return segmenters, notes
