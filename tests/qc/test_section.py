"""The report's section on quality control: pass rates, reasons, limits and pictures, and all of it escaped."""

from dataclasses import replace
from pathlib import Path

import pytest
from heads import head
from pages import EVIL, picture, read_section

from bids_alphagan.qc.limits import thresholds
from bids_alphagan.qc.section import Failure, QualitySection, view
from bids_alphagan.report.html import Section


@pytest.fixture
def scan(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    return head(tmp_path)


def quality_section(reasons: list[str], scan: tuple[Path, dict[str, Path]]) -> QualitySection:
    """Two real scans that fail for `reasons`, two that pass, and two draws, one of which is too small."""
    reference, masks = scan
    small = "volume of the brain mask is low: 1.2 mL, at least 1.5 in real scans"
    limits = thresholds([{"brain_volume": 2.0, "entropy": 0.5}], 3)
    rows = [
        {"source": source, "split": split, "scan": name, "verdict": "fail" if why else "pass", "reasons": why}
        | {"brain_volume": volume, "entropy": None}
        for source, split, name, why, volume in (
            ("real", "training", "sub-01_bold", reasons, 2.1),
            ("real", "training", "sub-02_bold", [], 2.0),
            ("real", "held-out", "sub-03_bold", reasons, 2.3),
            ("real", "held-out", "sub-04_bold", [], 2.2),
            ("sigmarat2", "n/a", "synth0001", [small], 1.2),
            ("sigmarat2", "n/a", "synth0001", [], 2.2),
        )
    ]
    failures = [
        Failure("Real: sub-01", reasons, reference, masks),
        Failure("SigmaRat2: synth0001", [small], reference),
    ]
    return QualitySection({"real": "Real", "sigmarat2": "SigmaRat2"}, rows, limits, failures)


def section(content: QualitySection) -> Section:
    return Section("qc", "Quality control", view(content), "qc/section.html.j2")


def test_the_section_has_rates_reasons_limits_and_pictures(scan: tuple[Path, dict[str, Path]]) -> None:
    content = quality_section(["mean entropy of the tissue probabilities is high: 2 bits"], scan)
    page = read_section(section(content))
    fails = "This real scan fails quality control, but"
    assert "Real 4 2 50 % SigmaRat2 2 1 50 %" in page.words
    assert f"sub-01_bold {fails} the models were trained on it. mean entropy" in page.words
    assert (
        f"sub-03_bold {fails} the synthetic scans are still compared with it (it was held out" in page.words
    )
    assert "volume of the brain mask is low 1 " in page.words
    assert "at least 1.5 in real scans" in page.words
    assert "brain_volume volume of the brain mask, in mL 1.482 2 2.7 the least spread" in page.words
    pictures = [alt for alt in page.alts if alt and ("rejected" in alt or "with the limits" in alt)]
    assert len(pictures) == 3
    with_masks, without = (picture(image) for _, image in view(content)["failures"])
    assert with_masks.shape[0] > 1.9 * without.shape[0]  # once more, below, with its masks


def test_names_and_reasons_are_escaped(scan: tuple[Path, dict[str, Path]]) -> None:
    content = quality_section([EVIL], scan)
    content = replace(
        content,
        sources={"real": EVIL, "sigmarat2": EVIL},
        rows=[{**content.rows[0], "scan": EVIL}],
        failures=[replace(content.failures[0], title=EVIL)],
    )
    page = read_section(section(content))
    assert EVIL not in page.text
    assert page.words.count(EVIL) >= 6  # the source twice, scan, reason, failure and why
