"""The loop knows no single model: a network of its own, a fit of its own and further channels go the same way."""

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from training_runs import TINY, VOLUMES, heads, leaves, settings

from bids_alphagan.bids.derivatives import write_masks, write_prepared
from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.prepared import PreparedScan, prepared_scans
from bids_alphagan.bids.selection import Selection
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.common.process.interrupt import Interrupted
from bids_alphagan.common.volume import conform, read_cube
from bids_alphagan.models import MODELS, SCAN, Entry, load_model
from bids_alphagan.models.base import (
    Across,
    Batch,
    Model,
    NetworkModel,
    Networks,
    Optimisers,
    Phase,
    Settings,
    Terms,
)
from bids_alphagan.training.augment import AUGMENTATIONS, NUMBERS, augment
from bids_alphagan.training.cache import prepared_volumes
from bids_alphagan.training.data import random_source
from bids_alphagan.training.loop import train

LATENT = 3
HEADS = heads(3)
INTENSITY = ("scale", "noise", "rescale")
GEOMETRY = tuple(name for name in AUGMENTATIONS if name not in INTENSITY)


@dataclass
class Painting:
    """What a fitted painter draws: (n, C, N, N, N)."""

    network: nn.Module
    info: dict[str, Any]

    @torch.no_grad()
    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        codes = [torch.randn(LATENT, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return np.asarray(self.network(torch.stack(codes)))


class Painter(NetworkModel):
    """One network and one phase: volumes from random numbers that lie near the scans.

    stop_at: the update in which a signal asks to stop; 0: none.
    """

    name = "painter"
    drawn = "brush"
    augmentations = ("flip", "translate", *INTENSITY)

    def __init__(self, channels: int = 1, stop_at: int = 0) -> None:
        self.channels, self.stop_at, self.seen = channels, stop_at, list[tuple[int, ...]]()
        phase = Phase("paint", networks=("brush",), uses=("brush",), terms=self.terms, weights={"mse": 10})
        self.phases = (phase,)

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "channels": self.channels}

    def networks(self, size: int, settings: Settings, across: Across | None = None) -> Networks:
        shape = (self.channels, size, size, size)
        layers = nn.Linear(LATENT, int(np.prod(shape))), nn.Unflatten(1, shape), nn.Tanh()
        return {"brush": nn.Sequential(*layers)}

    def optimisers(self, networks: Networks, settings: Settings) -> Optimisers:
        return {"brush": torch.optim.Adam(networks["brush"].parameters(), settings.learning_rate)}

    def terms(self, networks: Networks, batch: Batch) -> Terms:
        self.seen.append(tuple(batch.real.shape))
        if len(self.seen) == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        painted = networks["brush"](batch.normal(LATENT))
        return {"mse": nn.functional.mse_loss(painted, batch.real), "size": painted.abs().mean()}

    def sampler(self, network: nn.Module, settings: Settings) -> Painting:
        return Painting(network, {})

    def save(self, network: nn.Module, settings: Settings, folder: Path, info: dict[str, Any]) -> Path:
        path = folder / MODELS[self.name].parameters
        tensors: dict[str, Tensor] = {name: tensor.detach() for name, tensor in network.state_dict().items()}
        save_file(tensors, path, metadata={"info": json.dumps({"model": self.name, **info})})
        return path

    def load(self, folder: Path, device: torch.device | str = "cpu") -> Painting:
        with safe_open(folder / MODELS[self.name].parameters, framework="pt") as stream:
            info = json.loads(stream.metadata()["info"])
            network = self.networks(info["size"], TINY)["brush"]
            network.load_state_dict({name: stream.get_tensor(name) for name in stream.keys()})  # noqa: SIM118
        return Painting(network, info)


@pytest.fixture
def painter(monkeypatch) -> None:
    """An entry of one channel."""
    entry = Entry("Painter", "none", lambda name, variant: Painter(), parameters="brush.safetensors")
    monkeypatch.setitem(MODELS, "painter", entry)


LONG = {"iterations": 7, "learning_rate": 0.02}


@pytest.mark.usefixtures("painter")
@pytest.mark.parametrize("ema_decay", [0.0, 0.5])
def test_a_model_of_one_network_trains_is_interrupted_and_resumes_to_the_same_result(tmp_path, ema_decay):
    goal = settings(**LONG, ema_decay=ema_decay)
    model = load_model("painter")
    result = train(HEADS, model, goal, tmp_path / "whole")
    assert (result.step, result.parameters) == (7, tmp_path / "whole" / "brush.safetensors")
    assert model.seen == [(2, 1, 16, 16, 16)] * 7
    rows = read_tsv(tmp_path / "whole" / "losses.tsv")
    assert list(rows[0]) == ["step", "paint_loss", "paint_mse", "paint_size"]
    for row in rows:
        total = 10 * float(row["paint_mse"]) + float(row["paint_size"])
        assert float(row["paint_loss"]) == pytest.approx(total, rel=1e-4)
    assert float(rows[-1]["paint_loss"]) < float(rows[0]["paint_loss"])
    assert {row["drift"] for row in read_tsv(tmp_path / "whole" / "health.tsv")} == {"n/a"}
    sampler = model.load(tmp_path / "whole")
    assert (sampler.info["model"], sampler.info["step"]) == ("painter", 7)
    assert sampler.draw([4, 5]).shape == (2, 1, 16, 16, 16)

    with pytest.raises(Interrupted, match="painter stopped at iteration 3 by SIGTERM"):
        train(HEADS, Painter(stop_at=3), goal, tmp_path / "parts")
    assert not (tmp_path / "parts" / "brush.safetensors").exists()
    resumed = Painter()
    train(HEADS, resumed, goal, tmp_path / "parts")
    assert len(resumed.seen) == 4
    assert leaves(tmp_path / "parts") == leaves(tmp_path / "whole")


@pytest.mark.usefixtures("painter")
def test_another_model_of_the_same_name_is_another_run(tmp_path):
    class Other(Painter):
        def record(self) -> dict[str, Any]:
            return super().record() | {"colour": "red"}

    train(VOLUMES, Painter(), settings(iterations=1), tmp_path)
    with pytest.raises(UserError, match=r"another run: model\.colour is 'red', was None"):
        train(VOLUMES, Other(), TINY, tmp_path)


@dataclass
class Around:
    """Draws the mean of the scans with some noise."""

    mean: np.ndarray
    info: dict[str, Any]

    def draw(self, seeds: Sequence[int]) -> np.ndarray:
        noise = [np.random.default_rng(seed).normal(0, 0.1, self.mean.shape) for seed in seeds]
        return (self.mean + np.array(noise)).clip(-1, 1).astype(np.float32)


class Mean(Model):
    """A fit of its own, without networks."""

    name = "mean"

    def record(self) -> dict[str, Any]:
        return {"name": self.name}

    def fit(self, volumes: np.ndarray, settings: Settings, folder: Path, device: torch.device) -> None:
        np.save(folder / "mean.npy", volumes.mean(0))

    def load(self, folder: Path, device: torch.device | str = "cpu") -> Around:
        mean = np.load(folder / "mean.npy")
        return Around(mean, {"model": self.name, "size": mean.shape[-1]})


@pytest.mark.usefixtures("painter")
def test_a_model_with_a_fit_of_its_own_is_fitted_by_the_same_call(tmp_path, monkeypatch):
    entry = Entry("Mean", "none", lambda name, variant: Mean(), parameters="mean.npy")
    monkeypatch.setitem(MODELS, "mean", entry)
    train(VOLUMES, Painter(), TINY, tmp_path)  # whose files do not stay
    (tmp_path / "brush.safetensors").unlink()
    model = load_model("mean")
    result = train(VOLUMES, model, TINY, tmp_path)
    assert result.parameters == tmp_path / "mean.npy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "mean.npy"]
    config = read_json(tmp_path / "config.json")
    assert (config["model"], config["data"]["scans"]) == ({"name": "mean"}, 3)
    sampler = model.load(tmp_path)
    np.testing.assert_array_equal(sampler.mean, VOLUMES.mean(0))
    assert sampler.draw(range(4)).shape == (4, 1, 16, 16, 16)
    with pytest.raises(UserError, match=r"shape \(2, 2, 16, 16, 16\)"):
        train(np.zeros((2, 2, 16, 16, 16), np.float32), model, TINY, tmp_path)


# Further channels


BRIGHT = 600


@pytest.fixture
def scans(tmp_path: Path) -> list[PreparedScan]:
    """Three scans in two orientations, prepared, whose grey matter is where they are bright."""
    output = tmp_path / "out"
    for number, order in enumerate(("RAS", "LPI", "RAS"), start=1):
        name = ScanName((("sub", f"{number:02d}"),), "T2w")
        data = np.random.default_rng(number).uniform(1, 1000, (14, 16, 12)).astype(np.float32)
        turn = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", order)))
        raw = nib.Nifti1Image(data, np.diag([0.5, 0.75, 1.25, 1])).as_reoriented(turn)
        data = np.asarray(raw.dataobj)
        cube, affine, record = conform(raw, 16, 100.0)
        write_prepared(output, name, raw, "bids:raw:x", data, nib.Nifti1Image(cube, affine), record, {})
        grey = data > BRIGHT
        maps = {"GM": grey, "WM": ~grey, "CSF": 0 * grey, "dseg": 2 - grey, "brain": data > 0}
        write_masks(output, name, raw, maps, "bids::x", {}, {})
    return prepared_scans(tmp_path / "raw", output, Selection(), 16)


def test_maps_are_channels_on_the_grid_of_their_scan(scans, tmp_path):
    volumes = prepared_volumes(scans, tmp_path / "work", (SCAN, "GM"))
    assert volumes.array.shape == (3, 2, 16, 16, 16)
    for scan, (cube, grey) in zip(scans, volumes.array, strict=True):
        np.testing.assert_array_equal(cube, read_cube(scan.preproc))
        low, high = scan.record["IntensityRange"]
        intensity = (cube + 1) / 2 * (high - low) + low
        np.testing.assert_array_equal(grey, np.where(intensity > BRIGHT, 1, -1))
        assert 0.2 < (grey == 1).mean() < 0.4
    alone = prepared_volumes(scans, tmp_path / "work", (SCAN,))
    np.testing.assert_array_equal(alone.array, volumes.array[:, :1])
    assert alone.sha256 != volumes.sha256


def test_a_scan_without_a_map_that_is_a_channel_is_named(scans, tmp_path):
    del scans[1].masks["GM"]
    with pytest.raises(UserError, match=r"sub-02.* no map of GM.*--segmenter ants or spm"):
        prepared_volumes(scans, tmp_path / "work", (SCAN, "WM", "GM"))


def test_every_augmentation_is_of_geometry_or_of_intensity():
    assert {*GEOMETRY, *INTENSITY} == set(AUGMENTATIONS)
    assert len(GEOMETRY) == 4


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_geometry_changes_all_channels_alike_and_intensity_the_scan_alone(scans, tmp_path, name):
    volumes = torch.tensor(prepared_volumes(scans, tmp_path / "work", (SCAN, "GM")).array)
    if name == "rescale":
        volumes = volumes / 2
    function, _ = AUGMENTATIONS[name]
    numbers = np.random.default_rng(5).random((3, NUMBERS))
    result = function(volumes, numbers)
    assert torch.equal(result[:, :1], function(volumes[:, :1], numbers))
    assert not torch.equal(result[:, :1], volumes[:, :1])
    if name in INTENSITY:
        assert torch.equal(result[:, 1:], volumes[:, 1:])
    else:
        assert torch.equal(result[:, 1:], function(volumes[:, 1:], numbers))
        assert not torch.equal(result[:, 1:], volumes[:, 1:])


def test_the_geometry_of_a_sample_is_one_for_all_its_channels():
    twice = torch.tensor(VOLUMES).repeat(20, 2, 1, 1, 1)
    result = augment(twice, GEOMETRY, random_source(3))
    assert torch.equal(result[:, 0], result[:, 1])
    changed = (result != twice).flatten(1).any(1)
    assert 0 < changed.sum() < len(twice)
    result = augment(twice, [*GEOMETRY, *INTENSITY], random_source(3))
    assert not torch.equal(result[:, 0], result[:, 1])


def test_a_model_of_two_channels_is_trained_and_draws_both(scans, tmp_path, monkeypatch):
    channels = (SCAN, "GM")
    entry = Entry("Painter", "none", lambda name, variant: Painter(2), channels, "brush.safetensors")
    monkeypatch.setitem(MODELS, "painter", entry)
    volumes = prepared_volumes(scans, tmp_path / "work", MODELS["painter"].channels)
    model = load_model("painter")
    train(volumes, model, settings(iterations=40, learning_rate=0.02), tmp_path / "model")
    assert model.seen == [(2, 2, 16, 16, 16)] * 40
    rows = read_tsv(tmp_path / "model" / "losses.tsv")
    assert float(rows[-1]["paint_mse"]) < 0.8 * float(rows[0]["paint_mse"])
    assert model.load(tmp_path / "model").draw([1]).shape == (1, 2, 16, 16, 16)
    assert np.load(tmp_path / "model" / "samples" / "step-000040.npy").shape == (4, 3, 16, 16)
    with pytest.raises(UserError, match="painter learns 2 channels"):
        train(VOLUMES, model, TINY, tmp_path / "other")
