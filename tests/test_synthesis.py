"""Synthesis: draws and rejections, interruptions, and what an earlier call left."""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import tiny

from bids_alphagan import cli, logs, synthesis
from bids_alphagan.errors import ScanError, UserError
from bids_alphagan.files import read_json, read_tsv
from bids_alphagan.layout.prepared import prepared_scans

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
    """A segmenter that refuses the scans whose seeds it is told; what it saw is in `calls`."""

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


def cohort(out: Path, segment: Masks | None) -> synthesis.Cohort:
    config = cli.parse(["in", str(out), "group", "--grid", "16"])
    scans = tuple(prepared_scans(config))
    folder = out / "derivatives" / "sigmarat2"
    return synthesis.Cohort(folder, out, scans, 3, {"Model": "sigmarat2"}, segment, "fake", {})


def generate(seeds: Sequence[int]) -> np.ndarray:
    return np.stack([np.random.default_rng(seed).uniform(-1, 1, (16, 16, 16)) for seed in seeds])


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
    control = read_json(next(made.folder.glob("sub-synth0001/anat/*_T2w.json")))["QualityControl"]
    assert [one["seed"] for one in control["Rejections"]] == [made.draw_seed(1, 0)]


def test_scans_without_an_acceptable_draw_are_given_up(out: Path) -> None:
    made = cohort(out, Masks(refuse=5))
    record = synthesis.synthesise(made, 2, 3, generate, out, 1)
    assert record["given_up"] == ["sub-synth0001"]
    assert names(made.folder) == ["sub-synth0002"]


def test_a_hopeless_cohort_leaves_the_former_one_and_nothing_else(out: Path) -> None:
    synthesis.synthesise(cohort(out, None), 1, 1, generate, out, 1)
    before = tiny.snapshot(out)
    hopeless = cohort(out, Masks(refuse=99))
    with pytest.raises(UserError, match=r"none of 4 draws of sigmarat2 passed .*no masks \(4\)"):
        synthesis.synthesise(hopeless, 2, 2, generate, out, 1)
    assert tiny.snapshot(out) == before


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


def _say(word: str) -> str:
    logging.getLogger("bids_alphagan.segmenters.spm").debug("SPM said: %s", word)
    return word


def test_what_workers_say_is_in_the_log(tmp_path: Path) -> None:
    logs.file_log(tmp_path / "group.log")
    try:
        with synthesis._mapper(2) as run:
            assert list(run(_say, ["one", "two"])) == ["one", "two"]
    finally:
        logs.close_logs()
    written = (tmp_path / "group.log").read_text()
    assert [written.count(f"SPM said: {word}\n") for word in ("one", "two")] == [1, 1]
