"""How fast the training engine is, and how it compares with the code released with the paper.

Prints one JSON object on the last line: seconds_per_iteration (median over the steps, after one to warm up),
peak_memory_gb (of the process on a CPU, of torch's tensors on a GPU), flop_per_iteration (counted, what was
really computed) and flop_per_second. `--against-released` also times a plain statement of the notebook's loop
(released.py: fp32, NCDHW, the released variant) on the same device and adds ratio_to_released, old time over
new. `--table` times each speedup alone, all of them, all but each, and all in bf16 where the hardware has it.
Every measurement has a process of its own; random scans stand for real ones, for the time does not depend on
them.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from released import Released, Scans, new_loader_each_time
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bids_alphagan.config.choices import MODEL_NAMES, PRECISIONS, PRESETS, SPEEDUPS, VARIANTS
from bids_alphagan.config.files import preset_values
from bids_alphagan.models import MODELS, variant
from bids_alphagan.models.alphagan.generator import TrainedGenerator, for_sampling, generate
from bids_alphagan.models.alphagan.layers import Critic
from bids_alphagan.training import TrainSettings, precision
from bids_alphagan.training.augment import augment, random_source
from bids_alphagan.training.data import Batches
from bids_alphagan.training.phases import initial_networks, iteration, new_optimisers

WARM_UP = 1
LOADERS = ("none", "notebook")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=MODEL_NAMES, default="sigmarat2")
    parser.add_argument("--variant", choices=VARIANTS, default="paper")
    parser.add_argument("--preset", choices=PRESETS, default="paper", help="size of grid, networks, batch")
    parser.add_argument("--batch-size", type=int, help="instead of the preset's")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="on a CPU")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--speedups", nargs="*", choices=SPEEDUPS, default=list(SPEEDUPS))
    parser.add_argument("--compile", action="store_true", help="networks and slopes through torch.compile")
    parser.add_argument("--against-released", action="store_true")
    parser.add_argument(
        "--released-loader", choices=LOADERS, default="none", help="notebook: a new one a batch"
    )
    parser.add_argument("--generate", action="store_true", help="time the drawing of scans, too")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--json", action="store_true", help="nothing but the last line")
    parser.add_argument("--alone", choices=("ours", "released", "generate"), help=argparse.SUPPRESS)
    return parser.parse_args()


def sizes(options: argparse.Namespace) -> dict[str, int]:
    """Grid, channels, latent length and batch size of the preset."""
    preset = preset_values(options.preset)
    return {
        "size": preset["grid"],
        "channels": preset["channels"],
        "latent": preset.get("latent_size", MODELS[options.model].latent),
        "batch_size": options.batch_size or preset["batch_size"],
    }


def settings(options: argparse.Namespace) -> TrainSettings:
    numbers = sizes(options)
    numbers.pop("size")
    return TrainSettings(
        **numbers,
        precision=precision(options.precision, options.device),
        speedups=tuple(options.speedups),
    )


def random_scans(options: argparse.Namespace) -> torch.Tensor:
    numbers = sizes(options)
    source = torch.Generator().manual_seed(0)
    shape = (max(12, numbers["batch_size"]), 1, *[numbers["size"]] * 3)
    return torch.rand(shape, generator=source) * 2 - 1


def ours(options: argparse.Namespace) -> Callable[[int], Any]:
    """A function that does iteration number `step` with this engine; scans lie on the device."""
    spec, chosen = variant(MODELS[options.model], options.variant), settings(options)
    networks = initial_networks(spec, chosen, sizes(options)["size"]).to(torch.device(options.device))
    if options.compile:
        for network in vars(networks).values():
            network.compile()
        Critic.slope = torch.compile(Critic.slope)  # type: ignore[method-assign]
    optimisers = new_optimisers(networks, spec, chosen)
    batches = Batches(random_scans(options), chosen.batch_size, chosen.seed, options.device)
    return lambda step: iteration(networks, optimisers, batches, spec, chosen, step)


def released(options: argparse.Namespace) -> Callable[[int], Any]:
    """A function that does an iteration of the notebook."""
    numbers = sizes(options)
    batch_size = numbers.pop("batch_size")
    loop = Released(options.model, **numbers).to(options.device)
    scans = random_scans(options)
    if options.released_loader == "notebook":
        names = MODELS[options.model].augmentations
        read = Scans(scans, lambda scan: augment(scan, names, random_source(np.random.randint(2**31))))
        loader = new_loader_each_time(read, batch_size)
    else:
        batch = scans[:batch_size].to(options.device)
        loader = iter(lambda: batch, None)
    return lambda step: loop.iteration(loader)


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


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time iterations in this process."""
    torch.set_num_threads(options.threads)
    on_gpu = torch.device(options.device).type == "cuda"
    finish = torch.cuda.synchronize if on_gpu else lambda: None
    work = {"ours": ours, "released": released}[options.alone](options)
    seconds = []
    for step in range(WARM_UP + options.steps):
        finish()
        began = time.perf_counter()
        work(step)
        finish()
        seconds.append(time.perf_counter() - began)
    peak = (
        torch.cuda.max_memory_allocated()
        if on_gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    with FlopCounter() as counter:
        work(len(seconds))
    typical = statistics.median(seconds[WARM_UP:])
    return {
        "seconds_per_iteration": typical,
        "seconds": seconds[WARM_UP:],
        "peak_memory_gb": peak / 1e9,
        "flop_per_iteration": counter.total,
        "flop_per_second": counter.total / typical,
    }


def measure_generation(options: argparse.Namespace) -> dict[str, Any]:
    """Scans per second of a generator as the synthesis uses it, in batches of eight."""
    torch.set_num_threads(options.threads)
    numbers = sizes(options)
    spec = MODELS[options.model]
    networks = initial_networks(spec, settings(options), numbers["size"]).to(torch.device(options.device))
    generator = TrainedGenerator(for_sampling(networks.generator, numbers["latent"]), numbers["latent"], {})
    latents = np.random.default_rng(0).standard_normal((32, numbers["latent"]))
    generate(generator, latents[:8])
    rates = []
    for _ in range(3):
        began = time.perf_counter()
        generate(generator, latents)
        rates.append(len(latents) / (time.perf_counter() - began))
    return {"scans_per_second": statistics.median(rates)}


def alone(options: argparse.Namespace, what: str, **changes: Any) -> dict[str, Any]:
    """Measure `what` in a process of its own."""
    values = {**vars(options), **changes}
    words = ["--alone", what, "--speedups", *values["speedups"], *(["--compile"] * values["compile"])]
    names = ("model", "variant", "preset", "device", "threads", "steps", "precision", "released_loader")
    for name in (*names, *(["batch_size"] if values["batch_size"] else [])):
        words += ["--" + name.replace("_", "-"), str(values[name])]
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def table(options: argparse.Namespace, baseline: float) -> list[dict[str, Any]]:
    """Each speedup alone, all, all but each, and all in bf16: times and ratios to the plain form."""
    rows = []

    def row(name: str, **changes: Any) -> None:
        found = alone(options, "ours", **changes)
        kept = {key: found[key] for key in ("seconds_per_iteration", "peak_memory_gb", "flop_per_iteration")}
        faster = baseline / found["seconds_per_iteration"]
        rows.append({"what": name, **kept, "ratio_to_released": faster})
        if not options.json:
            print(f"{name:28s} {kept['seconds_per_iteration']:9.3f} s  x {faster:5.2f}  "
                  f"{kept['peak_memory_gb']:5.2f} GB  {kept['flop_per_iteration'] / 1e12:6.3f} TFLOP",
                  flush=True)  # fmt: skip

    row("none", speedups=[], precision="fp32")
    for name in SPEEDUPS:
        row(f"{name} alone", speedups=[name], precision="fp32")
    row("all", speedups=list(SPEEDUPS), precision="fp32")
    for name in SPEEDUPS:
        row(f"all but {name}", speedups=[other for other in SPEEDUPS if other != name], precision="fp32")
    if precision("auto", options.device) == "bf16":  # others emulate it
        row("all, bf16", speedups=list(SPEEDUPS), precision="bf16")
    return rows


def main() -> None:
    """Measure and print."""
    options = arguments()
    if options.alone:
        print(json.dumps((measure_generation if options.alone == "generate" else measure)(options)))
        return
    about = {
        **{
            name: getattr(options, name)
            for name in ("model", "variant", "preset", "device", "steps", "compile")
        },
        **sizes(options),
        "precision": precision(options.precision, options.device),
        "speedups": options.speedups,
        "threads": options.threads,
        "machine": torch.cuda.get_device_name() if options.device.startswith("cuda") else cpu(),
        "torch": torch.__version__,
    }
    result = {**about, **alone(options, "ours")}
    if options.against_released or options.table:
        old = alone(options, "released")
        result["released"] = {"loader": options.released_loader, **old}
        result["ratio_to_released"] = old["seconds_per_iteration"] / result["seconds_per_iteration"]
    if options.table:
        result["table"] = table(options, result["released"]["seconds_per_iteration"])
    if options.generate:
        result |= alone(options, "generate")
    print(json.dumps(result))


def cpu() -> str:
    """The processor's name, and whether it multiplies in bf16."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
