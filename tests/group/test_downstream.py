"""The step downstream by the app's own command, on a study of a few voxels."""

import json
import os
import shutil
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny
import torch

from bids_alphagan.bids.derivatives import real_uri, write_masks, write_prepared
from bids_alphagan.bids.names import ScanName, sidecar
from bids_alphagan.bids.prepared import subject_scans
from bids_alphagan.cli import main as cli
from bids_alphagan.common.files import read_json, read_tsv, write_json
from bids_alphagan.common.volume import conform, save
from bids_alphagan.evaluation.downstream import experiment
from bids_alphagan.evaluation.downstream.table import Gain
from bids_alphagan.models import load_model
from bids_alphagan.training.cache import prepared
from bids_alphagan.training.configuration import configuration
from bids_alphagan.training.settings import TrainSettings

TABLES = tuple(f"group_{name}.tsv" for name in Gain().columns())
ANIMALS = ("01", "02", "03", "04", "05", "06")
HELD = {"03", "04"}  # as the digests of the labels have it, for a third of them
FAST = [
    *("--downstream-arms", "r1+s0.5", "s1", "r1+s2", "--downstream-steps", "2", "--downstream-seeds", "2"),
    *("--downstream-channels", "2", "2", "--downstream-residual-units", "0", "--device", "cpu"),
]


def head(seed: int) -> tuple[nib.Nifti1Image, dict[str, np.ndarray]]:
    """A scan whose tissues are blocks of their own brightness, and its masks."""
    labels = np.zeros(tiny.SHAPE, np.uint8)
    for tissue in (1, 2, 3):
        labels[1:6, 1:7, 2 * tissue : 2 * tissue + 2] = tissue
    values = 800 * labels.astype(int) + np.random.default_rng(seed).integers(0, 400, tiny.SHAPE)
    maps = {name: labels == k for k, name in enumerate(("GM", "WM", "CSF"), start=1)}
    return nib.Nifti1Image(values.astype(np.float32), tiny.AFFINE), maps | {
        "dseg": labels,
        "brain": labels > 0,
    }


def study(root: Path) -> Path:
    """Six prepared animals with masks, of which sigmarat2 was trained on four, and its cohort of five."""
    tiny.dataset(root / "raw")
    out = root / "out"
    for seed, label in enumerate(ANIMALS):
        image, maps = head(seed)
        name = ScanName((("sub", label),), "T2w")
        tiny.scan(root / "raw" / name.image(), np.asarray(image.dataobj))
        made = conform(image, 16, 100)
        cube = nib.Nifti1Image(made.data, made.affine)
        write_prepared(out, name, image, "bids:raw:x", np.asarray(image.dataobj), cube, made.record, {})
        write_masks(out, name, image, maps, "x", {}, {})
    scans = {label: subject_scans(out, label)[0] for label in ANIMALS}
    learnt = [scan for label, scan in scans.items() if label not in HELD]
    trained(out, [scan.preproc for scan in learnt])
    cohort = out / "derivatives" / "sigmarat2"
    for seed in range(5):
        image, maps = head(100 + seed)
        name = ScanName((("sub", f"synth{seed:04d}"),), "T2w")
        save(image, cohort / name.image())
        write_json(sidecar(cohort / name.image()), {"Sources": [real_uri(out, learnt[0].preproc)]})
        write_masks(cohort, name, image, maps, "x", {}, {}, desc="synthetic")
    origin = {"generator": None, "scans": [f"sub-{label}_T2w" for label in scans if label not in HELD]}
    facts = {"n_accepted": 5, "n_rejected": 0, "step": 3, "gate_width": 5.0, "masks": None}
    stamp = {"fingerprint": "", "record": {**origin, "seed": 0, **facts}}
    write_json(out / "models" / "sigmarat2" / "synthesis.json", stamp)
    return root


def trained(out: Path, preproc: list[Path]) -> None:
    """The training record of sigmarat2, as if it had been trained on these scans."""
    folder = out / "models" / "sigmarat2"
    volumes = prepared(preproc, out / ".work" / "scans")
    write_json(folder / "config.json", configuration(volumes, load_model("sigmarat2"), TrainSettings()))
    (folder / "losses.tsv").write_text("step\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "study")
    return tmp_path / "study"


def app(place: Path, *words: str, steps: tuple[str, ...] = ("downstream", "report")) -> int:
    call = [str(place / "raw"), str(place / "out"), "group", "--grid", "16", "--held-out", "0.34"]
    call += ["--segmenter", "none", "--model", "sigmarat2", "--omp-nthreads", "1"]
    return cli.main([*call, *FAST, "--steps", *steps, *words])


def test_tables_report_and_what_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(place) == 0
    out = place / "out"
    split = {row["participant_id"][4:]: row["split"] for row in read_tsv(out / "group_split.tsv")}
    assert {animal for animal, side in split.items() if side == "held-out"} == HELD
    summary, scans, table4 = (read_tsv(out / name) for name in TABLES)
    for name, rows in zip(TABLES, (summary, scans, table4), strict=True):
        assert list(rows[0]) == list(read_json((out / name).with_suffix(".json")))
    assert {row["animal"] for row in scans} == HELD
    sets = [(row["test"], row["model"], row["training_set"]) for row in table4]
    both = [("2", "sigmarat2", "r4 + s2"), ("6", "sigmarat2", "s4")]
    assert sets == [("1", "n/a", "r4"), *both]  # r1+s2 needs eight synthetic scans
    page = (out / "group.html").read_text()
    for words in ("Does it help?", "2 animals are too few to resolve any gain", "4 real + 2 synthetic"):
        assert words in page
    assert "U-Nets of MONAI [" in page  # in the methods text, and no residual ones: cited is what was used
    assert "10.48550/arXiv.2211.02701" in page
    assert "10.1007/978-3-030-12029-0_40" not in page
    assert "r1+s2 is left out: it needs 8 synthetic scans, but there are 5" in page
    note = "Networks trained on real scans alone hardly find "
    assert note in page  # after two steps
    assert "after 2 steps" in page
    assert note in capsys.readouterr().err

    files = [*(out / name for name in TABLES), *(out / "models" / "downstream").iterdir()]
    before = {path: path.stat().st_mtime_ns for path in files}
    capsys.readouterr()
    assert app(place) == 0
    assert "nothing has changed" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_done_again_just_where_an_input_changes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count, train = [], experiment.train_network
    monkeypatch.setattr(experiment, "train_network", lambda *a: count.append(a) or train(*a))

    def trainings(*words: str) -> int:
        before = len(count)
        assert app(place, *words, steps=("downstream",)) == 0
        return len(count) - before

    assert trainings() == 6
    assert trainings() == 0
    assert trainings("--downstream-steps", "3") == 6
    assert trainings() == 6  # the folder keeps the last experiment's trainings
    dseg = next((place / "out" / "derivatives").rglob("sub-synth0003*dseg.nii.gz"))
    image = nib.load(dseg)
    save(nib.Nifti1Image(np.asarray(image.dataobj)[..., ::-1].copy(), image.affine, image.header), dseg)
    assert app(place, steps=("report",)) == 0
    assert 'id="downstream"' not in (place / "out" / "group.html").read_text()  # of other masks
    assert trainings() == 4  # two arms with synthetic scans, two seeds
    assert app(place, steps=("report",)) == 0
    assert 'id="downstream"' in (place / "out" / "group.html").read_text()


def test_stopped_and_resumed_is_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shutil.copytree(place, tmp_path / "whole")
    assert app(whole, steps=("downstream",)) == 0
    count, train = [], experiment.train_network

    def stopped(*arguments: object) -> torch.nn.Module:
        count.append(arguments)
        if len(count) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return train(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train_network", stopped)
        assert app(place, steps=("downstream",)) == 128 + signal.SIGTERM
    assert "The same command resumes from here" in capsys.readouterr().err
    assert not any((place / "out" / name).exists() for name in TABLES)
    assert app(place, steps=("downstream",)) == 0
    assert "3 of 6 trainings are already done" in capsys.readouterr().err
    for name in TABLES:
        assert (place / "out" / name).read_text() == (whole / "out" / name).read_text()


def test_a_cohort_of_another_split_says_which_options_it_needs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What to give for the cohort to fit again: the very options that differ, and no other."""
    for words, message in (
        (("--protocol", "paper"), "the original --protocol and --held-out (4 training scans, not 6),"),
        (("--held-out", "0.2"), "the original --protocol and --held-out (4 training scans, not 5),"),
        (("--participant-label", "01", "02", "05"), "Use the original labels, --suffix, --protocol and"),
        (("--seed", "1"), "Use --seed 0, or draw them again: --steps train synthesise --model sigmarat2."),
    ):
        assert app(place, *words, steps=("report",)) == 2
        said = capsys.readouterr().err
        assert message in said
        assert ("seed" in said) == ("--seed" in words)


@pytest.mark.parametrize("step", ["evaluate", "downstream", "report"])
def test_damaged_synthetic_scans_are_all_named_and_nothing_is_lost(
    place: Path, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    out = place / "out"
    assert app(place, steps=("downstream",)) == 0
    first, second = (next(out.rglob(f"sub-synth000{k}_T2w.nii.gz")) for k in (1, 3))
    first.write_bytes(first.read_bytes()[:200])
    image = nib.load(second)
    save(nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), second)
    capsys.readouterr()
    assert app(place, steps=(step,)) == 2
    said = capsys.readouterr().err
    error = said[said.index("bids-alphagan: error") :]
    assert error.count("\n") == 1
    assert "2 synthetic scans of sigmarat2 cannot be used" in error
    assert str(first) in error
    assert f"{second}: 504 voxels are NaN" in error
    assert f"remove the folder {out / 'derivatives' / 'sigmarat2'} and run --steps synthesise" in error
    assert all((out / name).is_file() for name in TABLES)


def test_tables_of_a_former_cohort_are_removed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app(place, steps=("downstream",)) == 0
    next((place / "out" / "derivatives").rglob("sub-synth0003*_T2w.nii.gz")).unlink()
    assert app(place, steps=("report",)) == 0
    assert "removed outdated tables of other scans: group_downstream.tsv" in capsys.readouterr().err
    assert not list((place / "out").glob("group_downstream*"))
    assert not list((place / "out").glob("group_table4*"))


def refused(place: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a call says that ends with an error; no network was trained."""
    assert app(place, *words) == 2
    assert not (place / "out" / "models" / "downstream").exists()
    return capsys.readouterr().err


def test_a_generator_that_saw_held_out_animals_is_refused(place: Path, capsys) -> None:
    out = place / "out"
    trained(out, [subject_scans(out, label)[0].preproc for label in ANIMALS])
    said = refused(place, capsys)
    assert "was trained on held-out animals (sub-03, sub-04)" in said
    assert "Retrain it without them: --steps train synthesise downstream" in said
    trained(out, [subject_scans(out, label)[0].preproc for label in ("01", "03", "05")])
    said = refused(place, capsys)
    assert "sigmarat2 was trained on other scans than the current training scans" in said
    for text in ("{", json.dumps({"data": {}})):
        (out / "models" / "sigmarat2" / "config.json").write_text(text)
        assert "does not say on which scans sigmarat2 was trained" in refused(place, capsys)


def test_without_masks_or_held_out_animals_it_says_what_to_do(place: Path, capsys) -> None:
    out = place / "out"
    assert "no animal is held out" in refused(place, capsys, "--held-out", "0")
    assert "no animal is held out" in refused(place, capsys, "--protocol", "paper")
    assert "1 held out, 5 left for training" in refused(place, capsys, "--held-out", "0.2")
    assert "--downstream-arms r3: is not a training set" in refused(place, capsys, "--downstream-arms", "r3")
    assert "--downstream-channels" in refused(place, capsys, "--downstream-channels", "4")
    for path in (out / "derivatives").rglob("*dseg*"):
        path.unlink()
    said = refused(place, capsys)
    assert "the 5 synthetic scans of sigmarat2 have no tissue masks" in said
    assert "--steps synthesise downstream --segmenter ants" in said
    for path in out.glob("sub-*/**/*dseg*"):
        path.unlink()
    assert "run participant with --segmenter ants or spm" in refused(place, capsys)


def test_an_animal_without_masks_is_left_out_with_a_warning(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (place / "out").glob("sub-05/**/*dseg*"):
        path.unlink()
    assert app(place, steps=("downstream",)) == 0
    assert "sub-05 has no masks and is left out" in capsys.readouterr().err
    assert read_tsv(place / "out" / "group_table4.tsv")[0]["training_set"] == "r3"
