import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from bids_alphagan.common.errors import UserError
from bids_alphagan.models import MODELS, VARIANTS, load_model
from bids_alphagan.models.alphagan.generator import (
    GENERATOR_FILE,
    GeneratorSampler,
    draw_latent,
    for_sampling,
    generate,
    load_generator,
    save_generator,
)
from bids_alphagan.models.alphagan.layers import FromLatent, UpsampleConv3d
from bids_alphagan.models.alphagan.losses import RECONSTRUCTION
from bids_alphagan.models.alphagan.networks import Networks, build_generator, build_networks
from bids_alphagan.models.alphagan.spec import SPECS, from_record, variant
from bids_alphagan.training.augment import AUGMENTATIONS

PARAMETERS = {
    "adni": {
        "generator": 37_416_512,
        "encoder": 43_785_896,
        "discriminator": 11_049_665,
        "code_discriminator": 20_901_889,
    },
    "sigmarat1": {
        "generator": 21_030_592,
        "encoder": 27_399_604,
        "discriminator": 11_047_873,
        "code_discriminator": 18_853_889,
    },
    "sigmarat2": {
        "generator": 21_030_592,
        "encoder": 27_399_604,
        "discriminator": 11_047_873,
        "code_discriminator": 18_837_505,
    },
}

# Figures 5 and 6: convolution of each stage (ConvTranspose, UpsampleConv, Conv), spectral norm, what follows
UP = ["T{L}>512 k4s1p0", "U512>256 k3s1p1", "U256>128 k3s1p1", "U128>64 k3s1p1", "U64>1 k3s1p1"]
DOWN = ["C1>64 k4s2p1 bias", "C64>128 k4s2p1 bias", "C128>256 k4s2p1 bias", "C256>512 k4s2p1 bias"]
CODE = ["L{L}>4096 bias", "L4096>4096 bias", "L4096>1 bias"]
LEAKY = "leaky0.2"
LAYERS = {
    ("adni", "generator"): (UP, False, [["BN", "relu"]] * 4 + [["tanh"]]),
    ("sigmarat1", "generator"): (UP, True, [["IN", "leaky0.01"]] * 4 + [["tanh"]]),
    ("sigmarat2", "generator"): (UP, False, [["IN", "leaky0.01"]] * 4 + [["tanh"]]),
    ("adni", "discriminator"): ([*DOWN, "C512>1 k4s1p0 bias"], False, [[LEAKY], *[["BN", LEAKY]] * 3, []]),
    ("sigmarat1", "discriminator"): (
        [*DOWN, "C512>1 k4s1p0 bias"],
        True,
        [[LEAKY], *[["IN", LEAKY]] * 3, []],
    ),
    ("sigmarat2", "discriminator"): ([*DOWN, "C512>1 k4s1p0 bias"], True, [*[[LEAKY]] * 4, []]),
    ("adni", "encoder"): ([*DOWN, "C512>{L} k4s1p0 bias"], False, [[LEAKY], *[["BN", LEAKY]] * 3, []]),
    ("sigmarat1", "encoder"): ([*DOWN, "C512>{L} k4s1p0 bias"], True, [[LEAKY], *[["IN", LEAKY]] * 3, []]),
    ("sigmarat2", "encoder"): ([*DOWN, "C512>{L} k4s1p0 bias"], False, [[LEAKY], *[["IN", LEAKY]] * 3, []]),
    ("adni", "code_discriminator"): (CODE, False, [*[["BN", LEAKY]] * 2, []]),
    ("sigmarat1", "code_discriminator"): (CODE, True, [*[["BN", LEAKY]] * 2, []]),
    ("sigmarat2", "code_discriminator"): (CODE, True, [*[[LEAKY]] * 2, []]),
}


@pytest.fixture(scope="module")
def paper() -> dict[str, Networks]:
    with torch.device("meta"):  # shapes without weights
        return {name: build_networks(spec, size=64, channels=64) for name, spec in SPECS.items()}


def _describe(module: nn.Module) -> str:
    match module:
        case nn.Linear():
            text = f"L{module.in_features}>{module.out_features}"
        case nn.ConvTranspose3d() | nn.Conv3d():
            kind = {FromLatent: "T", UpsampleConv3d: "U"}.get(_plain(module), "C")
            text = f"{kind}{module.in_channels}>{module.out_channels} k{_one(module.kernel_size)}"
            text += f"s{_one(module.stride)}p{_one(module.padding)}"
        case nn.BatchNorm3d() | nn.BatchNorm1d():
            return "BN" if module.affine and module.track_running_stats else "BN without its parts"
        case nn.InstanceNorm3d():
            return "IN with parts" if module.affine or module.track_running_stats else "IN"
        case nn.LeakyReLU():
            return f"leaky{module.negative_slope}"
        case _:
            return type(module).__name__.lower()
    return text + (" bias" if module.bias is not None else "")


def _plain(module: nn.Module) -> type:
    return type(module).__mro__[1] if is_parametrized(module) else type(module)


def _one(numbers: tuple[int, ...]) -> int:
    (number,) = set(numbers)
    return number


@pytest.mark.parametrize("name", SPECS)
def test_parameter_counts_are_the_papers(paper, name):
    counts = {k: sum(p.numel() for p in n.parameters()) for k, n in vars(paper[name]).items()}
    assert counts == PARAMETERS[name]


@pytest.mark.parametrize(("model", "network"), LAYERS)
def test_layers_are_the_papers(paper, model, network):
    weighted, spectral, following = LAYERS[model, network]
    expected = []
    for layer, after in zip(weighted, following, strict=True):
        expected += [(layer.format(L=SPECS[model].latent), spectral), *((name, False) for name in after)]
    layers = [(_describe(m), is_parametrized(m, "weight")) for m in getattr(paper[model], network)]
    assert [pair for pair in layers if pair[0] != "flatten"] == expected


@pytest.mark.parametrize("name", SPECS)
def test_settings_are_the_papers(name):
    spec = SPECS[name]
    rat = ("rotate", "flip", "scale", "zoom", "noise", "rescale", "translate")
    assert {
        "adni": (1000, "Adam", 0.0, {"l1": 10}, 10, ("flip",)),
        "sigmarat1": (500, "Adam", 0.0, {"l1": 10, "mse": 10}, 10, rat),
        "sigmarat2": (500, "AdamW", 0.01, {"gdl": 0.01, "mse": 100}, 100, rat),
    }[name] == (
        spec.latent,
        spec.optimiser,
        spec.weight_decay,
        spec.reconstruction,
        spec.gradient_penalty,
        spec.augmentations,
    )


@pytest.mark.parametrize("key", SPECS)
def test_every_model_names_what_exists(key):
    spec = SPECS[key]
    assert spec.name == key
    assert set(spec.reconstruction) <= set(RECONSTRUCTION)
    assert set(spec.augmentations) <= set(AUGMENTATIONS)
    assert "doi:10." in spec.citation
    entry = MODELS[key]
    assert (entry.title, entry.citation, entry.channels) == (spec.title, spec.citation, ("scan",))
    for which in VARIANTS:
        model = load_model(key, which)
        assert model.name == key
        assert model.record() == asdict(variant(spec, which))


@pytest.mark.parametrize("size", [16, 24, 32, 40, 56, 64])
@pytest.mark.parametrize("name", SPECS)
def test_shapes_at_every_size(name, size):
    networks = build_networks(SPECS[name], size, channels=1, latent=7)
    volumes = networks.generator(torch.randn(2, 7))
    assert volumes.shape == (2, 1, size, size, size)
    assert volumes.abs().max() <= 1
    assert networks.discriminator(volumes).shape == (2, 1)
    codes = networks.encoder(volumes)
    assert codes.shape == (2, 7)
    assert networks.code_discriminator(codes).shape == (2, 1)


@pytest.mark.parametrize(
    "numbers",
    [{"size": 8}, {"size": 50}, {"size": 65}, {"size": 320}, {"channels": 0}, {"latent": 0}, {"latent": -3}],
)
def test_impossible_numbers_are_refused_when_built(numbers):
    with pytest.raises(ValueError, match=str(next(iter(numbers.values())))):
        build_networks(SPECS["sigmarat2"], **({"size": 16, "channels": 1, "latent": 3} | numbers))


def test_the_released_variant_is_the_notebooks():
    for name, spec in SPECS.items():
        assert variant(spec, "paper") is spec
        released = variant(spec, "released")
        assert released.variant == "released"
        assert released.generator_updates == 2
        assert released.without_gradient == (("gdl",) if name == "sigmarat2" else ())
        assert from_record(json.loads(json.dumps(asdict(released)))) == released
    with pytest.raises(ValueError, match="choose paper or released"):
        variant(spec, "papers")


@pytest.mark.parametrize("name", SPECS)
def test_a_saved_generator_gives_the_same_scans(tmp_path, name):
    network = build_generator(SPECS[name], 16, 2, 5)
    network(torch.randn(4, 5))  # moves the statistics of batch and spectral normalisation
    info = {"model": name, "size": 16, "channels": 2, "latent": 5, "step": 9}
    path = save_generator(tmp_path, network, info)
    assert path == tmp_path / GENERATOR_FILE
    loaded = load_generator(tmp_path)
    assert (loaded.latent, loaded.info) == (5, info)
    latents = np.stack([draw_latent(seed, 5) for seed in range(3)])
    volumes = generate(loaded, latents, batch_size=2)
    assert volumes.shape == (3, 16, 16, 16)
    assert volumes.dtype == np.float32
    np.testing.assert_array_equal(volumes, generate(GeneratorSampler(network.eval(), 5, {}), latents, 2))
    # a scan depends on its latent, not on its neighbours in the batch
    np.testing.assert_allclose(volumes[1], generate(loaded, latents[1:2])[0], atol=1e-5)
    assert not np.allclose(volumes[0], volumes[1], atol=1e-3)


@pytest.mark.parametrize("name", SPECS)
def test_sampling_does_not_depend_on_the_codes_seen_in_training(name):
    network = build_generator(SPECS[name], 16, 2, 5)
    for _ in range(50):
        network(30 * torch.randn(4, 5))  # as long as an encoder's codes may be
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    sampler = for_sampling(network, 5)
    assert network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert not sampler.training
    latents = torch.randn(64, 5)
    # in training mode this batch is normalised by its own statistics, those of random latents
    torch.testing.assert_close(
        sampler(latents).std(0).mean(), network(latents).std(0).mean(), rtol=0.2, atol=0
    )


def test_an_unusable_generator_is_an_error_that_names_it(tmp_path):
    with pytest.raises(UserError, match="no trained generator"):
        load_generator(tmp_path)
    (tmp_path / GENERATOR_FILE).write_bytes(b"not a tensor")
    with pytest.raises(UserError, match=GENERATOR_FILE):
        load_generator(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / GENERATOR_FILE)
    with pytest.raises(UserError, match=GENERATOR_FILE):
        load_generator(tmp_path)


def test_a_latent_follows_from_its_seed():
    np.testing.assert_array_equal(draw_latent(3, 50), draw_latent(3, 50))
    assert not np.array_equal(draw_latent(3, 50), draw_latent(4, 50))
    drawn = np.concatenate([draw_latent(seed, 100) for seed in range(50)])
    assert abs(drawn.mean()) < 0.06
    assert abs(drawn.std() - 1) < 0.06


def loaded_by(program: str, *names: str) -> list[str]:
    """Those of the packages that a new Python has loaded after the program."""
    ask = f"import sys\n{program}\nprint(*sorted({set(names)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("door", ["models", "segmenters", "evaluation"])
def test_the_doors_load_nothing_heavy(door):
    heavy = ("torch", "monai", "nipype", "bids", "ants")
    assert loaded_by(f"import bids_alphagan.{door}", *heavy) == []


ALL_MODULES = """
import importlib, pkgutil
from bids_alphagan import models, synthesis, training
for package in (models, synthesis, training):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
"""


def test_training_imports_neither_nipype_nor_pybids():
    assert loaded_by(ALL_MODULES, "torch", "nipype", "bids", "ants") == ["torch"]
