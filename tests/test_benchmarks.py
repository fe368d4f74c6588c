"""Each benchmark runs in its smallest setting and prints one JSON object. What it measures then says nothing."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from paths import ROOT

# What every command takes at most, on a busy machine.
SECONDS = 600


def run(script: str, words: Sequence[object]) -> dict[str, Any]:
    """Run a benchmark; what it prints, which must be one JSON object and nothing else."""
    command = [sys.executable, ROOT / "benchmarks" / script, *words]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def test_training_data() -> None:
    result = run("training.py", ["data", "--scans", 3, "--grid", 16, "--batches", 3])
    assert {"first_time_s", "opened_again_s", "ratio_first_to_again", "batch_gathered_ms"} <= result.keys()
    assert {"data_hash_s", "batch_in_memory_ms", "batch_augmented_ms"} <= result.keys()


TINY = ["--preset", "demo", "--grid", 16, "--channels", 2, "--threads", 1, "--steps", 1, "--device", "cpu"]


@pytest.mark.slow
def test_training_speed() -> None:
    result = run("training.py", ["speed", *TINY, "--against-released", "--generate"])
    assert {"seconds_per_iteration", "peak_memory_gb", "flop_per_iteration", "machine"} <= result.keys()
    assert {"released", "ratio_to_released", "scans_per_second"} <= result.keys()
    assert result["flop_per_iteration"] < result["released"]["flop_per_iteration"]


@pytest.mark.slow
def test_training_threads() -> None:
    sizes = ["--grid", 16, "--channels", 2, "--steps", 1]
    result = run("training.py", ["threads", *sizes])
    assert {"iterations_per_second", "ratio", "cores"} <= result.keys()
    assert result["ratio"]["1 passive"] == 1


def test_masks_truth() -> None:
    words = ["truth", "--grid", "demo", "--n-heads", 1, "--finest", 0.5, "--apart", 0.75]
    result = run("masks.py", words)
    assert result["0.75 mm"].keys() >= {"n", "brain", "GM", "WM", "CSF"}


@pytest.mark.slow
def test_masks_fit(tmp_path: Path) -> None:
    size = ["--grid", "demo", "--n-heads", 1, "--finest", 0.5, "--quick"]
    picture = tmp_path / "masks.png"
    result = run("masks.py", ["fit", *size, "--engines", "ants", "--picture", picture])
    assert {"grid", "hard", "ceiling", "ants"} <= result.keys()
    assert {"brain", "seconds", "cpu_seconds", "memory_gb", "warned"} <= result["ants"].keys()
    assert picture.is_file()


@pytest.mark.slow
def test_masks_quality() -> None:
    few = ["--real", 2, "--sound", 2, "--heads", 1, "--damages", "without ventricles", "--sizes", 1.06]
    result = run("masks.py", ["quality", "--quick", *few])
    assert {"segmenter", "qc_width", "limits", "damaged", "unusual_size", "left_out"} <= result.keys()
    assert [row["strength"] for row in result["damaged"]] == [0.1, 10]


def test_picture_of_damaged_heads(tmp_path: Path) -> None:
    run("masks.py", ["quality", "--picture", tmp_path / "damaged.png"])
    assert (tmp_path / "damaged.png").is_file()


def test_evaluation_pairs() -> None:
    result = run("evaluation.py", ["pairs", "--n-scans", 4, "--shape", 16, 16, 12, "--few", 2])
    assert result.keys() >= {"MS-SSIM", "NCC", "MAE", "RMSE", "PSNR", "MMD", "seconds", "threads"}
    assert result["MAE"].keys() == {"pairs", "seconds", "times_faster", "greatest_difference"}


@pytest.mark.slow
def test_evaluation_memorisation() -> None:
    result = run("evaluation.py", ["memorisation", "--trials", 1, "--pool", 8, "--numbers", 4, 2, 2])
    assert {
        "sound",
        "caught",
        "distinct",
        "share_of_sound_scans_with_p_below",
        "cpu_seconds",
    } <= result.keys()
    assert result["caught"]["exact"] == 1


@pytest.mark.slow
def test_evaluation_report(tmp_path: Path) -> None:
    size = ["--n-animals", 6, "--n-synthetic", 3, "--grid", 16]
    result = run("evaluation.py", ["report", "--work", tmp_path / "work", *size])
    assert {"real_scans", "models", "synthetic_scans", "mb", "seconds"} <= result.keys()
    assert {"evaluate", "report"} <= result["seconds"].keys()


@pytest.mark.slow
def test_downstream() -> None:
    size = ["--n-real", 2, "--n-test", 2, "--steps", 2, "--seeds", 1]
    result = run("downstream.py", [*size, "--arms", "r1", "r1+s1", "--generators", "perfect"])
    assert {"n_real", "n_test", "n_synthetic", "steps", "seeds", "device", "generators"} <= result.keys()
    rows = result["generators"]["perfect"]["rows"]
    assert {row["arm"] for row in rows} == {"r1", "r1+s1"}


def test_participant_plan() -> None:
    result = run("participant.py", ["--heads", 0, "--animals", 3])
    assert {"help_s", "thousand", "cores"} <= result.keys()
    assert result["thousand"]["all"]["scans"] == 3
    assert result["thousand"]["one"].keys() == {"scans", "nodes", "indexed_s", "planned_s", "peak_mb"}


@pytest.mark.slow
def test_participant_runs() -> None:
    result = run("participant.py", ["--heads", 1, "--animals", 1, "--repeat", 1])
    assert {"runs", "ratio"} <= result.keys()
    assert result["runs"]["2"][0].keys() == {"seconds", "others", "cpu_s", "busy"}


@pytest.mark.slow
def test_results_models(tmp_path: Path) -> None:
    size = ["--n-subjects", 8, "--grid", 16, "--channels", 2, "--iterations", 2, "--log-every", 1]
    size += ["--checkpoint-every", 1, "--n-synthetic", 3, "--pictures", tmp_path / "pictures"]
    result = run("results.py", ["models", tmp_path / "work", *size])
    runs = {"sigmarat2 paper", "sigmarat2 released", "adni paper"}
    assert runs | {"real", "seconds_per_iteration"} <= result.keys()
    assert result["seconds_per_iteration"].keys() == runs
    assert result["adni paper"].keys() >= {"metrics", "weighted_terms_at_the_end", "greatest_drift"}
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"samples.png", "losses.png"}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Six prepared scans of noise."""
    for number in range(6):
        cube = np.random.default_rng(number).uniform(-1, 1, (16, 16, 16)).astype(np.float32)
        path = tmp_path / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}_desc-preproc_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(cube, np.eye(4)), path)
    return tmp_path


def test_results_ideas(prepared: Path, tmp_path: Path) -> None:
    size = ["--scans", 2, "--held-out", 4, "--seeds", 0, "--iterations", 2, "--channels", 2]
    words = ["ideas", prepared, *size, "--ideas", "paper", "lazy penalty", "--out", tmp_path / "rows"]
    result = run("results.py", words)
    weights = ["last", "average"]
    assert [row["weights"] for row in result["rows"]] == 2 * weights
    measures = {"distance_e3", "end_e3", "ms_ssim", "ms_ssim_real", "nearest", "sharpness", "seconds"}
    assert measures <= result["rows"][0].keys()
    assert run("results.py", words)["rows"] == result["rows"]  # kept, not made again
