"""How fast training is: an iteration beside the code released with the paper, the data, and threads.

python benchmarks/training.py speed --preset paper --against-released --each-speedup --generate
python benchmarks/training.py data
python benchmarks/training.py threads

Prints one JSON object on stdout; progress goes to stderr. Random scans stand for real ones, for the time does
not depend on them. Every setting is measured in a process of its own. Machines are noisy, so speeds are
compared within a run: with --against-released, each iteration of a setting is followed by one of the released
loop (tests/oracles/released.py: fp32, NCDHW), and the ratio is the median over these pairs.

speed: seconds_per_iteration (median, after one to warm up), peak_memory_gb (of the process on a CPU, of torch's
tensors on a GPU), flop_per_iteration (counted: what was really computed), flop_per_second, ratio_to_released
(how many times as fast). --each-speedup adds rows: no speedup, each alone, all, all but each, and all in bf16
where the hardware multiplies in it.

data: seconds to put scans together in one file, to open it again and to hash them; milliseconds for which an
iteration waits for a batch, gathered from the file or from memory, and of its augmentation on one thread.

threads: iterations per second on a CPU, for each number of threads and OpenMP wait policy, alone and beside a
program that keeps one core busy, and their ratios to one thread alone.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from oracles.released import Released, Scans, new_loader_each_time

from bids_alphagan.common.process.threads import use_threads
from bids_alphagan.config.files import preset_values
from bids_alphagan.config.training import PRESETS
from bids_alphagan.models import MODELS, VARIANTS
from bids_alphagan.models.alphagan.generator import generate
from bids_alphagan.models.alphagan.layers import Critic
from bids_alphagan.models.alphagan.model import AlphaGan
from bids_alphagan.models.alphagan.spec import SPECS
from bids_alphagan.training.augment import augment
from bids_alphagan.training.cache import prepared
from bids_alphagan.training.data import Batches, data_hash, random_source
from bids_alphagan.training.device import choose_precision
from bids_alphagan.training.phases import initial_networks, iteration
from bids_alphagan.training.settings import PRECISIONS, SPEEDUPS, TrainSettings

LOADERS = ("none", "notebook")
DRAWN = 32  # scans, in batches of eight: a step of the job "generate"
CORES = len(os.sched_getaffinity(0))

Step = Callable[[int], Any]


@dataclass(frozen=True)
class Job:
    """What one process measures. what: a key of WORK. loader: of the released loop, see --released-loader."""

    what: str
    model: str
    variant: str
    size: int
    channels: int
    latent: int
    batch_size: int
    device: str
    threads: int
    precision: str
    speedups: tuple[str, ...]
    compile: bool = False
    loader: str = "none"

    @property
    def settings(self) -> TrainSettings:
        return TrainSettings(
            batch_size=self.batch_size,
            channels=self.channels,
            latent=self.latent,
            precision=self.precision,
            speedups=self.speedups,
        )

    def scans(self) -> torch.Tensor:
        """Random scans in [-1, 1], (n, 1, N, N, N)."""
        source = torch.Generator().manual_seed(0)
        return torch.rand(max(12, self.batch_size), 1, *[self.size] * 3, generator=source) * 2 - 1


def ours(job: Job) -> Step:
    """A function that does iteration number `step` of this package; scans lie on the device."""
    model, settings = AlphaGan.named(job.model, job.variant), job.settings
    networks = initial_networks(model, settings, job.size)
    networks = {name: network.to(job.device) for name, network in networks.items()}
    if job.compile:
        for network in networks.values():
            network.compile()
        Critic.input_gradient = torch.compile(Critic.input_gradient)  # type: ignore[method-assign]
    optimisers = model.optimisers(networks, settings)
    batches = Batches(job.scans(), job.batch_size, settings.seed, job.device)
    return lambda step: iteration(networks, optimisers, batches, model, settings, step)


def released(job: Job) -> Step:
    """A function that does an iteration of the notebook; without its loader, one batch lies on the device."""
    loop = Released(job.model, job.size, job.channels, job.latent).to(job.device)
    if job.loader == "notebook":
        names = SPECS[job.model].augmentations
        read = Scans(job.scans(), lambda scan: augment(scan, names, random_source(np.random.randint(2**31))))
        loader = new_loader_each_time(read, job.batch_size)
    else:
        batch = job.scans()[: job.batch_size].to(job.device)
        loader = iter(lambda: batch, None)
    return lambda step: loop.iteration(loader)


def drawing(job: Job) -> Step:
    """A function that draws DRAWN scans, as the synthesis does."""
    model = AlphaGan.named(job.model)
    network = initial_networks(model, job.settings, job.size)["generator"].to(job.device)
    sampler = model.sampler(network, job.settings)
    latents = np.random.default_rng(0).standard_normal((DRAWN, job.latent))
    return lambda step: generate(sampler, latents)


WORK: dict[str, Callable[[Job], Step]] = {"ours": ours, "released": released, "generate": drawing}


class FlopCounter(TorchDispatchMode):
    """Adds up the operations of convolutions and matrix products; torch's own counter hooks into modules,
    which a double backward does not allow.
    """

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def work(job: Job) -> None:
    """The process of a `Worker`: answers "step" with its seconds, "facts" with peak memory and FLOP of a step."""
    use_threads(job.threads)
    on_gpu = torch.device(job.device).type == "cuda"
    finish = torch.cuda.synchronize if on_gpu else lambda: None
    step, numbers = WORK[job.what](job), itertools.count()
    for line in sys.stdin:
        if line.strip() == "step":
            finish()
            began = time.perf_counter()
            step(next(numbers))
            finish()
            answer: Any = time.perf_counter() - began
        else:
            used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            peak = torch.cuda.max_memory_allocated() if on_gpu else used
            with FlopCounter() as counter:
                step(next(numbers))
            answer = {"peak_memory_gb": peak / 1e9, "flop_per_iteration": counter.total}
        print(json.dumps(answer), flush=True)


class Worker:
    """A process that does a job's iterations one at a time, so that two settings can take turns."""

    def __init__(self, job: Job, environment: dict[str, str] | None = None) -> None:
        words = [sys.executable, __file__, "work", json.dumps(asdict(job))]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, word: str) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            print(word, file=self.process.stdin, flush=True)
        if not (answer := self.process.stdout.readline()):
            raise SystemExit("A measurement failed: its process has ended, with the message above.")
        return json.loads(answer)

    def step(self) -> float:
        return float(self.ask("step"))


def measure(job: Job, steps: int, baseline: Worker | None = None) -> dict[str, Any]:
    """Time a job's iterations, each followed by one of the baseline where there is one."""
    with Worker(job) as worker:
        worker.step()  # to warm up
        seconds, beside = [], []
        for _ in range(steps):
            seconds.append(worker.step())
            beside += [baseline.step()] if baseline else []
        facts = worker.ask("facts")
    typical = statistics.median(seconds)
    found = {"seconds_per_iteration": typical, "seconds": seconds, **facts}
    found["flop_per_second"] = facts["flop_per_iteration"] / typical
    if baseline:
        found["released_seconds"] = beside
        ratios = [other / own for other, own in zip(beside, seconds, strict=True)]
        found["ratio_to_released"] = statistics.median(ratios)
    return found


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """An iteration, by itself and beside the released loop."""
    preset = preset_values(options.preset)
    job = Job(
        "ours",
        options.model,
        options.variant,
        options.grid or preset["grid"],
        options.channels or preset["channels"],
        preset.get("latent_size", SPECS[options.model].latent),
        options.batch_size or preset["batch_size"],
        options.device,
        options.threads,
        choose_precision(options.precision, options.device),
        tuple(options.speedups),
        options.compile,
        options.released_loader,
    )
    result = {**asdict(job), "preset": options.preset, "steps": options.steps}
    result |= {"machine": machine(options.device), "torch": torch.__version__}
    with contextlib.ExitStack() as stack:
        baseline = None
        if options.against_released or options.each_speedup:
            baseline = stack.enter_context(Worker(replace(job, what="released")))
            baseline.step()  # to warm up
        result |= measure(job, options.steps, baseline)
        if options.each_speedup and baseline:
            result["rows"] = rows(job, options.steps, baseline)
        if baseline:
            typical = statistics.median(result["released_seconds"])
            result["released"] = {"seconds_per_iteration": typical, **baseline.ask("facts")}
    if options.generate:
        with Worker(replace(job, what="generate")) as worker:
            worker.step()  # to warm up
            rates = [DRAWN / worker.step() for _ in range(options.steps)]
        result["scans_per_second"] = statistics.median(rates)
    del result["what"]
    return result


def rows(job: Job, steps: int, baseline: Worker) -> list[dict[str, Any]]:
    """No speedup, each alone, all, all but each, and all in bf16 where the hardware multiplies in it."""
    jobs = {"none": replace(job, speedups=())}
    jobs |= {f"{name} alone": replace(job, speedups=(name,)) for name in SPEEDUPS}
    jobs |= {
        f"all but {name}": replace(job, speedups=tuple(other for other in SPEEDUPS if other != name))
        for name in SPEEDUPS
    }
    jobs["all"] = replace(job, speedups=SPEEDUPS)
    jobs = {name: replace(each, precision="fp32") for name, each in jobs.items()}
    if choose_precision("auto", job.device) == "bf16":  # others emulate it
        jobs["all, bf16"] = replace(job, speedups=SPEEDUPS, precision="bf16")
    table = []
    for name, each in jobs.items():
        found = measure(each, steps, baseline)
        table.append({"speedups": name, **found})
        say(
            f"{name:24s} {found['seconds_per_iteration']:9.3f} s  x {found['ratio_to_released']:5.2f}  "
            f"{found['peak_memory_gb']:5.2f} GB  {found['flop_per_iteration'] / 1e12:6.3f} TFLOP"
        )
    return table


def machine(device: str) -> str:
    """The processor's name, and whether it multiplies in bf16; or the GPU's name."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


def seconds_of(
    function: Callable[[], Any], times: int, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The mean of `times` calls, after one to warm up."""
    function()
    began = clock()
    for _ in range(times):
        function()
    return (clock() - began) / times


def data(options: argparse.Namespace) -> dict[str, Any]:
    """Opening scans, gathering their batches, and augmenting these."""
    use_threads(1)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths, cache = noise_scans(Path(folder), options.scans, options.grid), Path(folder, "work")
        began = time.perf_counter()
        volumes = prepared(paths, cache).array
        found["first_time_s"] = time.perf_counter() - began
        found["opened_again_s"] = seconds_of(lambda: prepared(paths, cache), 3)
        found["data_hash_s"] = seconds_of(lambda: data_hash(volumes), 3)
        for name, resident in (("gathered", False), ("in_memory", True)):
            batches = Batches(volumes, options.batch_size, 0, resident=resident)
            found[f"batch_{name}_ms"] = 1e3 * waiting(batches, options.batches)
    batch = torch.rand(options.batch_size, 1, *[options.grid] * 3) * 2 - 1
    source, names = random_source(0), SPECS["sigmarat2"].augmentations
    work_of_thread = seconds_of(lambda: augment(batch, names, source), options.batches, time.thread_time)
    found["batch_augmented_ms"] = 1e3 * work_of_thread
    found["ratio_first_to_again"] = found["first_time_s"] / found["opened_again_s"]
    return {**vars(options), **{key: round(value, 6) for key, value in found.items()}}


def waiting(batches: Batches, n: int) -> float:
    """Median of the seconds that an iteration waits for its batch; the next one is gathered meanwhile."""
    seconds = []
    for number in range(n + 1):
        began = time.perf_counter()
        _ = batches[number]
        seconds.append(time.perf_counter() - began)
        time.sleep(0.01)  # stands for the rest of the iteration
    return statistics.median(seconds[1:])


def noise_scans(folder: Path, n: int, grid: int) -> list[Path]:
    """Noise with empty margins, which is packed about as well as a scan."""
    paths = [folder / f"{k}.nii.gz" for k in range(n)]
    for k, path in enumerate(paths):
        cube = np.random.default_rng(k).uniform(-1, 1, (grid,) * 3).astype(np.float32)
        cube[: grid // 4] = cube[-grid // 4 :] = -1
        nib.save(nib.Nifti1Image(cube, np.eye(4)), path)
    return paths


def threads(options: argparse.Namespace) -> dict[str, Any]:
    """One thread and all, waiting passively and actively, alone and beside a busy program."""
    latent = 4
    job = Job("ours", "sigmarat2", "paper", options.grid, options.channels, latent, options.batch_size,
              "cpu", 1, "fp32", SPEEDUPS)  # fmt: skip
    rates = {}
    for busy in (False, True):
        for count, policy in ((1, "PASSIVE"), (CORES, "PASSIVE"), (CORES, "ACTIVE")):
            environment = {**os.environ, "OMP_WAIT_POLICY": policy}
            environment.pop("OMP_NUM_THREADS", None)
            with neighbour(busy), Worker(replace(job, threads=count), environment) as worker:
                for _ in range(2):  # to warm up
                    worker.step()
                seconds = [worker.step() for _ in range(options.steps)]
            name = f"{count} {policy.lower()}{', busy neighbour' if busy else ''}"
            rates[name] = options.steps / sum(seconds)
            say(f"{name}: {rates[name]:.2f} iterations per second")
    alone = rates["1 passive"]
    ratios = {name: round(rate / alone, 3) for name, rate in rates.items()}
    return {**vars(options), "cores": CORES, "iterations_per_second": rates, "ratio": ratios}


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


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{speed,data,threads}")
    one = commands.add_parser("speed", help="an iteration, beside the released loop")
    one.add_argument("--model", choices=MODELS, default="sigmarat2")
    one.add_argument("--variant", choices=VARIANTS, default="paper")
    one.add_argument("--preset", choices=PRESETS, default="paper", help="size of grid, networks, batch")
    for name in ("--grid", "--channels", "--batch-size"):
        one.add_argument(name, type=int, metavar="N", help="instead of the preset's")
    one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    one.add_argument("--threads", type=int, default=CORES, metavar="N", help="on a CPU")
    one.add_argument("--steps", type=int, default=3, metavar="N")
    one.add_argument("--precision", choices=PRECISIONS, default="auto")
    one.add_argument("--speedups", nargs="*", choices=SPEEDUPS, default=list(SPEEDUPS))
    one.add_argument("--compile", action="store_true", help="networks, input gradients: torch.compile")
    one.add_argument("--against-released", action="store_true", help="in turn with the released loop")
    one.add_argument("--released-loader", choices=LOADERS, default="none", help="notebook: a new one a batch")
    one.add_argument("--each-speedup", action="store_true", help="a row for each, against the released loop")
    one.add_argument("--generate", action="store_true", help="time the drawing of scans, too")
    opening = commands.add_parser("data", help="opening scans, gathering and augmenting batches")
    opening.add_argument("--scans", type=int, default=210, metavar="N")
    opening.add_argument("--grid", type=int, default=64, metavar="N")
    opening.add_argument("--batch-size", type=int, default=4, metavar="N")
    opening.add_argument("--batches", type=int, default=100, metavar="N", help="that are timed")
    several = commands.add_parser("threads", help="one thread and all, alone and beside a busy program")
    several.add_argument("--grid", type=int, default=32, metavar="N")
    several.add_argument("--channels", type=int, default=8, metavar="N")
    several.add_argument("--batch-size", type=int, default=2, metavar="N")
    several.add_argument("--steps", type=int, default=10, metavar="N")
    commands.add_parser("work").add_argument("job")  # what a Worker starts
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    if options.command == "work":
        record = json.loads(options.job)
        work(Job(**{**record, "speedups": tuple(record["speedups"])}))
        return
    print(json.dumps({"speed": speed, "data": data, "threads": threads}[options.command](options), indent=1))


if __name__ == "__main__":
    main()
