"""Synthesis: draws and rejections, interruptions, and what an earlier call left."""

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import tiny

from bids_alphagan.bids.prepared import prepared_scans
from bids_alphagan.bids.selection import Selection
from bids_alphagan.cli import main as cli
from bids_alphagan.common import logs
from bids_alphagan.common.errors import ScanError, UserError
from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.qc import rejected
from bids_alphagan.qc.limits import Limit
from bids_alphagan.synthesis import cohort as synthesis

MEASURES = {"brain_volume": 1.0}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two prepared animals of a few voxels."""
    data = tiny.dataset(tmp_path / "data")
    for label in ("01", "02"):
        tiny.scan(data / f"sub-{label}" / "anat" / f"sub-{label}_T2w.nii.gz", tiny.values(int(label)))
    words = ["participant", "--grid", "16", "--segmenter", "none", "--skip-bids-validation", "--nprocs", "1"]
    assert cli.main([str(data), str(tmp_path / "out"), *words]) == 0
    return tmp_path / "out"


class Masks:
    """A segmenter that fails on the first scans (`refuse`); how many it saw is in `calls`."""

    def __init__(self, refuse: int = 0) -> None:
        self.refuse, self.calls = refuse, 0

    def __call__(self, scan: Path, folder: Path) -> SimpleNamespace:
        self.calls += 1
        if self.calls <= self.refuse:
            raise ScanError("no brain in it")
        shape = nib.load(scan).shape
        half = np.full(shape, 0.5, np.float32)
        brain = np.ones(shape, bool)
        probseg = {"GM": half, "WM": half / 2, "CSF": half / 2}
        return SimpleNamespace(
            probseg=probseg, dseg=brain.astype(np.uint8), brain=brain, provenance={}, measures=MEASURES
        )


def cohort(out: Path, segment: Masks | None, keep_rejected: bool = False) -> synthesis.Cohort:
    scans = tuple(prepared_scans(out.parent / "data", out, Selection(), 16))
    folder = out / "derivatives" / "sigmarat2"
    aside = out / "models" / "sigmarat2" / "rejected"
    return synthesis.Cohort(
        folder, out, scans, 3, {"Model": "sigmarat2"}, segment, "fake", {}, aside, keep_rejected
    )


def generate(seeds: Sequence[int]) -> np.ndarray:
    return np.stack([np.random.default_rng(seed).uniform(-1, 1, (1, 16, 16, 16)) for seed in seeds])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name[0] in ".s")


def scans(folder: Path) -> list[bytes]:
    return [
        nib.load(path).dataobj.get_unscaled().tobytes() for path in sorted(folder.glob("sub-*/*/*T2w.nii.gz"))
    ]


def test_rejected_draws_are_counted_and_drawn_again(out: Path) -> None:
    made = cohort(out, Masks(refuse=2))
    record = synthesis.synthesise(made, 2, 5, generate, out, 1)
    assert (record["n_accepted"], record["n_rejected"], record["given_up"]) == (2, 2, [])
    assert record["reasons"] == {"no masks": 2}
    rows = read_tsv(made.folder / "participants.tsv")
    assert [row["draws"] for row in rows] == ["2", "2"]
    assert {int(row["seed"]) for row in rows} == {made.draw_seed(1, 1), made.draw_seed(2, 1)}
    assert [(row["scan"], row["draw"], row["passed"]) for row in record["draws"]] == [
        (f"synth000{scan}", draw, draw == 2) for scan in (1, 2) for draw in (1, 2)
    ]
    control = read_json(next(made.folder.glob("sub-synth0001/anat/*_T2w.json")))["QualityControl"]
    assert [one["seed"] for one in control["Rejections"]] == [made.draw_seed(1, 0)]


def test_scans_without_an_acceptable_draw_are_given_up(out: Path) -> None:
    made = cohort(out, Masks(refuse=5))
    record = synthesis.synthesise(made, 2, 3, generate, out, 1)
    assert record["given_up"] == ["sub-synth0001"]
    assert names(made.folder) == ["sub-synth0002"]


def test_a_hopeless_cohort_leaves_the_former_one_and_examples_of_what_was_wrong(out: Path) -> None:
    synthesis.synthesise(cohort(out, None), 1, 1, generate, out, 1)
    before = tiny.snapshot(out / "derivatives")
    hopeless = cohort(out, Masks(refuse=99))
    with pytest.raises(UserError, match=r"none of 4 draws of sigmarat2 passed .*no masks \(4\)"):
        synthesis.synthesise(hopeless, 2, 2, generate, out, 1)
    assert tiny.snapshot(out / "derivatives") == before
    assert [path.name for path in hopeless.rejected.iterdir()] == ["synth0001_draw-01"]
    assert [path.name for path in hopeless.rejected.parent.iterdir()] == ["rejected"]


@pytest.mark.parametrize("wanted", [3, 1])
def test_interrupted_and_resumed_is_what_was_asked_for(out: Path, wanted: int) -> None:
    synthesis.synthesise(cohort(out, None), wanted, 1, generate, out, 1)
    whole = scans(out / "derivatives" / "sigmarat2")

    class Stopped(Masks):
        def __call__(self, scan: Path, folder: Path) -> SimpleNamespace:
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().__call__(scan, folder)

    made = cohort(out, Stopped())
    with pytest.raises(KeyboardInterrupt):
        synthesis.synthesise(made, 3, 1, generate, out, 1)
    assert names(made.staging) == [".draw-0003", ".settings.json", "sub-synth0001", "sub-synth0002"]
    synthesis.synthesise(cohort(out, Masks()), wanted, 1, generate, out, 1)
    assert names(made.folder) == [f"sub-synth000{n}" for n in range(1, wanted + 1)]
    assert scans(made.folder) == whole
    assert len(read_tsv(made.folder / "participants.tsv")) == wanted


class Talking(Masks):
    """A segmenter that logs, in whatever process it works."""

    def __call__(self, scan: Path, folder: Path) -> SimpleNamespace:
        of_draw = folder.parent.name
        logging.getLogger("bids_alphagan.segmenters.spm").debug("SPM said: %s in %d", of_draw, os.getpid())
        return super().__call__(scan, folder)


def test_what_workers_say_is_in_the_log(out: Path, tmp_path: Path) -> None:
    logs.file_log(tmp_path / "group.log")
    try:
        record = synthesis.synthesise(cohort(out, Talking()), 2, 1, generate, out, 2)
    finally:
        logs.close_logs()
    assert record["n_accepted"] == 2
    written = (tmp_path / "group.log").read_text()
    assert [written.count(f"SPM said: .draw-000{n} in") for n in (1, 2)] == [1, 1]
    assert f"in {os.getpid()}\n" not in written


def with_tissues(seeds: Sequence[int]) -> np.ndarray:
    """A scan in noise, and maps of the three tissues in slabs along the first axis; at its end is none."""
    samples = np.full((len(seeds), 4, 16, 16, 16), -1.0)
    samples[:, 0] = generate(seeds)[:, 0]
    for channel, part in enumerate((slice(0, 6), slice(6, 8), slice(8, 10)), start=1):
        samples[:, channel, part] = 1.0
    return samples


def test_tissues_that_are_drawn_with_a_scan_are_its_masks(out: Path) -> None:
    made = replace(cohort(out, None), channels=("scan", "GM", "WM", "CSF"))
    record = synthesis.synthesise(made, 1, 1, with_tissues, out, 1)
    assert (record["n_accepted"], record["draws"]) == (1, [])  # nothing was judged
    (folder,) = made.folder.glob("sub-synth0001/anat")
    scan = nib.load(next(folder.glob("*_T2w.nii.gz")))
    maps = [
        np.asarray(nib.load(next(folder.glob(f"*{t}*probseg.nii.gz"))).dataobj) for t in ("GM", "WM", "CSF")
    ]
    dseg = np.asarray(nib.load(next(folder.glob("*_dseg.nii.gz"))).dataobj)
    assert dseg.shape == scan.shape == tiny.SHAPE
    # Seven voxels lie in the middle of the grid's sixteen: from 4 on.
    assert dseg[:, 0, 0].tolist() == [1, 1, 2, 2, 3, 3, 0]
    for label, probabilities in enumerate(maps, start=1):
        np.testing.assert_array_equal(probabilities, dseg == label)
    brain = np.asarray(nib.load(next(folder.glob("*desc-brain*mask.nii.gz"))).dataobj)
    np.testing.assert_array_equal(brain, dseg > 0)


class Judged(Masks):
    """A segmenter whose measures follow from the scan alone; it may be interrupted at a call."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.stop_at = stop_at

    def __call__(self, scan: Path, folder: Path) -> SimpleNamespace:
        if self.calls + 1 == self.stop_at:
            raise KeyboardInterrupt
        made = super().__call__(scan, folder)
        mean = float(np.mean(np.asarray(nib.load(scan).dataobj)))
        made.measures = {"brain_volume": mean, "entropy": mean % 10}
        return made


def judged(out: Path, segment: Masks, keep_rejected: bool) -> synthesis.Cohort:
    """A cohort whose limits about half of the draws pass, some too small, some with too much entropy."""
    limits = {
        "brain_volume": Limit("brain_volume", 1490.0, None, 1500.0, 0.01, "user"),
        "entropy": Limit("entropy", None, 6.0, 3.0, 1.0, "user"),
    }
    return replace(cohort(out, segment, keep_rejected), limits=limits)


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_all_rejected_draws_are_kept_with_masks_and_reasons_where_that_is_asked_for(out: Path) -> None:
    made = judged(out, Judged(), keep_rejected=True)
    record = synthesis.synthesise(made, 6, 20, generate, out, 1)
    refused = [row for row in record["draws"] if not row["passed"]]
    assert len(refused) == record["n_rejected"] > 6
    names = {f"{row['scan']}_draw-{row['draw']:02d}": row for row in refused}
    assert {path.name for path in made.rejected.iterdir()} == set(names)
    for one in rejected.kept(made.rejected):
        row = names[one.folder.name]
        assert (one.rejection.seed, one.rejection.reasons) == (row["seed"], row["reasons"])
        assert one.rejection.measures == row["measures"]
        assert set(one.masks) == {"GM", "WM", "CSF", "dseg", "brain"}
        assert nib.load(one.masks["dseg"]).shape == nib.load(one.scan).shape[:3]
    synthesis.synthesise(judged(out, Judged(), keep_rejected=False), 6, 20, generate, out, 1)
    shown = rejected.kept(made.rejected)
    assert [one.kind for one in shown] == list(dict.fromkeys(one.kind for one in shown))
    first = sorted(refused, key=lambda row: (row["draw"], row["scan"]))[0]
    assert (shown[0].rejection.seed, len(shown)) == (first["seed"], 2)


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_kept_does_not_depend_on_interruptions(out: Path, keep: bool) -> None:
    made = judged(out, Judged(), keep)
    record = synthesis.synthesise(made, 6, 20, generate, out, 1)
    whole = content(made.rejected), content(made.folder)
    shutil.rmtree(made.rejected)
    shutil.rmtree(made.folder)
    for stop_at in (4, 9):
        with pytest.raises(KeyboardInterrupt):
            synthesis.synthesise(judged(out, Judged(stop_at), keep), 6, 20, generate, out, 1)
    assert not made.rejected.exists()
    assert synthesis.synthesise(judged(out, Judged(), keep), 6, 20, generate, out, 1) == record
    assert (content(made.rejected), content(made.folder)) == whole
    assert [path.name for path in made.rejected.parent.iterdir()] == ["rejected"]
