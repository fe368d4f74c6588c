"""What the data cost in training at paper size: opening the scans, gathering and augmenting their batches.

Prints one JSON object. host_*: microseconds of an iteration that the host spends on random numbers, indices
and dispatching the augmentation (its work measured on volumes of 2 x 2 x 2 voxels), which a GPU has to hide;
calls_*: how many calls of torch that are. sample_*: milliseconds of each augmentation of one sample on this
CPU, with one thread. host_* and sample_* are this thread's processor time.
"""

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bids_alphagan.models import MODELS
from bids_alphagan.training import prepared
from bids_alphagan.training.augment import (
    AUGMENTATIONS,
    NUMBERS,
    augment,
    batch_indices,
    data_hash,
    random_source,
)
from bids_alphagan.training.data import Batches


def seconds(
    function: Callable[[], Any], times: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The mean of `times` calls."""
    function()
    began = clock()
    for _ in range(times):
        function()
    return (clock() - began) / times


def processor(function: Callable[[], Any], times: int) -> float:
    """As `seconds`, of this thread's own time: other programs on the machine count less."""
    return seconds(function, times, time.thread_time)


def phantom_scans(folder: Path, n: int, grid: int) -> list[Path]:
    """Noise with empty margins, which is packed about as well as a scan."""
    paths = [folder / f"{k}.nii.gz" for k in range(n)]
    for k, path in enumerate(paths):
        cube = np.random.default_rng(k).uniform(-1, 1, (grid,) * 3).astype(np.float32)
        cube[: grid // 4] = cube[-grid // 4 :] = -1
        nib.save(nib.Nifti1Image(cube, np.eye(4)), path)
    return paths


def rest() -> None:
    """Of an iteration, during which the next batch is gathered."""
    time.sleep(0.01)


class Calls(TorchDispatchMode):
    """Counts calls that make a device compute or copy, not those that look at a tensor in another way."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.total += not (func.is_view or "lift_fresh" in func.name())
        return result


def host(n: int, batch_size: int, names: tuple[str, ...], latent: int, step: int) -> None:
    """What an iteration draws on the host, and what it dispatches for the augmentation."""
    source, few = random_source(0, 1, step), torch.zeros(batch_size, 1, 2, 2, 2)
    for phase in range(3):
        if phase < 2:
            batch_indices(n, batch_size, 0, 2 * step + phase)
            augment(few, names, source)
        torch.randn((batch_size, latent), generator=source)
        torch.rand((2, batch_size), generator=source)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scans", type=int, default=210)
    parser.add_argument("--grid", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    n, batch_size = options.scans, options.batch_size
    found: dict[str, float] = {}

    with tempfile.TemporaryDirectory() as folder:
        paths, work = phantom_scans(Path(folder), n, options.grid), Path(folder, "work")
        began = time.perf_counter()
        prepared(paths, work)
        found["first_time_s"] = time.perf_counter() - began
        found["opened_again_s"] = seconds(lambda: prepared(paths, work), 3)
        volumes = prepared(paths, work)
        found["data_hash_s"] = seconds(lambda: data_hash(volumes), 3)
        for name, resident in (("gathered", False), ("in_memory", True)):
            batches, numbers = Batches(volumes, batch_size, 0, resident=resident), itertools.count()
            both = seconds(lambda b=batches, k=numbers: (b[next(k)], rest()), 100)
            found[f"batch_{name}_ms"] = 1e3 * (both - seconds(rest, 100))

    for model, spec in MODELS.items():
        steps = itertools.count()
        found[f"host_{model}_us"] = 1e6 * processor(
            lambda spec=spec, k=steps: host(n, batch_size, spec.augmentations, spec.latent, next(k)), 1000
        )
        with Calls() as calls:
            for step in range(300):
                host(n, batch_size, spec.augmentations, spec.latent, step)
        found[f"calls_{model}"] = calls.total / 300
    batch = torch.rand(batch_size, 1, *[options.grid] * 3) * 2 - 1
    source, names = random_source(0), MODELS["sigmarat2"].augmentations
    found["augmented_batch_ms"] = 1e3 * processor(lambda: augment(batch, names, source), 100)
    drawn = np.random.default_rng(0).random((1, NUMBERS), np.float32)
    for name, (function, _) in AUGMENTATIONS.items():
        found[f"sample_{name}_ms"] = 1e3 * processor(lambda f=function: f(batch[:1], drawn), 10)
    print(json.dumps({**vars(options), **{key: round(value, 3) for key, value in found.items()}}, indent=1))


if __name__ == "__main__":
    main()
