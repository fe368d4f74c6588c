"""Reports: complete, self-contained, escaped, and figures that keep anatomy and proportions."""

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from browser import PROGRAM, dom
from PIL import Image

from bids_alphagan.evaluation.pairs.section import MetricsSection
from bids_alphagan.models import MODELS
from bids_alphagan.qc import limits as gate
from bids_alphagan.qc.section import Failure, GateSection, view
from bids_alphagan.report import charts, figures
from bids_alphagan.report.html import ModelSection, ScanSection, write_group_report, write_participant_report
from bids_alphagan.report.methods import (
    ComparisonFacts,
    MaskFacts,
    ModelFacts,
    compose,
    group_methods,
    participant_methods,
)
from bids_alphagan.report.references import REFERENCES

SHAPE, ZOOMS = (7, 8, 9), (0.5, 0.4, 1.0)
EVIL = "<script>alert(1)</script>"
VERSIONS = {"bids-alphagan": "0.1", "nipype": "1.11", "nibabel": "5.3", "torch": "2.8"}
MASKS = MaskFacts("antspyx", "0.6", "RatPhantom", "A phantom", templateflow=False)
VOID = {"meta", "br", "img", "link", "hr", "input"}
LPI = np.diag([-0.5, -0.4, 1.0, 1.0])  # x runs to the left, y to posterior


class Page(HTMLParser):
    """Reads a page, fails on tags that do not match, and keeps what may reach out of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.alts: list[str | None] = []
        self.words = ""
        self.scripts = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        if tag == "img":
            self.alts.append(found.get("alt"))
        self.sources += [found["src"]] if "src" in found else []
        self.links += [found["href"]] if "href" in found else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data + " "


def read(path: Path) -> Page:
    """The page, checked for what holds for every page."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith(("#", "https://doi.org/")) for link in page.links)
    assert "@import" not in text
    assert "url(" not in text
    assert len(page.alts) == len(page.sources)
    assert all(page.alts)
    assert page.scripts == 1 + ('id="scroller"' in text)  # the copy button's, and the slider's
    for anchor in (link[1:] for link in page.links if link.startswith("#")):
        assert f'id="{anchor}"' in text
    return page


def save(path: Path, data: np.ndarray, affine: np.ndarray = LPI) -> Path:
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def scan(tmp_path: Path) -> ScanSection:
    """A time series' reference (x, y, z, 1) in LPI with all masks, and its cube."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij"))
    radius = np.linalg.norm(grid, axis=0)
    dseg = np.where(radius < 0.4, 3, np.where(radius < 0.7, 2, np.where(radius < 1, 1, 0))).astype(np.uint8)
    reference = save(tmp_path / "ref.nii.gz", (100 * (dseg + grid[0] + 2)).astype(np.float32)[..., None])
    masks = {
        tissue: save(tmp_path / f"{tissue}.nii.gz", (dseg == i).astype(np.float32)[..., None])
        for i, tissue in enumerate(figures.TISSUES, start=1)
    }
    masks |= {
        "dseg": save(tmp_path / "dseg.nii.gz", dseg),
        "brain": save(tmp_path / "b.nii.gz", (dseg > 0) * 1.0),
    }
    cube = save(tmp_path / "cube.nii.gz", np.linspace(-1, 1, 11**3, dtype=np.float32).reshape(11, 11, 11))
    return ScanSection("sub-01_bold", reference, cube, masks, {"Grid": {"Size": [64, 64, 64], "None": None}})


@pytest.fixture
def model(tmp_path: Path, scan: ScanSection) -> ModelSection:
    losses = tmp_path / "losses.tsv"
    names = ["step", "generator_loss", "discriminator_loss", "generator_mse", "code_discriminator_loss"]
    rows = [[str(10 * i), str(5.0 - i), str(-1.0 * i), "0.5", "nan"] for i in range(1, 7)]
    losses.write_text("\n".join("\t".join(row) for row in [names, *rows]) + "\n")
    samples = [tmp_path / f"step-{step:06d}.npy" for step in (10, 60)]
    for path in samples:
        np.save(path, np.full((4, 3, 8, 8), 90, np.uint8), allow_pickle=False)
    return ModelSection(
        name="sigmarat2",
        label="SigmaRat2",
        examples=[scan.reference],
        example_dsegs=[scan.masks["dseg"]],
        losses=losses,
        samples=samples,
        n_accepted=6,
        n_rejected=2,
        settings={"iterations": 60},
    )


def gate_section(reasons: list[str], scan: ScanSection) -> GateSection:
    """Two real scans that fail for `reasons`, two that pass, and two draws, one of which is too small."""
    small = "volume of the brain mask is low: 1.2 mL, at least 1.5 in real scans"
    limits = gate.thresholds([{"brain_volume": 2.0, "entropy": 0.5}], 3)
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
        Failure("Real: sub-01", reasons, scan.reference, scan.masks),
        Failure("SigmaRat2: synth0001", [small], scan.reference),
    ]
    return GateSection({"real": "Real", "sigmarat2": "SigmaRat2"}, rows, limits, failures)


def metrics_section(**changes: Any) -> MetricsSection:
    return MetricsSection(metrics(), {"sigmarat2": "SigmaRat2", "adni": "ADNI"}, **changes)


def metrics() -> list[dict]:
    rows = []
    for metric, direction, values in (
        ("MS-SSIM", "closer to real", (0.8, 0.7, 0.95)),
        ("NCC", "higher", (0.9, 0.5, 0.6)),
        ("MAE", "lower", (0.01, 0.02, 0.03)),
    ):
        for name, value in zip(("real", "sigmarat2", "adni"), values, strict=True):
            interval = {"value": value, "low": value - 0.012, "high": value + 0.012}
            against = "itself" if metric == "MS-SSIM" else "held-out"
            told = {"n": 9, "unit": "1", "against": against, "direction": direction}
            rows.append({"model": name, "metric": metric, **interval, **told})
    return rows


def test_participant_report_is_complete_and_self_contained(tmp_path: Path, scan: ScanSection) -> None:
    failed = ScanSection("sub-01_T2w", error="sub-01_T2w.nii.gz: 3 voxels are NaN")
    bare = ScanSection("sub-01_run-2_bold", scan.reference, scan.preproc, notes=["No template was given"])
    methods = participant_methods(grid=64, intensity_percentile=99.5, masks=MASKS, versions=VERSIONS)
    path = tmp_path / "sub-01.html"
    write_participant_report(path, "01", [scan, failed, bare], {"Command": "bids-alphagan a b"}, methods)
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
    assert (
        len(page.sources) == 6
    )  # four of the whole scan; the planes and histograms of the one without masks
    assert "https://doi.org/10.3390/app12104844" in page.links
    assert path.stat().st_size < 2e6


def test_measures_are_given_with_unit_and_description(tmp_path: Path, scan: ScanSection) -> None:
    measured = replace(scan, measures={"brain_volume": 2.125, "entropy": 0.5})
    write_participant_report(tmp_path / "p.html", "01", [measured], {}, "text")
    words = " ".join(read(tmp_path / "p.html").words.split())
    assert "brain_volume 2.125 mL volume of the brain mask" in words
    assert "entropy 0.5 bits mean entropy of the tissue probabilities" in words


def test_the_gate_s_section_has_rates_reasons_limits_and_pictures(
    tmp_path: Path, scan: ScanSection, model: ModelSection
) -> None:
    section = gate_section(["mean entropy of the tissue probabilities is high: 2 bits"], scan)
    write_group_report(tmp_path / "g.html", [], [], [model], [], {}, "text", gate_section=section)
    page = read(tmp_path / "g.html")
    words = " ".join(page.words.split())
    assert "Real 4 2 50 % SigmaRat2 2 1 50 %" in words
    assert "sub-01_bold This real scan fails, and the models learnt from it. mean entropy" in words
    assert (
        "sub-03_bold This real scan fails, and the synthetic scans are compared with it: it was held" in words
    )
    assert "volume of the brain mask is low 1 " in words
    assert "at least 1.5 in real scans" in words
    assert "brain_volume volume of the brain mask, in mL 1.482 2 2.7 the least spread" in words
    pictures = [alt for alt in page.alts if alt and ("rejected" in alt or "with the limits" in alt)]
    assert len(pictures) == 3
    with_masks, without = (picture(image) for _, image in view(section)["failures"])
    assert with_masks.shape[0] > 1.9 * without.shape[0]  # once more, below, with its masks


def test_tissue_volumes_are_in_cubic_millimetres(tmp_path: Path, scan: ScanSection) -> None:
    dseg = np.asarray(nib.load(scan.masks["dseg"]).dataobj)
    save(scan.masks["WM"], (dseg == 2).astype(np.float32) * 0.25)  # a quarter of each voxel is WM
    write_participant_report(tmp_path / "r.html", "01", [scan], {}, "text")
    assert f"{(dseg == 2).sum() * 0.5 * 0.4 * 1.0 * 0.25:.4g} mm³" in read(tmp_path / "r.html").words


def test_names_from_data_are_escaped(tmp_path: Path, scan: ScanSection, model: ModelSection) -> None:
    evil = replace(
        scan,
        title=EVIL,
        measures={EVIL: 1.0},
        parameters={EVIL: [EVIL, {EVIL: EVIL}]},
        notes=[EVIL],
        error=EVIL,
    )
    write_participant_report(tmp_path / "p.html", EVIL, [evil], {EVIL: EVIL}, EVIL)
    named = replace(model, name=EVIL, label=EVIL, settings={EVIL: EVIL})
    evil_metrics = MetricsSection(
        [{**row, "metric": EVIL, "unit": EVIL} for row in metrics()], {"sigmarat2": EVIL}, {EVIL: EVIL}
    )
    told = gate_section([EVIL], scan)
    told = replace(told, sources={"real": EVIL, "sigmarat2": EVIL}, rows=[{**told.rows[0], "scan": EVIL}])
    write_group_report(
        tmp_path / "g.html", [], [], [named], evil_metrics, {EVIL: EVIL}, EVIL, [EVIL], gate_section=told
    )
    for name in ("p.html", "g.html"):
        assert EVIL not in (tmp_path / name).read_text()
        assert EVIL in read(tmp_path / name).words


def test_reports_are_the_same_bytes_each_time(tmp_path: Path, scan: ScanSection, model: ModelSection) -> None:
    scan = replace(scan, masks={})
    for name in ("a", "b"):
        write_participant_report(tmp_path / f"p{name}.html", "01", [scan], {}, "text")
        write_group_report(tmp_path / f"g{name}.html", [], [], [model], metrics_section(), {}, "text", [])
    assert (tmp_path / "pa.html").read_bytes() == (tmp_path / "pb.html").read_bytes()
    assert (tmp_path / "ga.html").read_bytes() == (tmp_path / "gb.html").read_bytes()


def test_group_report_is_complete_and_self_contained(
    tmp_path: Path, scan: ScanSection, model: ModelSection
) -> None:
    other = replace(model, name="adni", label="ADNI", example_dsegs=[None], losses=None, samples=())
    path = tmp_path / "group.html"
    write_group_report(
        path,
        [scan.reference],
        [scan.masks["dseg"]],
        [model, other],
        metrics_section(descriptions={"NCC": "Pearson's correlation"}),
        {"seed": 3},
        "text doi:10.1038/sdata.2016.44.",
        ["Few animals"],
        n_real=1,
    )
    page = read(path)
    for words in (
        "12 synthetic scans from 1 real one",
        "Few animals",
        "75 %",
        "Pearson's correlation",
    ):
        assert words in page.words
    # Scans of three sets, these to scroll through in three planes, masks of two, the metrics, the loss curves
    # and the samples through training of one model.
    assert len(page.sources) == 3 + 9 + 2 + 1 + 2
    assert "The same latents through training" in page.words
    assert page.links[-1] == "https://doi.org/10.1038/sdata.2016.44"
    assert path.stat().st_size < 2e6


def stars(path: Path, model: ModelSection, rows: list[dict]) -> list[str]:
    """The values with a star, from the top."""
    write_group_report(path, [], [], [model], replace(metrics_section(), rows=rows), {}, "text", [])
    return re.findall(r'<td class="value best">\s*<span class="figure">([^<]+)', path.read_text())


def test_metrics_table_marks_the_best_model_by_direction(tmp_path: Path, model: ModelSection) -> None:
    rows = metrics()
    for row in rows[:3]:
        row["value"] -= 0.15 if row["model"] == "adni" else 0  # as alike as real ones
    rows[-1] |= {"value": None, "low": None, "high": None, "n": 0}
    # MS-SSIM nearest to 0.8 is 0.800 of ADNI; NCC nearest to 0.9; one MAE alone is no contest
    assert stars(tmp_path / "g.html", model, rows) == ["0.800", "0.600"]
    words = " ".join(read(tmp_path / "g.html").words.split())
    assert "n/a" in words
    assert "→ closer to real" in words
    assert "↑ higher" in words
    assert "↓ lower" in words
    assert "0.800 0.788 to 0.812 9 pairs" in words
    assert "animals that no model has seen" in words


def test_no_star_beyond_what_real_animals_reach(tmp_path: Path, model: ModelSection) -> None:
    """One scan over and over: nearer to other animals than these to each other, and all the same."""
    far = {"NCC": (0.92, 0.7), "MAE": (0.005, 0.02)}  # metric: of the collapsed model, of the sound one
    rows = [row | {"direction": "lower" if row["metric"] == "MAE" else row["direction"]} for row in metrics()]
    for row in rows:
        if row["metric"] in far and row["model"] != "real":
            row["value"] = far[row["metric"]][row["model"] == "adni"]
    rows = [row | {"high": row["value"] + 0.001, "low": row["value"] - 0.001} for row in rows]
    for row in rows[:3]:
        row["value"] = {"real": 0.8, "sigmarat2": 0.79, "adni": 0.7}[row["model"]]
    assert stars(tmp_path / "g.html", model, rows) == ["0.7900", "0.7000", "0.0200"]
    text = (tmp_path / "g.html").read_text()
    assert text.count("beyond real</small>") == 2
    inside = [row | {"high": 1.0, "low": 0.0} if row["model"] == "real" else row for row in rows]
    assert stars(tmp_path / "g.html", model, inside)[1:] == ["0.9200", "0.0050"]  # it may be chance
    assert "beyond real</small>" not in (tmp_path / "g.html").read_text()


def test_no_star_for_a_model_whose_scans_are_too_alike(tmp_path: Path, model: ModelSection) -> None:
    rows = metrics()  # the second model's MS-SSIM is 0.95, and 0.8 in real scans
    assert stars(tmp_path / "g.html", model, rows) == ["0.700", "0.500", "0.020"]
    assert "too alike</small>" in (tmp_path / "g.html").read_text()


def test_the_metrics_section_tells_what_limits_it(tmp_path: Path, model: ModelSection) -> None:
    told = metrics_section(notes=["With only 2 animals"])
    write_group_report(tmp_path / "g.html", [], [], [model], told, {}, "text", [])
    assert "Note With only 2 animals" in " ".join(read(tmp_path / "g.html").words.split())


def test_the_papers_table_is_shown_where_there_is_one(tmp_path: Path, model: ModelSection) -> None:
    rows = [{"model": name, "NCC": f"{value} ± 0.01"} for name, value in (("real", 0.9), ("adni", 0.6))]
    path = tmp_path / "g.html"
    write_group_report(path, [], [], [model], metrics_section(table2=rows), {}, "text", [])
    words = " ".join(read(path).words.split())
    assert "Table 2 has it Scans NCC Real 0.9 ± 0.01 ADNI 0.6 ± 0.01 Mean" in words
    write_group_report(path, [], [], [model], metrics_section(), {}, "text", [])
    assert "Table 2" not in path.read_text()


def test_scans_are_shown_in_ras(tmp_path: Path) -> None:
    data = np.zeros(SHAPE, np.float32)
    data[0, 0, 0] = 1  # x to the left, y to posterior: this voxel is the rightmost, foremost, lowest one
    scan = figures.load(save(tmp_path / "a.nii.gz", data[..., None]))
    assert scan.data.shape == SHAPE
    assert np.argwhere(scan.data).tolist() == [[6, 7, 0]]
    rotated = np.array([[0, 0, 0.9, 0], [0.4, 0, 0, 0], [0, 0.7, 0, 0], [0, 0, 0, 1]])
    turned = figures.load(
        save(tmp_path / "b.nii.gz", np.arange(504, dtype=np.float32).reshape(SHAPE), rotated)
    )
    assert turned.data.shape == (9, 7, 8)
    assert turned.zooms == pytest.approx((0.9, 0.4, 0.7))


@pytest.mark.parametrize(
    ("plane", "shape", "extent"),
    [("axial", (8, 7), (3.5, 3.2)), ("coronal", (9, 7), (3.5, 9.0)), ("sagittal", (9, 8), (3.2, 9.0))],
)
def test_slices_keep_their_axes_and_millimetres(plane: str, shape: tuple, extent: tuple) -> None:
    data = np.arange(504, dtype=np.float32).reshape(SHAPE)
    panel = figures.Panel(figures.Scan(data, ZOOMS), plane, 2, {})
    cut = figures._slice(data, panel)
    assert cut.shape == shape
    place = [0, 0, 0]
    place[figures.PLANES[plane].cut] = 2
    place[figures.PLANES[plane].up] = 3
    place[figures.PLANES[plane].across] = 5
    assert cut[3, 5] == data[tuple(place)]
    assert figures._extent(panel) == pytest.approx(extent)


def test_pictures_keep_the_proportions_and_show_the_masks() -> None:
    scan = figures.Scan(np.random.default_rng(0).random(SHAPE, dtype=np.float32), (1.0, 1.0, 0.5))
    at = np.array([3, 4, 4])
    plain = picture(figures.three_planes(scan, {}, at))
    widths, height, gap = (7, 7, 8), 8, 0.02 * 22
    assert plain.shape[1] / plain.shape[0] == pytest.approx((sum(widths) + 2 * gap) / height, rel=0.02)
    mask = np.zeros(SHAPE, np.float32)
    mask[2:5, 3:6, 3:6] = 1
    masked = picture(figures.three_planes(scan, {"CSF": mask}, at))
    blue = (masked[..., 2].astype(int) - masked[..., 0] > 60).mean(axis=0)
    assert (blue > 0).any()
    assert not (plain[..., 2].astype(int) - plain[..., 0] > 60).any()


def test_outlines_run_along_the_voxels_edges() -> None:
    inside = np.zeros((3, 4), bool)
    inside[2, 1] = True  # third row, second column, at the border
    edges = {frozenset(map(tuple, edge)) for edge in figures.outline(inside).tolist()}
    corners = [(1, 2), (2, 2), (2, 3), (1, 3)]
    assert edges == {frozenset(pair) for pair in zip(corners, corners[1:] + corners[:1], strict=True)}
    assert figures.outline(np.zeros((3, 4), bool)).shape == (0, 2, 2)


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


def test_grey_scale_is_not_spoilt_by_a_few_voxels() -> None:
    data = np.random.default_rng(0).random((20, 21, 22), dtype=np.float32)
    data[0, 0, :3] = 1e6
    low, high = figures.window(data)
    assert 0 <= low < 0.05
    assert 0.9 < high <= 1
    assert figures.window(np.full(SHAPE, 3.0))[1] > 3


def test_generator_and_discriminator_lead_the_loss_curves() -> None:
    assert charts.leading("generator_loss")
    assert charts.leading("discriminator_loss")
    assert not charts.leading("code_discriminator_loss")
    assert not charts.leading("generator_mse")


def test_the_methods_cite_what_was_used_and_nothing_else() -> None:
    text = participant_methods(grid=32, intensity_percentile=100, masks=None, versions=VERSIONS)
    assert "ANTsX" not in text
    assert "Unified segmentation" not in text
    assert "32×32×32" in text
    ants = participant_methods(grid=64, intensity_percentile=99.5, masks=MASKS, versions=VERSIONS)
    assert "doi:10.1038/s41598-021-87564-6" in ants
    assert "A phantom" in ants
    spm_facts = replace(MASKS, segmenter="SPM12", version="7771", template_citation="", templateflow=True)
    spm = participant_methods(grid=64, intensity_percentile=99.5, masks=spm_facts, versions=VERSIONS)
    assert "doi:10.1016/j.neuroimage.2005.02.018" in spm
    assert "doi:10.1038/s41592-022-01681-2" in spm
    assert "ANTsX" in spm  # it brings the template's maps to the scan


@pytest.mark.parametrize("chosen_from", [None, (100, 1600)])
@pytest.mark.parametrize("name", MODELS)
def test_the_methods_describe_every_model(name: str, chosen_from: tuple[int, int] | None) -> None:
    spec = MODELS[name]
    decay = 0.999 if chosen_from else 0.0
    facts = ModelFacts(
        spec,
        64,
        spec.latent,
        200,
        chosen_from,
        4,
        2e-4,
        (0.9, 0.999),
        decay,
        gate_width=5,
        n_accepted=8,
        n_rejected=3,
    )
    text = group_methods(
        n_scans=24,
        n_animals=1,
        grid=64,
        models=[facts],
        masks=MASKS,
        compared=ComparisonFacts(held_out=6, pairs_per_scan=100, msssim_pairs_per_scan=10),
        seed=7,
        versions=VERSIONS,
    )
    assert f"{spec.title} [" in text
    assert "24 scans of 1 animal in" in text
    assert "8 of 11" in text
    assert ("checkpoints at every 100 iterations of 1600" in text) == (chosen_from is not None)
    assert ("an exponential moving average of the generator's weights" in text) == bool(decay)
    assert "learning rate 0.0002, betas 0.9 and 0.999" in text
    assert "more than 5 robust standard deviations" in text
    assert "100 random pairs per training scan" in text
    assert "Scans of 6 animals, drawn at random and seen by no model" in text
    assert ("doi:10.48550/arXiv.1802.05957" in text) == spec.discriminator.spectral_norm
    assert text.count("doi:10.3390/app12104844") == 1
    cited = {int(n) for group in re.findall(r"\[((?:\d+(?:, )?)+)\]", text) for n in group.split(", ")}
    listed = [int(n) for n in re.findall(r"^(\d+)\. ", text, flags=re.MULTILINE)]
    assert listed == sorted(cited) == list(range(1, len(listed) + 1))


def test_the_methods_tell_of_no_evaluation_that_was_not_made() -> None:
    common = {"n_scans": 2, "n_animals": 2, "grid": 32, "models": [], "masks": None, "seed": 0}
    text = group_methods(**common, compared=None, versions=VERSIONS)
    assert "cross-correlation" not in text
    none_held_out = ComparisonFacts(held_out=0, pairs_per_scan=5, msssim_pairs_per_scan=5)
    text = group_methods(**common, compared=none_held_out, versions=VERSIONS)
    assert "the scans that the models were trained on" in text


def test_citations_are_numbered_by_first_use_and_merged_by_doi() -> None:
    text = compose(["A [@mine]. B [@paper; bids]. C [@mine]."], {"mine": "F., doi:10.3390/app12104844"})
    assert text.startswith("A [1]. B [1, 2]. C [1].\n\nReferences\n1. Ferreira")
    assert "[@" not in text
    with pytest.raises(KeyError):
        compose(["[@unknown]"], {})


def test_every_reference_has_a_year_and_an_identifier() -> None:
    for key, reference in REFERENCES.items():
        assert re.search(r"\(\d{4}\)|Zenodo", reference), key
        assert re.search(r"doi:10\.\d{4,5}/\S+[^.\s]$|Machine Learning Research", reference), key


def test_reports_need_neither_torch_nor_the_pipeline() -> None:
    code = "import sys, bids_alphagan.report, bids_alphagan.report.methods; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "nipype", "bids", "ants", "bids_alphagan.evaluation.pairs.compare"} & set(loaded)


@pytest.mark.skipif(PROGRAM is None, reason="needs the browser chromium")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_whole_page(
    tmp_path: Path, scan: ScanSection, model: ModelSection, width: int
) -> None:
    """In headless Chromium: no script error, every picture decoded, no page too wide, no chart tiny."""
    probe = """<script>
    var failures = []; addEventListener("error", function (e) { failures.push(e.message); });
    addEventListener("load", function () {
      var shown = Array.from(document.images).filter(function (i) { return i.naturalWidth > 0; }).length;
      var charts = Array.from(document.querySelectorAll("figure:not(.scan) img"));
      var tiny = charts.filter(function (i) { return i.clientWidth < 640; }).length;
      document.title = [failures.length, document.images.length - shown,
        document.documentElement.scrollWidth > innerWidth, tiny].join(" ");
    });</script>"""
    pages = [tmp_path / "p.html", tmp_path / "g.html"]
    long = replace(scan, title="sub-01_ses-02_acq-" + "verylong" * 12 + "_bold")
    write_participant_report(pages[0], "01", [long], {"Command": "x" * 300}, "text")
    judged = gate_section(["a reason of many words " * 9], scan)
    write_group_report(
        pages[1], [scan.reference], [None], [model], metrics_section(), {}, "text", [], gate_section=judged
    )
    for page in pages:
        page.write_text(page.read_text().replace("<head>", "<head>" + probe))
        assert "<title>0 0 false 0</title>" in dom(page, tmp_path / "profile", width)
