"""What a run leaves to be read, on a terminal and without one, and after it went back."""

import io
import sys

import numpy as np
import pytest
import torch
import tqdm.std
from training_runs import VOLUMES, settings

from bids_alphagan.common.files import read_tsv
from bids_alphagan.models import load_model
from bids_alphagan.training import loop
from bids_alphagan.training.logger import Logger, slices
from bids_alphagan.training.loop import train


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass as the test says."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


def test_without_a_terminal_progress_is_a_line_every_half_minute(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Logger(tmp_path, "sigmarat2", 0, 1000) as log:
        for step in range(1, 91):
            clock[0] += 1
            if step % 10 == 0:
                log.losses(step, {"generator_loss": 1.5 * step, "generator_mse": 2.0})
            log.advance()
    said = sys.stderr.getvalue()
    assert "\r" not in said
    assert "\x1b" not in said
    lines = said.splitlines()
    assert len(lines) == 5  # at the start, three times, at the end
    assert lines[1] == "sigmarat2: 30/1000 [00:30<16:10,  1.00it/s, G=45]"


def test_on_a_terminal_progress_is_one_line_that_changes(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Logger(tmp_path, "sigmarat2", 500, 1000) as log:
        for _ in range(10):
            clock[0] += 1
            log.advance()
    said = sys.stderr.getvalue()
    assert said.count("\n") == 1
    assert "510/1000" in said
    assert "1.00" in said


def test_tables_are_cut_where_the_run_went_back(tmp_path):
    with Logger(tmp_path, "sigmarat2", 0, 10) as log:
        for step in range(1, 6):
            log.losses(step, {"generator_loss": step / 3})
            log.samples(step, VOLUMES[:, 0], keep=True)
        log.health(4, {"drift": 0.25, "diversity": None})
        log.rewind(3)
        log.losses(4, {"generator_loss": 7.0})
        log.health(5, {"drift": 0.5, "diversity": 1.0})
    rows = read_tsv(tmp_path / "losses.tsv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[-1]["generator_loss"] == "7"
    assert read_tsv(tmp_path / "health.tsv") == [{"step": "5", "drift": "0.5", "diversity": "1"}]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        f"step-00000{step}.npy" for step in (1, 2, 3)
    ]


@pytest.mark.parametrize("torn", ["3\t0.7", "\0\0\0\0\n\0\0", "3\t\0\0\0\n", "\ufffd\n"])
def test_a_torn_end_of_a_table_is_dropped(tmp_path, torn):
    whole = "step\tgenerator_loss\n1\t0.5\n2\t0.6\n"
    (tmp_path / "losses.tsv").write_text(whole + torn)
    with Logger(tmp_path, "sigmarat2", 2, 10):
        pass
    assert (tmp_path / "losses.tsv").read_text() == whole


def test_slices_are_the_middle_of_each_axis():
    volume = np.full((1, 8, 8, 8), -1.0, np.float32)
    volume[0, 4, 1, 2] = 1
    volume[0, 1, 4, 3] = 0
    volume[0, 6, 7, 4] = 2  # beyond the range
    planes = slices(volume)
    assert planes.shape == (1, 3, 8, 8)
    assert planes.dtype == np.uint8
    assert (planes[0, 0, 1, 2], planes[0, 1, 1, 3], planes[0, 2, 6, 7]) == (255, 128, 255)
    assert planes.astype(int).sum() == 255 + 128 + 255


def test_samples_of_the_same_latents_are_kept_at_ever_longer_distances_and_at_the_end(tmp_path, monkeypatch):
    nothing = {"discriminator_wasserstein": torch.zeros(())}
    monkeypatch.setattr(loop, "iteration", lambda *_: nothing)
    many = 10**6
    idle = settings(iterations=9999, log_every=many, checkpoint_every=many)
    train(VOLUMES, load_model("sigmarat2"), idle, tmp_path)
    files = sorted((tmp_path / "samples").iterdir())
    steps = [int(path.stem.removeprefix("step-")) for path in files]
    assert steps == [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 9999]
    assert len({path.read_bytes() for path in files}) == 1


def test_kept_samples_are_slices_of_what_has_been_learned(tmp_path):
    train(VOLUMES, load_model("sigmarat2"), settings(iterations=12), tmp_path)
    files = sorted((tmp_path / "samples").iterdir())
    assert [path.name for path in files] == ["step-000010.npy", "step-000012.npy"]
    first, last = (np.load(path, allow_pickle=False) for path in files)
    assert first.shape == last.shape == (loop.SHOWN, 3, 16, 16)
    assert (first != last).any()
