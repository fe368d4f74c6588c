"""A whole run on a real Slurm, by the jobs that bids-alphagan-slurm writes. ``make slurm-test`` runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
import tiny
import torch
from phantoms import phantom
from slurm_cluster import wait_for
from training_runs import leaves
from validator import issues

from bids_alphagan.common.process.threads import use_threads
from bids_alphagan.models import load_model
from bids_alphagan.training.data import Batches
from bids_alphagan.training.phases import initial_networks, iteration
from bids_alphagan.training.settings import TrainSettings

pytestmark = pytest.mark.slurm
BROKEN = "03"
SHORT = ("--preset", "demo", "--segmenter", "none", "--channels", "2", "--n-synthetic", "2")
FEW = ("--pairs-per-scan", "2", "--msssim-pairs-per-scan", "2", "--checkpoint-every", "200")
# Slurm looks at time limits each half minute: a job of two minutes that is to be warned a minute before its
# end is cut 30 to 60 s after its start (it may be warned 30 s early), so twice at least in so much work.
WARN, TRAINING = 60, 120


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    try:
        with slurm_cluster.cluster():
            yield
    except slurm_cluster.UnavailableError as reason:
        pytest.skip(f"no Slurm: {reason}")


@pytest.fixture(scope="module")
def rats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five heads, one of them damaged, in a folder whose name a shell would split."""
    data = phantom(tmp_path_factory.mktemp("slurm") / "rat's heads & $HOME", "--n-subjects", "5")
    damaged = next(data.glob(f"sub-{BROKEN}/func/*_bold.nii.gz"))
    damaged.write_bytes(damaged.read_bytes()[:2000])
    return data


@pytest.fixture(scope="module")
def iterations() -> int:
    """How many take `TRAINING` seconds of a core's time: never less by the clock, however busy others are."""
    model, settings = load_model("sigmarat2"), TrainSettings(batch_size=2, channels=2, latent=4)
    use_threads(1)
    networks = initial_networks(model, settings, 32)
    optimisers = model.optimisers(networks, settings)
    batches = Batches(torch.rand(4, 1, 32, 32, 32) * 2 - 1, 2, seed=0)
    began, step = time.process_time(), 0
    while time.process_time() < began + 5:
        iteration(networks, optimisers, batches, model, settings, step)
        step += 1
    return int(TRAINING * step / (time.process_time() - began))


def write(data: Path, out: Path, *words: object) -> dict[str, str]:
    """Call bids-alphagan-slurm; the jobs that it submitted, by stage."""
    command = [sys.executable, "-m", "bids_alphagan.cli.slurm", data, out, "--warn", WARN, "--mem", "300M"]
    command += ["--cpus", 1, "--gpus", 0, *words, *SHORT, *FEW]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return submitted(done.stdout)


def submitted(said: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+): job (\d+)", said, re.MULTILINE))


def log_of(out: Path, stage: str, job: str) -> str:
    path = out / "code" / "slurm" / "logs" / f"alphagan-{stage}-{job}.out"
    return path.read_text() if path.exists() else ""


def test_a_whole_run(rats: Path, iterations: int) -> None:
    out, whole = rats.parent / "out put", rats.parent / "uninterrupted"
    jobs = write(rats, out, "--time", "15", "train=2", "--submit", "--", "--iterations", iterations)
    assert list(jobs) == ["participant", "train", "synthesise", "evaluate", "report"]

    # The damaged animal fails, the others are ready.
    tasks = {task["ArrayTaskId"]: task["JobState"] for task in wait_for(jobs["participant"], 900)}
    labels = (out / "code/slurm/participants.txt").read_text().split()
    assert tasks == {
        str(n): "FAILED" if label == BROKEN else "COMPLETED" for n, label in enumerate(labels, 1)
    }
    assert len(list(out.glob("sub-*/func/*desc-preproc_bold.nii.gz"))) == 4

    # Meanwhile the same training, without Slurm and in one go.
    shutil.copytree(out, whole, ignore=shutil.ignore_patterns("models", "code", "logs"))
    app = [sys.executable, "-m", "bids_alphagan", rats, whole, "group", "--nprocs", 1, *SHORT, *FEW]
    app += ["--iterations", iterations, "--steps", "train"]
    reference = subprocess.run([str(word) for word in app], capture_output=True, text=True)
    assert reference.returncode == 0, reference.stderr

    # Cut by its time limit, and gone on with to the same result.
    (train,) = wait_for(jobs["train"], 1200)
    log = log_of(out, "train", jobs["train"])
    assert train["JobState"] == "COMPLETED", log[-3000:]
    assert int(train["Restarts"]) >= 2
    stops = [int(number) for number in re.findall(r"iteration (\d+) by SIGUSR1", log)]
    assert len(stops) == int(train["Restarts"])
    assert stops == sorted(set(stops))
    assert stops[0] > 0
    assert stops[-1] < iterations
    mine, its = leaves(out / "models" / "sigmarat2"), leaves(whole / "models" / "sigmarat2")
    assert mine["generator.safetensors"] == its["generator.safetensors"]
    assert mine["losses.tsv"] == its["losses.tsv"]

    # What depended on it.
    for stage in ("synthesise", "evaluate", "report"):
        (job,) = wait_for(jobs[stage], 600)
        assert job["JobState"] == "COMPLETED", log_of(out, stage, jobs[stage])[-3000:]
    assert len(list(out.glob("derivatives/sigmarat2/sub-synth*/func/*_bold.nii.gz"))) == 2
    assert (out / "group.html").is_file()
    assert (out / "group_metrics.tsv").is_file()
    assert issues(out) == []


def test_a_cancelled_training_goes_on_when_it_is_submitted_again(rats: Path) -> None:
    out = rats.parent / "cancelled"
    shutil.copytree(rats.parent / "out put", out, ignore=shutil.ignore_patterns("models", "code", "logs"))
    # Too long to end by itself in this test.
    jobs = write(rats, out, "--time", "15", "--stages", "train", "--submit", "--", "--iterations", 10**6)
    losses = out / "models" / "sigmarat2" / "losses.tsv"
    until = time.monotonic() + 300
    while not losses.exists() or losses.read_text().count("\n") < 5:
        assert time.monotonic() < until, log_of(out, "train", jobs["train"])
        time.sleep(0.5)
    subprocess.run(["scancel", jobs["train"]], check=True)
    (cancelled,) = wait_for(jobs["train"], 60)
    assert cancelled["JobState"] == "CANCELLED"
    assert int(cancelled["Restarts"]) == 0
    until = time.monotonic() + 30
    while not (match := re.search(r"iteration (\d+) by SIGTERM", log_of(out, "train", jobs["train"]))):
        assert time.monotonic() < until, log_of(out, "train", jobs["train"])
        time.sleep(0.5)
    stopped = int(match[1])
    assert stopped > 0

    done = subprocess.run([out / "code/slurm/submit.sh", "train"], capture_output=True, text=True, check=True)
    again = submitted(done.stdout)["train"]
    until = time.monotonic() + 300
    while f"iteration {stopped}" not in log_of(out, "train", again):
        assert time.monotonic() < until, log_of(out, "train", again)
        time.sleep(0.5)
    subprocess.run(["scancel", again], check=True)
    wait_for(again, 60)


def test_a_failed_stage_ends_those_that_wait_for_it(rats: Path) -> None:
    out = rats.parent / "nothing there"
    jobs = write(rats, out, "--time", "5", "--stages", "train", "synthesise", "--submit", "--")
    (train,) = wait_for(jobs["train"], 300)
    assert (train["JobState"], train["ExitCode"]) == ("FAILED", "2:0")
    assert "no participant outputs" in log_of(out, "train", jobs["train"])
    (synthesise,) = wait_for(jobs["synthesise"], 60)
    assert synthesise["JobState"] == "CANCELLED"
    assert log_of(out, "synthesise", jobs["synthesise"]) == ""


def test_what_cannot_be_queued_whole_is_not_queued(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    for label in ("01", "02"):
        tiny.scan(data / f"sub-{label}/anat/sub-{label}_T2w.nii.gz", tiny.values(int(label)))
    words = ["--gpus", "train=1", "--time", "5", "--"]  # there is none
    write(data, out, *words)
    submit = out / "code/slurm/submit.sh"
    done = subprocess.run([submit], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "gres" in done.stderr
    jobs = submitted(done.stdout)
    assert list(jobs) == ["participant"]
    assert f"cancelling the others: scancel {jobs['participant']}" in done.stderr
    assert {task["JobState"] for task in wait_for(jobs["participant"], 60)} == {"CANCELLED"}


def test_the_first_task_that_was_asked_for_validates_for_all(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    for label in ("01", "02", "03", "04"):
        tiny.scan(data / f"sub-{label}/anat/sub-{label}_T2w.nii.gz", tiny.values(int(label)))
    words = ["--time", "5", "--stages", "participant", "--array", "2-4:2", "--submit", "--"]
    job = write(data, out, *words)["participant"]
    tasks = wait_for(job, 300)
    assert {task["ArrayTaskId"]: task["JobState"] for task in tasks} == {"2": "COMPLETED", "4": "COMPLETED"}
    logs = {path.stem[-1]: path.read_text() for path in (out / "code/slurm/logs").iterdir()}
    assert {task: "BIDS validator" in log for task, log in logs.items()} == {"2": True, "4": False}
    assert sorted(path.name for path in out.glob("sub-*") if path.is_dir()) == ["sub-02", "sub-04"]


def test_nipypes_own_slurm_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    for label in ("01", "02"):
        tiny.scan(data / f"sub-{label}/anat/sub-{label}_T2w.nii.gz", tiny.values(int(label)))
    damaged = data / "sub-02/anat/sub-02_T2w.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    plugin = tmp_path / "plugin.yml"
    plugin.write_text(json.dumps({"plugin": "SLURM", "plugin_args": {"sbatch_args": "--time=5 --mem=100"}}))
    monkeypatch.delenv("LOGNAME", raising=False)  # as in a container
    words = ["participant", "--preset", "demo", "--segmenter", "none", "--skip-bids-validation"]
    command = [sys.executable, "-m", "bids_alphagan", data, out, *words, "--use-plugin", plugin]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 1, done.stderr
    assert (out / "sub-01/anat/sub-01_desc-preproc_T2w.nii.gz").is_file()
    assert not (out / "sub-02/anat/sub-02_desc-preproc_T2w.nii.gz").exists()
    assert re.search(r"FAILED sub-02/.*_T2w.nii.gz: .*not a readable NIfTI file", done.stderr), done.stderr
    names = [job["JobName"] for job in slurm_cluster.jobs("")]
    assert sum("sub01_T2w" in name for name in names) == 3  # read, conform, write
    assert sum("sub02_T2w" in name for name in names) == 1
