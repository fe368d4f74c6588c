"""Several devices: processes on the CPU that share each batch end where one process ends, to rounding."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, read_tsv, write_json
from bids_alphagan.common.process.interrupt import Interrupted
from bids_alphagan.common.process.lock import lock
from bids_alphagan.models import load_model
from bids_alphagan.training import checkpoint, distributed, loop
from bids_alphagan.training.launch import launch
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import initial_networks, iteration
from bids_alphagan.training.settings import TrainSettings

VOLUMES = np.random.default_rng(0).uniform(-1, 1, (5, 1, 16, 16, 16)).astype(np.float32)
STEPS = 2
RUNS = {  # name: model, variant, whether input gradients and layers are torch's own
    "adni": ("adni", "paper", False),
    "adni-plain": ("adni", "paper", True),
    "sigmarat1": ("sigmarat1", "paper", False),
    "sigmarat1-plain": ("sigmarat1", "paper", True),
    "sigmarat2": ("sigmarat2", "paper", False),
    "sigmarat2-released": ("sigmarat2", "released", False),
    "resumed": ("sigmarat1", "paper", False),
}


def settings(**changes: object) -> TrainSettings:
    tiny = {"batch_size": 4, "channels": 2, "latent": 5, "log_every": 1, "checkpoint_every": 1}
    return TrainSettings(**({"iterations": STEPS} | tiny | changes))  # type: ignore[arg-type]


def run(folder: Path, name: str, **changes: object) -> None:
    model, which, plain = RUNS[name]
    changes |= {"speedups": ()} if plain else {}
    train(VOLUMES, load_model(model, which), settings(**changes), folder / name)


def state(folder: Path, step: int) -> dict[str, torch.Tensor]:
    path = folder / "checkpoints" / f"step-{step:06d}.safetensors"
    return {name: tensor.double().clone() for name, tensor in load_file(path).items()}


def assert_same_step(alone: Path, shared: Path, model: str) -> None:
    """What one iteration makes of networks and optimisers, of which Adam's averages are the gradients.

    Weights are compared where their gradient is above rounding (test_released.above_rounding says why).
    """
    left, right = state(alone, 1), state(shared, 1)
    assert left.keys() == right.keys()
    difference = {name: (left[name] - right[name]).abs() for name in left}
    compared = everything = 0
    for network, module in initial_networks(load_model(model), settings(), 16).items():
        averages = [f"optimiser.{network}.{index}.exp_avg" for index, _ in enumerate(module.parameters())]
        largest = max(left[name].abs().max() for name in averages)
        for average, (name, _) in zip(averages, module.named_parameters(), strict=True):
            assert difference[average].max() < 1e-5 * largest, average
            assert difference[average + "_sq"].max() < 1e-5 * largest**2, average
            sound = left[average].abs() > 1e-5 * largest
            assert (difference[f"network.{network}.{name}"] * sound).max() < 1e-5, f"{network} {name}"
            compared, everything = compared + sound.sum(), everything + sound.numel()
        for name, _ in module.named_buffers():
            buffer = f"network.{network}.{name}"
            # a bias before a normalisation moves by noise, and the running mean with it
            noise = settings().learning_rate if name.endswith("running_mean") else 0
            assert difference[buffer].max() < 1e-5 * left[buffer].abs().max() + noise, buffer
    assert compared > 0.8 * everything


def assert_same_run(alone: Path, shared: Path, step: int = STEPS) -> None:
    """Losses and gradients so far: the noise of the weights above reaches them from the second step on."""
    rows, others = read_tsv(alone / "losses.tsv"), read_tsv(shared / "losses.tsv")
    assert len(rows) == len(others) == step
    for row, other in zip(rows, others, strict=True):
        losses = {name: float(value) for name, value in row.items()}
        assert losses == pytest.approx({n: float(value) for n, value in other.items()}, rel=1e-3, abs=1e-3)
    left, right = state(alone, step), state(shared, step)
    for name in (name for name in left if name.endswith("exp_avg")):
        average = left[name]
        assert (average - right[name]).abs().max() < 1e-3 * average.abs().max() + 1e-4, name


def watched(folder: Path, function: Callable[..., None], *arguments: object) -> None:
    """Call the function; note in folder/RANK.json which paths below `folder` Python writes or changes."""
    changed: set[str] = set()

    def watch(event: str, facts: tuple[object, ...]) -> None:
        changes = event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.chmod")
        if changes or (event == "open" and int(facts[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            changed.add(str(facts[0]))

    sys.addaudithook(watch)
    function(*arguments)
    below = sorted(name for name in changed if name.startswith(str(folder)))
    write_json(folder / f"{torch.distributed.get_rank()}.json", below)


def all_runs(folder: Path) -> None:
    for name in RUNS:
        run(folder, name)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes make of all runs, and of one that one process began."""
    folder = tmp_path_factory.mktemp("two")
    run(folder, "resumed", iterations=1)
    launch(2, "cpu", watched, folder, all_runs, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them."""
    folder = tmp_path_factory.mktemp("one")
    all_runs(folder)
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_devices_with_half_the_batch_each_equal_one_device(alone, shared, name):
    assert_same_step(alone / name, shared / name, RUNS[name][0])
    assert_same_run(alone / name, shared / name)
    assert read_json(alone / name / "config.json") == read_json(shared / name / "config.json")


def test_a_run_goes_on_with_another_number_of_devices(alone, shared, caplog):
    assert_same_run(alone / "resumed", shared / "resumed")
    with caplog.at_level("INFO"):
        for folder in (alone, shared):
            run(folder, "resumed", iterations=STEPS + 1)
    assert caplog.text.count(f"from its checkpoint at iteration {STEPS}") == 2
    assert_same_run(alone / "resumed", shared / "resumed", STEPS + 1)


def test_rank_0_alone_writes(alone, shared):
    files = [{p.name.split(".")[0] for p in (folder / "resumed").rglob("*")} for folder in (alone, shared)]
    # samples of the end are kept, and that run first ended after one iteration
    assert files[0] | {"step-000001"} == files[1]
    assert any("checkpoints" in path for path in read_json(shared / "0.json"))
    assert read_json(shared / "1.json") == []


# When it ends early


def ends(folder: Path, model: str, rank: int, number: signal.Signals) -> None:
    """Train; one process has a signal in its second iteration."""

    def signalled(*arguments: object) -> dict[str, torch.Tensor]:
        if arguments[-1] == 1 and distributed.size() > 1 and torch.distributed.get_rank() == rank:
            os.kill(os.getpid(), number)
        return iteration(*arguments)

    loop.iteration = signalled
    train(VOLUMES, load_model(model), settings(iterations=9), folder)


def test_a_signal_to_one_process_stops_all_at_the_same_iteration_with_the_state_saved(tmp_path):
    with pytest.raises(Interrupted, match="sigmarat2 stopped at iteration 2 by SIGTERM") as caught:
        launch(2, "cpu", ends, tmp_path, "sigmarat2", 1, signal.SIGTERM)
    assert caught.value.by == signal.SIGTERM
    assert checkpoint.newest(tmp_path / "checkpoints").step == 2


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_is_killed_the_others_end_and_the_run_resumes_from_its_checkpoint(alone, tmp_path, rank):
    began = time.monotonic()
    with pytest.raises(UserError, match=rf"process {rank} of 2 .* killed by SIGKILL.*resumes from the last"):
        launch(2, "cpu", ends, tmp_path, "adni", rank, signal.SIGKILL)
    assert time.monotonic() - began < 45
    assert checkpoint.newest(tmp_path / "checkpoints").step == 1
    train(VOLUMES, load_model("adni"), settings(), tmp_path)
    assert_same_run(alone / "adni", tmp_path)


def fails(folder: Path) -> None:
    """One process finds other data, then one a fault in the program."""
    volumes = VOLUMES + (torch.distributed.get_rank() == 1 and folder.name == "data")
    train(volumes, load_model("sigmarat2"), settings(iterations=1), folder)
    raise ArithmeticError("a fault")


@pytest.mark.slow
def test_the_error_of_a_process_is_raised(tmp_path):
    with pytest.raises(UserError, match="The processes differ in options, data"):
        launch(2, "cpu", fails, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    with pytest.raises(RuntimeError, match="ArithmeticError: a fault"):
        launch(2, "cpu", fails, tmp_path / "fault")


# By the command


SIZES = ["--grid", "16", "--segmenter", "none", "--nprocs", "1"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two animals of a few voxels in data/, prepared in out/."""
    folder = tmp_path_factory.mktemp("prepared")
    data = tiny.dataset(folder / "data")
    for label in ("01", "02"):
        tiny.scan(data / f"sub-{label}" / "anat" / f"sub-{label}_T2w.nii.gz", tiny.values(int(label)))
    words = [str(data), str(folder / "out"), "participant", "--skip-bids-validation", *SIZES]
    assert cli.main(words) == 0
    return folder


@pytest.fixture
def words(prepared: Path, tmp_path: Path) -> list[str]:
    """A group run on a copy of them in tmp_path/out."""
    shutil.copytree(prepared / "out", tmp_path / "out")
    narrow = ["--channels", "2", "--latent-size", "5", "--log-every", "1", "--n-synthetic", "1"]
    return [str(prepared / "data"), str(tmp_path / "out"), "group", *SIZES, *narrow, "--device", "cpu"]


@pytest.mark.slow
def test_the_command_starts_stops_and_goes_on(words, tmp_path):
    model = tmp_path / "out" / "models" / "sigmarat2"
    command = [sys.executable, "-m", "bids_alphagan", *words, "--steps", "train"]
    with subprocess.Popen([*command, "--devices", "2"], stderr=subprocess.PIPE, text=True) as process:
        table = model / "losses.tsv"
        while process.poll() is None and not (table.is_file() and table.read_text().count("\n") > 2):
            time.sleep(0.05)
        process.terminate()
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    step = checkpoint.newest(model / "checkpoints").step
    assert f"stopped at iteration {step} by SIGTERM; the state is saved" in said
    goal = ["--iterations", str(step + 1)]
    done = subprocess.run([*command, *goal], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert f"from its checkpoint at iteration {step}" in done.stderr


def by_torchrun(words: list[str]) -> list[subprocess.Popen]:
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return [subprocess.Popen([*run, "-m", "bids_alphagan", *words], stderr=subprocess.PIPE, text=True)]


def by_srun(words: list[str]) -> list[subprocess.Popen]:
    """Two processes with the variables that srun sets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "bids_alphagan", *words],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **shared, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(2)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("start", [by_torchrun, by_srun])
def test_under_a_launcher_rank_0_does_all_that_is_not_training(words, tmp_path, start):
    words += ["--devices", "2", "--iterations", "2", "--steps", "train", "synthesise"]
    processes = start(words)
    said = "".join(process.communicate(timeout=120)[1] for process in processes)
    assert [process.returncode for process in processes] == [0] * len(processes), said
    out = tmp_path / "out"
    assert said.count("training on 2 scans") == said.count("1 scans accepted") == 1
    assert len(read_tsv(out / "models" / "sigmarat2" / "losses.tsv")) == 2
    assert len(list((out / "logs").glob("group_*.log"))) == 1
    assert len(list((out / "derivatives" / "sigmarat2").glob("sub-*"))) == 1


def test_waiting_for_the_others_ends_on_request(words):
    first, other = by_srun([*words, "--devices", "2"])
    other.kill()
    other.communicate()
    line = ""
    while "waiting for all 2 processes at localhost" not in line:
        line = first.stderr.readline()
        assert line, "rank 0 ended"
    first.terminate()
    first.communicate(timeout=20)
    assert first.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM)  # the latter just before it waits


def test_a_host_of_rank_0_that_cannot_be_found_is_an_error_at_once(monkeypatch):
    for name, value in (SRUN | {"SLURM_STEP_NODELIST": "nowhere.invalid"}).items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(distributed.LostError, match=r"could not connect at nowhere\.invalid .*MASTER_ADDR"),
        distributed.process_group("cpu"),
    ):
        pass


# What was asked for


def test_what_cannot_be_shared_is_an_error_before_anything_is_written(words, tmp_path, monkeypatch, capsys):
    before = tiny.snapshot(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    words += ["--precision", "fp32"]  # else the GPU is asked what it can
    cases = [
        (["--devices", "3"], "--batch-size 4 is shared by all devices and cannot be divided by 3"),
        (["--num-nodes", "2"], "with torchrun (--nnodes 2 --nproc-per-node 1) or srun (--ntasks-per-node 1)"),
        (["--devices", "4", "--device", "auto"], "--devices 4: there are only 2 GPUs"),
    ]
    for more, message in cases:
        assert cli.main([*words, *more]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setenv("SLURM_STEP_NODELIST", "a")
    for name, value in {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main([*words, "--devices", "4"]) == 2
    assert "--devices 4 --num-nodes 1 make 4 processes, but 2 were started" in capsys.readouterr().err
    assert tiny.snapshot(tmp_path) == before


@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_second_command_leaves_a_run_alone_that_is_still_at_it(words, tmp_path, capsys, resume):
    folder = tmp_path / "out" / "models" / "sigmarat2"
    with lock(folder):
        (folder / "losses.tsv").write_text("of the first run")
        assert cli.main([*words, "--iterations", "1", "--steps", "train", "--resume", resume]) == 2
        assert f"Another run is training in {folder}" in capsys.readouterr().err
        assert (folder / "losses.tsv").read_text() == "of the first run"


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
TORCHRUN |= {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
BATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_NODELIST": "n[1-2]"}
SRUN = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "70001"}
SRUN |= {"SLURM_STEP_ID": "2"}


@pytest.mark.parametrize(
    ("environment", "process"),
    [
        ({}, None),
        (BATCH, None),  # a batch script is not one of its job's tasks
        (TORCHRUN | {"WORLD_SIZE": "1"}, None),
        (TORCHRUN, (3, 4, 1, 2, "env://")),
        (SRUN | {"SLURM_STEP_NODELIST": "gpu[03-05,9],b"}, (2, 4, 0, 1, "tcp://gpu03:20003")),
        (SRUN | {"SLURM_STEP_NODELIST": "b,gpu3"}, (2, 4, 0, 1, "tcp://b:20003")),
        (
            SRUN | {"SLURM_STEP_NODELIST": "b", "MASTER_ADDR": "c", "MASTER_PORT": "9"},
            (2, 4, 0, 1, "tcp://c:9"),
        ),
        (SRUN | {"SLURM_STEP_NODELIST": "b"} | TORCHRUN, (3, 4, 1, 2, "env://")),
    ],
)
def test_where_a_launcher_put_this_process(environment, process):
    assert distributed.started_by(environment) == process
