"""How fast a CPU trains with one thread and with all, alone and beside a busy program.

Prints one JSON object: iterations per second for each number of threads and OpenMP wait policy, with and
without a busy neighbour on one core, all measured in one run, and their ratios to one thread alone.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

# Run in a process of its own: OpenMP reads its policy when torch is loaded.
TRAIN = """
import sys, time, torch
from bids_alphagan.models import MODELS
from bids_alphagan.training.batches import Batches
from bids_alphagan.training.identity import TrainSettings
from bids_alphagan.training import phases
threads, size, channels, batch, steps = map(int, sys.argv[1:])
torch.set_num_threads(threads)
spec = MODELS["sigmarat2"]
settings = TrainSettings(batch_size=batch, channels=channels, latent=4)
networks = phases.initial_networks(spec, settings, size)
optimisers = phases.new_optimisers(networks, spec, settings)
batches = Batches(torch.rand(12, 1, size, size, size) * 2 - 1, batch, seed=0)
for step in range(steps + 2):
    if step == 2:  # two to warm up
        began = time.perf_counter()
    phases.iteration(networks, optimisers, batches, spec, settings, step)
print(steps / (time.perf_counter() - began))
"""


@contextlib.contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A program that keeps one core busy, or none."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=32, help="edge of the cube, voxels")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    numbers = [options.size, options.channels, options.batch_size, options.steps]
    cores = len(os.sched_getaffinity(0))
    rates = {}
    for busy in (False, True):
        for threads, policy in ((1, "PASSIVE"), (cores, "PASSIVE"), (cores, "ACTIVE")):
            command = [sys.executable, "-c", TRAIN, *map(str, [threads, *numbers])]
            environment = {**os.environ, "OMP_WAIT_POLICY": policy}
            environment.pop("OMP_NUM_THREADS", None)
            with neighbour(busy):
                done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            name = f"{threads} {policy.lower()}{', busy neighbour' if busy else ''}"
            rates[name] = float(done.stdout)
    alone = rates["1 passive"]
    ratios = {name: round(rate / alone, 3) for name, rate in rates.items()}
    print(json.dumps({**vars(options), "cores": cores, "iterations_per_second": rates, "ratio": ratios}))


if __name__ == "__main__":
    main()
