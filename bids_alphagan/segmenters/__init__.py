"""Tissue segmentation: a scan on its own grid goes in, probability maps on that very grid come out."""

import logging
import os
from pathlib import Path

from bids_alphagan.common.errors import UserError
from bids_alphagan.segmenters.ants import AntsSegmenter
from bids_alphagan.segmenters.base import TISSUES, Segmentation, Segmenter
from bids_alphagan.segmenters.registration import DEMO, FULL
from bids_alphagan.segmenters.spm import TIME_LIMIT, SpmSegmenter
from bids_alphagan.segmenters.spm_program import find_spm, spm_version
from bids_alphagan.templates import Template

__all__ = ["SEGMENTERS", "TISSUES", "Segmentation", "Segmenter", "resolve_segmenter"]

log = logging.getLogger(__name__)

SEGMENTERS: dict[str, type] = {"spm": SpmSegmenter, "ants": AntsSegmenter}


def resolve_segmenter(
    choice: str,
    template: Template,
    spm_cmd: str | None = None,
    quick: bool = False,
    threads: int = 1,
    spm_time_limit: float = TIME_LIMIT / 60,
    cache: Path | None = None,
) -> Segmenter:
    """The segmenter for `choice`: 'auto' (SPM where it is found, else antspyx, said loudly), or a name.

    `quick` is for demonstrations: antspyx works on coarser voxels. `spm_time_limit`: minutes per
    scan. `cache`: folder for what is built once.
    Raises UserError when SPM is asked for and not found, when the SPM that was found does not run, or when
    the name is unknown.
    """
    if choice not in ("auto", *SEGMENTERS):
        raise UserError(f"Unknown segmenter {choice!r}. Known are auto, none, {', '.join(SEGMENTERS)}.")
    effort = DEMO if quick else FULL
    if choice == "ants":
        return AntsSegmenter(template, effort, threads)
    command = find_spm(spm_cmd)
    home = os.environ.get("SPM_HOME")
    absent = f" (SPM_HOME={home} is not there)" if home and not Path(home).is_dir() else ""
    if command:
        return SpmSegmenter(
            template, command, spm_version(command), threads, effort, cache, spm_time_limit * 60
        )
    if choice == "spm":
        raise UserError(
            f"SPM was not found{absent}. Name it with --spm-cmd (such as /opt/spm/bin/spm-octave), set "
            "SPM_HOME or SPMMCRCMD, or choose --segmenter ants, which needs nothing else."
        )
    note = f"SPM was not found{absent}: the tissue masks come from antspyx (--segmenter ants), not from SPM."
    log.warning(note)
    return AntsSegmenter(template, effort, threads, note)
