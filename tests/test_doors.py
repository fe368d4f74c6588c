"""The doors: two toy models, a toy segmenter, question, metric and quality measure, each one file and one entry.

The whole participant and group level runs with them, by the real command line.
"""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import phantom
from toys.measure import PEAK
from toys.metric import LARGEST

from bids_alphagan import evaluation, models
from bids_alphagan.bids.prepared import synthetic_scans
from bids_alphagan.cli import main as cli
from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.common.lazy import Lazy
from bids_alphagan.evaluation import QUESTIONS
from bids_alphagan.evaluation.pairs.metrics import METRICS
from bids_alphagan.models import MODELS
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.segmenters import SEGMENTERS

SHORT = (
    "--preset",
    "demo",
    "--iterations",
    "6",
    "--log-every",
    "3",
    "--n-synthetic",
    "2",
    "--qc-width",
    "1e9",
    "--nprocs",
    "1",
)
EVERYTHING = ("--steps", "train", "synthesise", "evaluate", "downstream", "report", "--held-out", "0.4")
FEW = ("--downstream-steps", "3", "--downstream-seeds", "1", "--downstream-arms", "r1", "s0.5")


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry for each."""
    entry = models.Entry("Toy network", "A test, 2026", Lazy("toys.network:ToyNetwork"))
    monkeypatch.setitem(MODELS, "toynetwork", entry)
    channels = ("scan", "GM", "WM", "CSF")
    mean = models.Entry(
        "Toy mean", "A test, 2026", Lazy("toys.mean:ToyMean"), channels, parameters="mean.npz"
    )
    monkeypatch.setitem(MODELS, "toymean", mean)
    monkeypatch.setitem(SEGMENTERS, "toy", Lazy("toys.segmenter:ToySegmenter"))
    question = evaluation.Entry("Brightness", Lazy("toys.question:Brightness"))
    monkeypatch.setitem(QUESTIONS, "brightness", question)
    monkeypatch.setitem(METRICS, "Largest", LARGEST)
    monkeypatch.setitem(MEASURES, "peak", PEAK)


@pytest.fixture(scope="module")
def rats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five phantom animals, two of which are held out."""
    return phantom(tmp_path_factory.mktemp("doors") / "rats", "--n-subjects", "5", "--volumes", "1")


def app(*words: object) -> int:
    return cli.main([*map(str, words)])


def test_the_whole_app_runs_with_toys(
    toys: None, rats: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    template = ("--template", rats / "derivatives" / "templateflow" / "tpl-RatPhantom")
    common = (*template, "--segmenter", "toy", *SHORT)
    assert app(rats, out, "participant", *common) == 0
    group = (rats, out, "group", *common, "--model", "toynetwork", "toymean", *EVERYTHING, *FEW)
    assert app(*group) == 0

    for model in ("toynetwork", "toymean"):
        cohort = out / "derivatives" / model
        scans = synthetic_scans(cohort)
        assert len(scans) == 2
        for scan in scans:
            assert len(list(scan.parent.glob(f"{scan.name.split('_task')[0]}*_dseg.nii.gz"))) == 1
    assert {row["step"] for row in read_tsv(out / "models" / "toynetwork" / "losses.tsv")} >= {"1", "6"}
    assert not (out / "models" / "toymean" / "losses.tsv").exists()

    brightness = {row["model"]: float(row["mean"]) for row in read_tsv(out / "group_brightness.tsv")}
    assert set(brightness) == {"toynetwork", "toymean"}
    assert read_json(out / "group_brightness.json")["mean"]["Description"] == "Mean intensity."
    metrics = {(row["model"], row["metric"]) for row in read_tsv(out / "group_metrics.tsv")}
    assert {("toynetwork", "Largest"), ("toymean", "Largest"), ("real", "Largest")} <= metrics
    quality = read_tsv(out / "group_quality.tsv")
    assert len(quality) == 9  # five real scans, two draws of each model
    assert all(float(row["peak"]) > 1 for row in quality)
    page = (out / "group.html").read_text()
    for text in (
        *('id="brightness"', "Is it bright?", "Brightness was averaged [", "A toy."),
        *(
            "Toy network",
            "Toy mean",
            "A mean scan [",
            "by a threshold (Threshold 1",
            "Largest",
            "brightest voxel",
        ),
    ):
        assert text in page, text
    assert "by a threshold (Threshold 1" in (out / "sub-01.html").read_text()

    capsys.readouterr()
    assert app(*group) == 0
    said = capsys.readouterr().err
    for name in ("toynetwork", "synthesis of toymean", "pairs", "brightness", "downstream"):
        assert f"{name}: nothing has changed" in said, name

    assert app(*group, "--pairs-per-scan", "1", "--steps", "evaluate") == 0
    assert {row["pairs_per_scan"] for row in read_tsv(out / "group_brightness.tsv")} == {"1"}
    said = capsys.readouterr().err
    assert "brightness: nothing has changed" not in said
    assert "anatomy: nothing has changed" in said  # it has no options


def test_a_new_metric_reaches_a_finished_evaluation(
    rats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    common = ("--segmenter", "none", *SHORT)
    assert app(rats, out, "participant", *common) == 0
    group = (rats, out, "group", *common, "--channels", "1", "--latent-size", "4")
    assert app(*group, "--steps", "train", "synthesise", "evaluate") == 0
    monkeypatch.setitem(METRICS, "Largest", LARGEST)
    assert app(*group, "--steps", "evaluate", "report") == 0
    assert "Largest" in {row["metric"] for row in read_tsv(out / "group_metrics.tsv")}
    page = (out / "group.html").read_text()
    assert "largest difference (A test)" in page  # the methods text
    assert "There was no quality control (--segmenter none)" in page


def test_what_a_later_model_lacks_is_an_error_before_the_first_is_trained(
    toys: None, rats: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    common = ("--segmenter", "none", *SHORT)
    assert app(rats, out, "participant", *common) == 0
    capsys.readouterr()
    group = (rats, out, "group", *common, "--channels", "1", "--latent-size", "4")
    assert app(*group, "--model", "sigmarat2", "toymean") == 2
    assert "has no map of GM, WM, CSF" in capsys.readouterr().err
    assert app(*group, "--model", "sigmarat2", "adni", "--batch-size", "1") == 2
    assert "--batch-size 1: must be at least 2" in capsys.readouterr().err
    assert not (out / "models" / "sigmarat2").exists()


def test_a_model_draws_its_own_masks(toys: None, rats: Path, tmp_path: Path) -> None:
    """Without a segmenter the drawn maps are the masks: on the scan's grid, like the real scans' masks."""
    out = tmp_path / "out"
    template = ("--template", rats / "derivatives" / "templateflow" / "tpl-RatPhantom")
    assert app(rats, out, "participant", *template, "--segmenter", "toy", *SHORT) == 0
    steps = ("--steps", "train", "synthesise", "evaluate")
    assert app(rats, out, "group", "--segmenter", "none", *SHORT, "--model", "toymean", *steps) == 0
    cohort = out / "derivatives" / "toymean"
    scan = synthetic_scans(cohort)[0]
    dseg = next(scan.parent.glob("*synth0001*_dseg.nii.gz"))
    image, labels = nib.load(scan), nib.load(dseg)
    assert image.shape[:3] == labels.shape[:3]
    np.testing.assert_allclose(image.affine, labels.affine)
    drawn = np.asarray(labels.dataobj)
    real = np.asarray(nib.load(next(out.glob("sub-01/func/*_dseg.nii.gz"))).dataobj)
    overlap = 2 * ((drawn > 0) & (real > 0)).sum() / ((drawn > 0).sum() + (real > 0).sum())
    assert overlap > 0.6
    assert {1, 2} <= set(np.unique(drawn)) <= {0, 1, 2, 3}
    facts = json.loads(dseg.with_name(dseg.name.replace(".nii.gz", ".json")).read_text())
    assert facts["Segmentation"]["Name"] == "drawn with the scan"
    assert {row["structure"] for row in read_tsv(out / "group_anatomy.tsv")} == {"brain", "gm", "wm", "csf"}


def test_options_list_what_the_doors_hold(toys: None, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        app("--help")
    text = capsys.readouterr().out
    assert "{auto,spm,ants,toy,none}" in text
    with pytest.raises(SystemExit):
        app("in", "out", "group", "--model", "none-such")
    assert "toymean" in capsys.readouterr().err
