"""Masks of real and synthetic scans are of one kind, or nothing is trained."""

import json
from pathlib import Path

import pytest

from bids_alphagan.common.errors import UserError
from bids_alphagan.segmenters.ants import AntsSegmenter
from bids_alphagan.segmenters.consistency import check_alike
from bids_alphagan.segmenters.registration import DEMO
from bids_alphagan.segmenters.spm import SpmSegmenter
from bids_alphagan.templates import Template


def as_sidecars_have(*segmenters: AntsSegmenter | SpmSegmenter) -> dict[str, dict]:
    return {f"sub-{i:02d}": json.loads(json.dumps(each.describe())) for i, each in enumerate(segmenters)}


def test_masks_of_the_same_kind_pass(rat: Template) -> None:
    one, again = AntsSegmenter(rat, threads=1), AntsSegmenter(rat, threads=2, note="SPM was not found.")
    check_alike(as_sidecars_have(one, one), again)
    spm = SpmSegmenter(rat, ("/opt/spm/bin/spm-octave", "script"), "SPM25")
    check_alike(as_sidecars_have(spm), SpmSegmenter(rat, ("/usr/bin/spm-mcr", "script"), "SPM12"))
    check_alike({"sub-00": {}}, one)  # a sidecar that says nothing


def test_spm_here_and_none_there_is_an_error(rat: Template) -> None:
    spm = SpmSegmenter(rat, ("/opt/spm/bin/spm-octave", "script"), "SPM25")
    here = AntsSegmenter(rat, note="SPM was not found.")
    with pytest.raises(
        UserError, match=r"sub-00 \(and 1 more of 3 .* by SPM .* by antspyx .*SPM was not found"
    ):
        check_alike(as_sidecars_have(spm, here, spm), here)


def test_other_settings_and_another_template_are_errors(rat: Template, tmp_path: Path) -> None:
    full = AntsSegmenter(rat)
    with pytest.raises(UserError, match=r"other settings .*--quick-masks"):
        check_alike(as_sidecars_have(AntsSegmenter(rat, DEMO)), full)
    facts = as_sidecars_have(full)
    facts["sub-00"]["Template"] = "Fischer344"
    with pytest.raises(UserError, match=r"with the template Fischer344, .* with the template RatPhantom"):
        check_alike(facts, full)
