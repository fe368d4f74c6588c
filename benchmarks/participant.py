"""The participant level: two processes beside one, and what a thousand animals cost before they begin.

python benchmarks/participant.py                                                     # docs/hpc.md

Prints one JSON object on stdout; progress goes to stderr.
help_s: the fastest of five starts with --help.
runs: whole runs on the phantom heads (validation, masks by antspyx, reports) with one process and with two,
in turn: wall time, and the share of the machine's cores that other programs took meanwhile: where it is not
near zero, two processes had no two cores. ratio: the fastest run of one process to the fastest of two.
busy: which share of the processes' time a scan was being worked on, from the first to the last; what is lost
there is lost to scheduling, however busy the machine.
thousand: seconds to index and plan (with one animal asked for, too), and the peak of memory, MB.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

APP = [sys.executable, "-m", "bids_alphagan"]
# In a process of its own, for the peak of its memory.
PLAN = """
import json, resource, sys, time
began = time.perf_counter()
from bids_alphagan.bids import raw
from bids_alphagan.cli.main import parse
from bids_alphagan.participant import workflow
config = parse(sys.argv[1:])
scans = raw.find_scans(config.bids_dir, config.selection)
indexed = time.perf_counter() - began
segmenters = {scan.name.subject: None for scan in scans}
flow, _ = workflow.plan(workflow.Settings.of(config), scans, segmenters)
class NothingPlugin:
    plugin_args = {}
    def run(self, graph, config, updatehash=False):
        self.nodes = len(graph)
plugin = NothingPlugin()
flow.run(plugin)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
found = {"scans": len(scans), "nodes": plugin.nodes, "indexed_s": indexed}
print(json.dumps(found | {"planned_s": time.perf_counter() - began, "peak_mb": peak}))
"""


def jiffies() -> int:
    """Processor time that all programs have taken since the start of the machine, 1/100 s."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()
    user, nice, system, _, _, irq, softirq, steal = map(int, words[1:9])
    return user + nice + system + irq + softirq + steal


def timed(command: list[str]) -> dict[str, float]:
    """Wall time of a command, and the share of the cores that others took meanwhile."""
    own, everyone, began = resource.getrusage(resource.RUSAGE_CHILDREN), jiffies(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    mine = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
    others = (jiffies() - everyone) / os.sysconf("SC_CLK_TCK") - mine
    return {
        "seconds": seconds,
        "others": max(0.0, others) / seconds / len(os.sched_getaffinity(0)),
        "cpu_s": mine,
    }


def busy(out: Path, processes: int) -> float:
    """By nipype's words in the log of a run: work on nodes, as a share of the time from first to last."""
    (log,) = (out / "logs").glob("*.log")
    nodes = [line for line in log.read_text().splitlines() if " [Node] " in line]
    first, last = (datetime.fromisoformat(line[:23].replace(",", ".")) for line in (nodes[0], nodes[-1]))
    took = [float(seconds) for seconds in re.findall(r"elapsed time ([\d.]+)s", "\n".join(nodes))]
    return sum(took) / (last - first).total_seconds() / processes


def runs(folder: Path, n: int, repeat: int) -> dict[str, Any]:
    """Whole runs on `n` phantom heads, with one process and with two, in turn."""
    data = folder / "heads"
    size = ["--shape", "32", "32", "20", "--zooms", "0.75", "0.75", "1"]
    timed([sys.executable, "-m", "bids_alphagan.cli.phantom", str(data), "--n-subjects", str(n), *size])
    template = data / "derivatives" / "templateflow" / "tpl-RatPhantom"
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for k in range(2 * repeat):
        processes = 1 + (k + k // 2) % 2  # 1, 2, 2, 1, so that what changes slowly meets both alike
        out = folder / f"out{k}"
        words = ["participant", "--preset", "demo", "--template", template, "--nprocs", processes]
        run = timed([*APP, *map(str, (data, out, *words))])
        found[processes].append(run | {"busy": busy(out, processes)})
        say(f"{processes} at once: {found[processes][-1]}")
    fastest = {k: min(run["seconds"] for run in several) for k, several in found.items()}
    return {"runs": found, "ratio": fastest[1] / fastest[2]}


def thousand(folder: Path, n: int) -> dict[str, Any]:
    """Index and plan `n` tiny animals; all, and one of them."""
    data = folder / "thousand"
    for k in range(1, n + 1):
        path = data / f"sub-{k:04d}" / "func" / f"sub-{k:04d}_task-rest_bold.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.full((4, 5, 6, 2), k, np.int16), np.eye(4)), path)
        sidecar = path.with_name(path.name.replace(".nii.gz", ".json"))
        sidecar.write_text(json.dumps({"TaskName": "rest", "RepetitionTime": 2.0}))
    (data / "dataset_description.json").write_text(json.dumps({"Name": "tiny", "BIDSVersion": "1.10.0"}))
    words = [str(data), str(folder / "planned"), "participant", "--segmenter", "none"]
    call = [sys.executable, "-c", PLAN, *words]
    found = {}
    for name, more in (("all", []), ("one", ["--participant-label", f"{(n + 1) // 2:04d}"])):
        done = subprocess.run([*call, *more], check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        say(f"{name}: {found[name]}")
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=2, help="runs of each kind")
    parser.add_argument("--animals", type=int, default=1000)
    options = parser.parse_args()
    found: dict[str, Any] = {**vars(options), "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        found["help_s"] = min(timed([*APP, "--help"])["seconds"] for _ in range(5))
        found["thousand"] = thousand(Path(folder), options.animals)
        if options.heads:
            found |= runs(Path(folder), options.heads, options.repeat)
    print(json.dumps(rounded(found), indent=1))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def rounded(value: Any) -> Any:
    """Three decimals are enough."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
