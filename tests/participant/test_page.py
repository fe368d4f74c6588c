"""The page of a scan: complete, self-contained and escaped."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from browser import PROGRAM
from heads import head, save
from pages import EVIL, fits_a_browser, read

from bids_alphagan.participant.page import Preparation, ScanSection, methods, write_participant_page
from bids_alphagan.segmenters.methods import MaskFacts

VERSIONS = {"bids-alphagan": "0.1", "nipype": "1.11", "nibabel": "5.3", "torch": "2.8"}
MASKS = MaskFacts("antspyx", "0.6", "RatPhantom", "A phantom", templateflow=False)


def preparation(grid: int = 64, percentile: float = 99.5) -> Preparation:
    return Preparation(grid, percentile, {"Versions": VERSIONS})


@pytest.fixture
def scan(tmp_path: Path) -> ScanSection:
    """A time series' reference (x, y, z, 1) in LPI with all masks, and its cube."""
    reference, masks = head(tmp_path)
    cube = save(tmp_path / "cube.nii.gz", np.linspace(-1, 1, 11**3, dtype=np.float32).reshape(11, 11, 11))
    return ScanSection(
        "sub-01_bold", reference, cube, masks, parameters={"Grid": {"Size": [64, 64, 64], "None": None}}
    )


def test_participant_page_is_complete_and_self_contained(tmp_path: Path, scan: ScanSection) -> None:
    failed = ScanSection("sub-01_T2w", error="sub-01_T2w.nii.gz: 3 voxels are NaN")
    bare = ScanSection("sub-01_run-2_bold", scan.reference, scan.preproc, notes=["No template was given"])
    text = methods(preparation(), MASKS)
    path = tmp_path / "sub-01.html"
    write_participant_page(path, "01", [scan, failed, bare], {"Command": "bids-alphagan a b"}, text)
    page = read(path)
    for words in (
        "sub-01_bold",
        "sub-01_T2w",
        "3 voxels are NaN",
        "No template was given",
        "bids-alphagan a b",
    ):
        assert words in page.words
    assert "7 × 8 × 9 voxels of 0.5 × 0.4 × 1 mm" in page.words
    assert "64, 64, 64" in page.words
    # Four of the whole scan; the planes and histograms of the one without masks.
    assert len(page.sources) == 6
    assert "https://doi.org/10.3390/app12104844" in page.links
    assert path.stat().st_size < 2e6


def test_a_doi_in_the_methods_is_a_link_and_the_full_stop_is_not(tmp_path: Path, scan: ScanSection) -> None:
    write_participant_page(tmp_path / "p.html", "01", [scan], {}, "text doi:10.1038/sdata.2016.44.")
    assert read(tmp_path / "p.html").links[-1] == "https://doi.org/10.1038/sdata.2016.44"


def test_measures_are_given_with_unit_and_description(tmp_path: Path, scan: ScanSection) -> None:
    measured = replace(scan, measures={"brain_volume": 2.125, "entropy": 0.5})
    write_participant_page(tmp_path / "p.html", "01", [measured], {}, "text")
    words = read(tmp_path / "p.html").words
    assert "brain_volume 2.125 mL volume of the brain mask" in words
    assert "entropy 0.5 bits mean entropy of the tissue probabilities" in words


def test_tissue_volumes_are_in_cubic_millimetres(tmp_path: Path, scan: ScanSection) -> None:
    dseg = np.asarray(nib.load(scan.masks["dseg"]).dataobj)
    save(scan.masks["WM"], (dseg == 2).astype(np.float32) * 0.25)  # a quarter of each voxel is WM
    write_participant_page(tmp_path / "r.html", "01", [scan], {}, "text")
    assert f"{(dseg == 2).sum() * 0.5 * 0.4 * 1.0 * 0.25:.4g} mm³" in read(tmp_path / "r.html").words


def test_names_from_data_are_escaped(tmp_path: Path, scan: ScanSection) -> None:
    evil = replace(
        scan,
        title=EVIL,
        measures={EVIL: 1.0},
        parameters={EVIL: [EVIL, {EVIL: EVIL}]},
        notes=[EVIL],
        error=EVIL,
    )
    write_participant_page(tmp_path / "p.html", EVIL, [evil], {EVIL: EVIL}, EVIL)
    page = read(tmp_path / "p.html")
    assert EVIL not in page.text
    assert EVIL in page.words


def test_pages_are_the_same_bytes_each_time(tmp_path: Path, scan: ScanSection) -> None:
    for name in ("a", "b"):
        write_participant_page(tmp_path / f"{name}.html", "01", [replace(scan, masks={})], {}, "text")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_methods_cite_what_was_used_and_nothing_else() -> None:
    text = methods(preparation(32, 100), None)
    assert "ANTsX" not in text
    assert "Unified segmentation" not in text
    assert "32×32×32" in text
    ants = methods(preparation(), MASKS)
    assert "doi:10.1038/s41598-021-87564-6" in ants
    assert "A phantom" in ants
    spm_facts = replace(
        MASKS, segmenter="SPM", version="SPM12 (7771)", template_citation="", templateflow=True
    )
    spm = methods(preparation(), spm_facts)
    assert "doi:10.1016/j.neuroimage.2005.02.018" in spm
    assert "doi:10.1038/s41592-022-01681-2" in spm
    assert "ANTsX" in spm  # it brings the template's maps to the scan


@pytest.mark.skipif(PROGRAM is None, reason="needs the browser chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_whole_page(tmp_path: Path, scan: ScanSection, width: int) -> None:
    page = tmp_path / "p.html"
    long = replace(scan, title="sub-01_ses-02_acq-" + "verylong" * 12 + "_bold")
    write_participant_page(page, "01", [long], {"Command": "x" * 300}, "text")
    assert fits_a_browser(page, tmp_path / "profile", width)
