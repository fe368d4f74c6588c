"""A run that is stopped, killed or cut off the power, at any moment, ends as an uninterrupted one."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from training_runs import VOLUMES, leaves, settings

from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import Stopped, UserError
from bids_alphagan.common.process import interrupt
from bids_alphagan.common.process.interrupt import Interrupted
from bids_alphagan.common.process.threads import use_threads
from bids_alphagan.models import load_model
from bids_alphagan.models.alphagan.model import AlphaGan
from bids_alphagan.training import checkpoint, loop
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import iteration

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
MODEL = load_model("sigmarat2")
LONG = settings(iterations=40, checkpoint_every=4, on_divergence="rollback", use_checkpoint="best")
KILLS = 12


def run(folder: Path, begun: Any) -> None:
    """What a killed process did, and what the next one does: the same."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a new process of this kind ignores it at first
    use_threads(1)  # whatever the environment says by now
    begun.set()
    try:
        train(VOLUMES, MODEL, LONG, folder)
    except Interrupted as stop:
        sys.exit(128 + stop.by)


@pytest.mark.slow
def test_a_process_killed_many_times_ends_as_if_never_killed(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")  # torch is loaded once
    processes.set_forkserver_preload(["bids_alphagan.training.loop", "bids_alphagan.models.alphagan.model"])
    chance, killed = random.Random(7), tmp_path / "killed"
    table = killed / "losses.tsv"
    codes = []
    numbers = [signal.SIGKILL, *SIGNALS] * (KILLS // 4)
    chance.shuffle(numbers)
    for number, goal in zip(numbers, sorted(chance.sample(range(1, 26), KILLS)), strict=True):
        begun = processes.Event()
        process = processes.Process(target=run, args=(killed, begun))
        process.start()
        begun.wait(60)
        while process.is_alive() and not (table.is_file() and table.read_text().count("\n") > goal):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.15))  # anywhere in an iteration, a checkpoint, a look at samples
        assert process.pid
        os.kill(process.pid, number)
        process.join(60)
        codes.append(process.exitcode)
        assert process.exitcode in (-number, 128 + number)  # the former before training has begun
    assert codes.count(-signal.SIGKILL) >= 2
    train(VOLUMES, MODEL, LONG, killed)
    train(VOLUMES, MODEL, LONG, tmp_path / "whole")
    assert leaves(killed) == leaves(tmp_path / "whole")


def test_two_runs_at_once_are_refused_and_a_dead_one_is_no_obstacle(tmp_path: Path) -> None:
    processes = multiprocessing.get_context("forkserver")
    begun = processes.Event()
    first = processes.Process(target=run, args=(tmp_path, begun))
    first.start()
    while first.is_alive() and not (tmp_path / "losses.tsv").is_file():
        time.sleep(0.01)
    with pytest.raises(UserError, match=f"Another run is training in {tmp_path}"):
        train(VOLUMES, MODEL, LONG, tmp_path)
    assert first.is_alive()
    first.kill()
    first.join()
    train(VOLUMES, MODEL, LONG, tmp_path)
    train(VOLUMES, MODEL, LONG, tmp_path / "whole")
    ours = {name: leaf for name, leaf in leaves(tmp_path).items() if not name.startswith("whole/")}
    assert ours == leaves(tmp_path / "whole")


class Death(BaseException):
    """Stands for the moment of a power cut."""


class Disk:
    """Counts what the run asks of the disk, and fails for good at call number `last`.

    After the cut, a file holds what it held when it was last synchronised; names are as they were.
    """

    def __init__(self, patch: pytest.MonkeyPatch, last: int) -> None:
        self._calls, self._last = 0, last
        self._sizes: dict[int, int] = {}
        self._fsync = os.fsync
        for name in ("replace", "unlink"):
            patch.setattr(os, name, self._counted(getattr(os, name)))
        patch.setattr(os, "fsync", self._counted(self._synchronised))

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls >= self._last:
                raise Death
            return function(*arguments, **options)

        return call

    def _synchronised(self, handle: int) -> None:
        self._fsync(handle)
        self._sizes[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    def cut(self, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file() and "tensorboard" not in path.parts:
                safe, size = self._sizes.get(path.stat().st_ino, 0), path.stat().st_size
                if size > safe:
                    with path.open("r+b") as stream:
                        stream.seek(safe)
                        stream.write(bytes(size - safe))  # blocks that never arrived read as zeros


@pytest.mark.slow
def test_a_power_cut_between_any_two_writes_changes_nothing(tmp_path: Path) -> None:
    short = settings(iterations=2, checkpoint_every=1, on_divergence="rollback")
    train(VOLUMES, MODEL, short, tmp_path / "whole")
    expected = leaves(tmp_path / "whole")
    cut, moment = True, 0
    while cut:
        moment, folder = moment + 1, tmp_path / str(moment)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, last=moment)
            try:
                train(VOLUMES, MODEL, short, folder)
            except Death:
                disk.cut(folder)
            else:
                cut = False
        train(VOLUMES, MODEL, short, folder)
        assert leaves(folder) == expected, f"cut at the {moment}th call"
    assert moment > 30


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_iteration_saves_and_gives_the_handlers_back(tmp_path, monkeypatch, number):
    def interrupted(*arguments: object) -> dict[str, torch.Tensor]:
        if arguments[-1] == 2:
            signal.raise_signal(number)
            if number == signal.SIGINT:
                assert signal.getsignal(number) is before  # a second one acts at once
            else:
                signal.raise_signal(number)  # Slurm signals the app and apptainer, which hands it on
        return iteration(*arguments)

    before = signal.getsignal(number)
    monkeypatch.setattr(loop, "iteration", interrupted)
    with pytest.raises(Interrupted, match=f"iteration 3 by {number.name}") as caught:
        train(VOLUMES, MODEL, settings(iterations=9), tmp_path)
    assert caught.value.by == number
    assert signal.getsignal(number) is before
    assert checkpoint.newest(tmp_path / "checkpoints").step == 3
    assert not (tmp_path / "generator.safetensors").exists()


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_acts_as_it_did_before(monkeypatch, second):
    acted, handlers = [], {number: signal.getsignal(number) for number in SIGNALS}
    monkeypatch.setattr(interrupt, "AT_ONCE", 0)
    try:
        for number in SIGNALS:
            signal.signal(number, lambda number, frame: acted.append(number))
        with interrupt.requests() as request:
            signal.raise_signal(signal.SIGTERM)
            assert (request.by, acted) == (signal.SIGTERM, [])
            signal.raise_signal(second)
            assert acted == [second]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_a_signal_after_the_last_iteration_is_not_lost(tmp_path):
    class Late(AlphaGan):
        def save(self, *arguments: Any) -> Path:
            signal.raise_signal(signal.SIGTERM)
            return super().save(*arguments)

    with pytest.raises(Interrupted, match="iteration 4 by SIGTERM"):
        train(VOLUMES, Late.named("sigmarat2"), settings(), tmp_path)
    assert (tmp_path / "generator.safetensors").exists()


def test_the_app_ends_on_a_clusters_warning_with_its_own_exit_code(monkeypatch, capsys):
    def warned(argv: object) -> None:
        signal.raise_signal(signal.SIGUSR1)

    handlers = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGHUP)}
    monkeypatch.setattr(cli, "parse", warned)
    try:
        assert cli.main([]) == 128 + signal.SIGUSR1 == 138
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "stopped by SIGUSR1. The same command resumes from here" in capsys.readouterr().err
    assert not issubclass(Stopped, Exception)


def python(program: str) -> "subprocess.CompletedProcess[str]":
    """Run a program, also where the tests run under nohup: there, its children ignore SIGHUP."""
    default = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    command = [sys.executable, "-c", default + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


SENT_WHILE_IT_IMPORTS = """
import importlib.abc, signal, sys

class First(importlib.abc.MetaPathFinder):
    def find_spec(self, name, *others):
        if name == "bids_alphagan.cli.main":
            signal.raise_signal({number})

sys.meta_path.insert(0, First())
from bids_alphagan.__main__ import main
sys.exit(main())
"""
SENT_AT_THE_END = """
import os, signal, sys
from bids_alphagan.__main__ import main
from bids_alphagan.cli import main as cli

class Last:  # goes when Python has given the signals their defaults back
    def __del__(self, kill=os.kill, process=os.getpid()):
        kill(process, {number})

last = Last()
cli.parse = lambda argv: signal.raise_signal({number})
sys.exit(main())
"""


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP])
def test_a_signal_of_the_first_moments_is_not_lost(number: signal.Signals) -> None:
    """As process 1 of a container, the app would not get one that it does not handle."""
    assert python(SENT_WHILE_IT_IMPORTS.format(number=int(number))).returncode == 128 + number
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["bids-alphagan"] == "bids_alphagan.__main__:main"


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGHUP])
def test_a_second_signal_at_the_end_does_not_change_the_exit_code(number: signal.Signals) -> None:
    done = python(SENT_AT_THE_END.format(number=int(number)))
    assert done.returncode == 128 + number
    assert "The same command resumes from here" in done.stderr


def test_what_nohup_ignores_stays_ignored() -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + SENT_WHILE_IT_IMPORTS
    done = python(program.format(number=int(signal.SIGHUP)))
    assert done.returncode == 2  # as without arguments
    assert "the following arguments are required" in done.stderr
