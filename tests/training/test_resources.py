"""Time and memory are logged before they run out, and running out is one clear line."""

import logging
import re
from datetime import timedelta

import pytest
import torch
from training_runs import VOLUMES, settings

from bids_alphagan.common.errors import UserError
from bids_alphagan.models import load_model
from bids_alphagan.training import loop, resources
from bids_alphagan.training.loop import train
from bids_alphagan.training.phases import initial_networks

CPU = torch.device("cpu")
MODEL = load_model("sigmarat2")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (4.4, "4 s"),
        (65, "1 min 5 s"),
        (3 * 3600 + 20 * 60 + 59, "3 h 20 min"),
        (50 * 3600, "2 d 2 h"),
    ],
)
def test_durations_read_well(seconds, words):
    assert resources.duration(timedelta(seconds=seconds)) == words


def test_the_forecast_is_one_line_from_a_few_iterations(caplog, monkeypatch):
    clock = iter([100.0, 100.3])  # after the first iteration, and after five more
    monkeypatch.setattr(resources.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(resources, "memory", lambda device: (2.1e9, 2.2e9))
    forecast = resources.Forecast("sigmarat2", CPU)
    with caplog.at_level(logging.INFO):
        for done in range(1, 20):
            forecast.advance(200_000 - done)
    first, second = (record.getMessage() for record in caplog.records)
    assert "the next 199994 iterations will take about 3 h 20 min at 0.06 s each, and 2.1 GB" in first
    assert re.search(r"finished about \w{3} \d{2} \w{3} \d{2}:\d{2}", first)
    assert "nearly all of the 2.2 GB" in second
    assert all(flag in second for flag in ("--batch-size", "--channels", "--grid"))


def test_a_run_says_what_it_will_take(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train(VOLUMES, MODEL, settings(iterations=7), tmp_path)
    assert caplog.text.count("the next 1 iterations will take about") == 1


def test_the_memory_of_this_machine_and_process():
    held = torch.ones(2**25)  # 128 MiB
    used, there = resources.memory(CPU)
    assert held.nbytes < used < there < 1e14


def test_networks_beyond_the_memory_are_a_warning_at_once(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    large = settings(channels=64, batch_size=4, latent=500)
    networks = initial_networks(MODEL, large, 64)
    for there, words in (
        (3e9, "needs about 2.2 GB of memory\n"),
        (2e9, "but only 2.0 GB are available: a smaller --batch"),
    ):
        monkeypatch.setattr(resources, "memory", lambda device, there=there: (0, there))
        resources.log_memory(MODEL, networks, 64, large, CPU)
        assert words in caplog.text
    # python benchmarks/training.py speed --preset paper --device cpu: peak_memory_gb 2.15
    assert resources.estimate(MODEL, networks, 64, large) == pytest.approx(2.15e9, rel=0.1)


@pytest.mark.parametrize(
    "fails",
    [
        lambda *_: torch.empty(2**55),
        lambda *_: bytearray(2**62),
        lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory. Tried\nmany")),
    ],
)
def test_running_out_of_memory_is_one_line_of_advice(tmp_path, monkeypatch, fails):
    monkeypatch.setattr(loop, "iteration", lambda *arguments: next(iter(fails(arguments)), None))
    with pytest.raises(
        UserError, match=r"not enough memory \(.*\): a smaller --batch-size, --channels or"
    ) as e:
        train(VOLUMES, MODEL, settings(), tmp_path)
    assert "\n" not in str(e.value)


def test_other_errors_are_left_alone(tmp_path, monkeypatch):
    def fails(*arguments: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(loop, "iteration", fails)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(VOLUMES, MODEL, settings(), tmp_path)
