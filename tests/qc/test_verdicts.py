"""Which scans pass quality control: the table, the log and the report's examples, by the app itself."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import tiny

from bids_alphagan.bids.selection import Selection
from bids_alphagan.bids.split import Split
from bids_alphagan.bids.study import Study
from bids_alphagan.cli import main as cli
from bids_alphagan.common.files import read_json, read_tsv, write_json
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.qc.section import qc_section
from bids_alphagan.qc.verdicts import QualityControl, read_table
from bids_alphagan.segmenters import SEGMENTERS
from bids_alphagan.segmenters.base import TISSUES, Segmentation
from bids_alphagan.segmenters.options import MaskOptions
from bids_alphagan.templates import Template

WIDTH = 5.0  # the default of --qc-width

VALUES = {name: 0.5 + 0.01 * place for place, name in enumerate(MEASURES)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Nine prepared animals with masks that were measured; the last one's brain is tiny."""
    data = tiny.dataset(tmp_path / "data")
    labels = [f"{number:02d}" for number in range(1, 10)]
    for label in labels:
        tiny.scan(data / f"sub-{label}" / "anat" / f"sub-{label}_T2w.nii.gz", tiny.values(int(label)))
    words = ["participant", "--grid", "16", "--segmenter", "none", "--skip-bids-validation", "--nprocs", "1"]
    out = tmp_path / "out"
    assert cli.main([str(data), str(out), *words]) == 0
    for label in labels:
        measures = VALUES | {"brain_volume": 0.05 if label == "09" else 2.0, "csf_fraction": 0.1 * int(label)}
        dseg = out / f"sub-{label}" / "anat" / f"sub-{label}_dseg.nii.gz"
        tiny.scan(dseg, tiny.values())
        write_json(dseg.with_name(f"sub-{label}_dseg.json"), {"Quality": measures, "Segmentation": {}})
    return out


@pytest.fixture
def study(out: Path) -> Study:
    """No animal is held out."""
    return Study.open(out.parent / "data", out, out / ".work", Selection(), 0.0, grid=16)


def test_real_scans_are_judged_by_their_own_limits(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    other = replace(study, split=Split(study.scans[:8], study.scans[8:]))
    with caplog.at_level(logging.INFO, logger="bids_alphagan"):
        logging.getLogger("bids_alphagan").addHandler(caplog.handler)
        quality, held_out = QualityControl.of(study, WIDTH), QualityControl.of(other, WIDTH)
        quality.log_real()
        held_out.log_real()
        logging.getLogger("bids_alphagan").removeHandler(caplog.handler)
    fails = "sub-09_T2w fails quality control, but the models are still"
    assert [row["verdict"] for row in quality.real] == ["pass"] * 8 + ["fail"]
    assert "8 of 9 real scans pass" in caplog.text
    assert f"{fails} trained on it: volume of" in caplog.text
    assert (held_out.real[-1]["split"], held_out.real[-1]["verdict"]) == ("held-out", "fail")
    assert f"{fails} compared with it: volume of" in caplog.text


def test_the_table_has_real_scans_and_draws_with_the_limits_of_each(study: Study) -> None:
    out, quality = study.output_dir, QualityControl.of(study, WIDTH)
    draws = [
        {
            "scan": "synth0001",
            "draw": 1,
            "seed": 5,
            "passed": False,
            "reasons": ["no\tmasks: a;\nb"],
            "measures": {},
        },
        {"scan": "synth0001", "draw": 2, "seed": 6, "passed": True, "reasons": [], "measures": VALUES},
    ]
    drawn_by = {"entropy": {"Low": None, "High": 9.0}}
    quality.write_table({"sigmarat2": {"draws": draws, "limits": drawn_by}})
    rows, described = read_tsv(out / "group_quality.tsv"), read_json(out / "group_quality.json")
    assert list(rows[0]) == list(described)
    assert [row["source"] for row in rows] == ["real"] * 9 + ["sigmarat2"] * 2
    assert [row["verdict"] for row in rows[-3:]] == ["fail", "fail", "pass"]
    assert (rows[-2]["reasons"], rows[-2]["entropy"]) == ("no masks: a, b", "n/a")
    assert (rows[0]["draw"], rows[-1]["draw"], rows[-1]["seed"]) == ("n/a", "2", "6")
    assert described["entropy"]["Limits"]["sigmarat2"] == drawn_by["entropy"]
    assert described["entropy"]["Limits"]["real"]["High"] == quality.limits["entropy"].high
    assert described["brain_volume"]["Units"] == "mL"
    typed = read_table(out)
    assert (typed[-2]["reasons"], typed[-1]["reasons"]) == (["no masks: a, b"], [])
    assert (typed[-1]["entropy"], typed[-2]["entropy"]) == (VALUES["entropy"], None)


def test_a_table_of_other_scans_does_not_stay(study: Study) -> None:
    QualityControl.of(study, WIDTH).write_table({})
    assert (study.output_dir / "group_quality.tsv").is_file()
    without_masks = [replace(scan, quality={}) for scan in study.scans]
    QualityControl.of(replace(study, split=Split(without_masks, [])), WIDTH).write_table({})
    assert not list(study.output_dir.glob("group_quality*"))
    assert read_table(study.output_dir) == []


def test_limits_of_a_file_replace_those_of_the_real_scans(study: Study, tmp_path: Path) -> None:
    (tmp_path / "limits.toml").write_text("brain_volume = [0.01, 9]\n")
    rows = QualityControl.of(study, WIDTH, tmp_path / "limits.toml").real
    assert {row["verdict"] for row in rows} == {"pass"}


def test_unusable_limits_end_the_call_before_anything_is_written(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "limits.json").write_text('{"entropi": null}')
    before = tiny.snapshot(out)
    words = ["group", "--grid", "16", "--segmenter", "none", "--qc-limits", str(tmp_path / "limits.json")]
    assert cli.main([str(tmp_path / "data"), str(out), *words]) == 2
    assert "unknown measure 'entropi'. Known measures: brain_volume" in capsys.readouterr().err
    assert tiny.snapshot(out) == before


def test_the_report_shows_one_real_scan_for_each_worst_reason(study: Study, tmp_path: Path) -> None:
    (tmp_path / "limits.json").write_text('{"csf_fraction": [0.85, null]}')
    quality = QualityControl.of(study, WIDTH, tmp_path / "limits.json")
    # Eight fail by too little fluid, sub-09 by its volume.
    assert [row["verdict"] for row in quality.real] == ["fail"] * 9
    quality.write_table({})
    (section,) = qc_section(study, quality, [])
    titles = [failure.title for failure, _ in section.view["failures"]]
    assert titles == ["Real: sub-01", "Real: sub-09"]


class Sound:
    """A segmenter that finds half a brain in every draw, and the same measures."""

    name, label, advice, methods = "sound", "sound", "", "by {name}"

    @classmethod
    def missing(cls, options: MaskOptions) -> str:
        return ""

    @classmethod
    def create(cls, template: Template, options: MaskOptions, note: str = "") -> Self:
        return cls()

    def memory_gb(self, voxels: int) -> float:
        return 0.1

    def describe(self) -> dict[str, str]:
        return {"Name": "sound", "Version": "1"}

    def __call__(self, scan: Path, folder: Path) -> Segmentation:
        brain = np.zeros(tiny.SHAPE, bool)
        brain[:4] = True
        maps = {tissue: brain * np.float32(1 / 3) for tissue in TISSUES}
        measures = VALUES | {"brain_volume": 2.0, "csf_fraction": 0.5}
        return Segmentation(maps, brain, brain.astype(np.uint8), {}, measures)


def test_when_every_draw_is_rejected_the_table_says_why(
    out: Path,
    template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The whole group level: the draws are sound, and pass but by limits that nothing can pass."""
    monkeypatch.setitem(SEGMENTERS, "sound", Sound)
    (tmp_path / "limits.json").write_text('{"entropy": [0, 0.001]}')
    group = [str(tmp_path / "data"), str(out), "group", "--grid", "16", "--device", "cpu", "--nprocs", "1"]
    group += ["--iterations", "1", "--batch-size", "2", "--channels", "4"]
    group += ["--n-synthetic", "2", "--max-draws", "3", "--steps", "train", "synthesise"]
    group += ["--segmenter", "sound", "--template", str(template)]

    assert cli.main([*group, "--qc-limits", str(tmp_path / "limits.json")]) == 2
    error = capsys.readouterr().err
    assert "none of 6 draws of sigmarat2 passed quality control: mean entropy" in error
    assert f"{out / 'group_quality.tsv'} has every draw with its reasons." in error
    rows = read_tsv(out / "group_quality.tsv")
    assert [row["source"] for row in rows] == ["real"] * 9 + ["sigmarat2"] * 6
    assert {row["verdict"] for row in rows} == {"fail"}
    assert all("is high: 0.55 bits, at most 0.001 by --qc-limits" in row["reasons"] for row in rows)
    limits = read_json(out / "group_quality.json")["entropy"]["Limits"]
    assert limits["sigmarat2"] == limits["real"]

    # sub-03 and sub-07 are held out: no limit comes from them, whose spread would be 0.2 with them.
    assert {row["scan"][:6] for row in rows if row["split"] == "held-out"} == {"sub-03", "sub-07"}
    assert [row["split"] for row in rows].count("training") == 7
    spread = read_json(out / "group_quality.json")["csf_fraction"]["Limits"]["real"]["RealSD"]
    assert spread == pytest.approx(1.4826 * 0.3)
    assert "only 7 training scans" in error

    assert cli.main(group) == 0
    rows = read_tsv(out / "group_quality.tsv")
    assert [row["verdict"] for row in rows if row["source"] == "sigmarat2"] == ["pass", "pass"]
