"""What an older version has left stays valid: tests/data/old-run.tar.xz is a study of version 0.1.0, before the house.

Five phantom animals on a grid of 16; the models adni and sigmarat2 trained, drawn, evaluated, downstream; sigmarat1
interrupted after two of four iterations, and the generator (expected.safetensors) that it became there.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from paths import ROOT
from safetensors.torch import load_file

from bids_alphagan.cli import main as cli

OPTIONS = [
    *("--grid", "16", "--segmenter", "ants", "--quick-masks", "--channels", "1", "--latent-size", "4"),
    *("--iterations", "4", "--batch-size", "2", "--checkpoint-every", "2", "--log-every", "1"),
    *("--n-synthetic", "3", "--gate-width", "1e9", "--pairs-per-scan", "2", "--msssim-pairs-per-scan", "2"),
    *("--held-out", "0.4", "--device", "cpu", "--precision", "fp32", "--omp-nthreads", "1"),
    *("--downstream-steps", "2", "--downstream-seeds", "1", "--downstream-channels", "2", "4"),
    *("--downstream-residual-units", "0", "--downstream-arms", "r1", "s0.5"),
]
EVERY_STEP = ("train", "synthesise", "evaluate", "downstream", "report")
REWORDED = {"README", "dataset_description.json"}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The old study's folder: rats, template, out."""
    monkeypatch.delenv("SPM_HOME", raising=False)
    with tarfile.open(ROOT / "tests" / "data" / "old-run.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "old-run"


def group(study: Path, *words: str) -> int:
    options = [*OPTIONS, "--template", str(study / "template"), *words]
    return cli.main([str(study / "rats"), str(study / "out"), "group", *options])


def content(out: Path) -> dict[str, object]:
    """Every file that holds results, by name; not the page, logs, the work folder and texts that were reworded."""
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    apart = ("logs/", ".work/")
    return {
        name: without_words(json.loads(path.read_bytes())) if is_dictionary(path) else path.read_bytes()
        for name, path in files.items()
        if not name.startswith(apart) and path.name not in REWORDED and path.suffix != ".html"
    }


def is_dictionary(path: Path) -> bool:
    """Whether it describes the columns of a table, in words that may change."""
    return path.suffix == ".json" and path.with_suffix(".tsv").exists()


def without_words(values: object) -> object:
    if isinstance(values, dict):
        words = ("Description", "LongName")
        return {name: without_words(value) for name, value in values.items() if name not in words}
    return None if isinstance(values, str) else values


def test_a_finished_run_is_not_done_again(study: Path, capsys: pytest.CaptureFixture) -> None:
    before = content(study / "out")
    assert group(study, "--model", "adni", "sigmarat2", "--steps", *EVERY_STEP) == 0
    assert content(study / "out") == before
    said = capsys.readouterr().err
    assert said.count("nothing has changed") == 9  # two models, two cohorts, five questions
    page = (study / "out" / "group.html").read_text()
    for section in ("qc", "pairs", "distribution", "anatomy", "memorisation", "downstream"):
        assert f'<section id="{section}">' in page, section


def test_a_report_alone_has_the_old_numbers(study: Path) -> None:
    before = content(study / "out")
    assert group(study, "--model", "adni", "sigmarat2", "--steps", "report") == 0
    assert content(study / "out") == before
    page = (study / "out" / "group.html").read_text()
    rows = [line.split("\t") for line in (study / "out" / "group_metrics.tsv").read_text().splitlines()]
    shown = next(row for row in rows if row[:2] == ["sigmarat2", "MAE"])
    assert f">{float(shown[rows[0].index('value')]):.3f}"[:6] in page


def test_an_interrupted_training_goes_on_to_the_same_result(study: Path) -> None:
    assert group(study, "--model", "sigmarat1", "--steps", "train") == 0
    made = load_file(study / "out" / "models" / "sigmarat1" / "generator.safetensors")
    expected = load_file(study / "expected.safetensors")
    assert made.keys() == expected.keys()
    for name, tensor in expected.items():  # bit for bit on the machine that made it; others round differently
        torch.testing.assert_close(made[name], tensor, rtol=1e-3, atol=1e-4)


def test_other_settings_are_another_run(study: Path, capsys: pytest.CaptureFixture) -> None:
    """So that the tests above can fail."""
    shutil.rmtree(study / "out" / "models" / "sigmarat1")
    assert group(study, "--model", "sigmarat2", "--steps", "train", "--seed", "1") == 0
    assert "settings.seed is 1, was 0" in capsys.readouterr().err
