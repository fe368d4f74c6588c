"""The paper's protocol on a data set of the paper's size: how long, and against pair by pair.

For each metric: seconds for all pairs that the protocol draws (210 x 100 real-synthetic pairs, 210 x 10
within each set for MS-SSIM), by `Metric.on_pairs`; seconds for a few of them by the definition, one pair at a
time, as the published notebooks do; the ratio per pair, and the greatest difference of the two. Scans are
blurred noise: speed does not depend on what they show. Prints one JSON object.

python benchmarks/metrics.py
"""

import argparse
import json
import os
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bids_alphagan.evaluation.pairs.compare import draw_pairs
from bids_alphagan.evaluation.pairs.metrics import METRICS, Metric


def scans(n: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """(n, x, y, z) in [0, 1]: blurred noise."""
    noise = torch.rand(n, 1, *shape, generator=torch.Generator().manual_seed(seed))
    return F.avg_pool3d(noise, 5, 1, 2).squeeze(1)


def measure(metric: Metric, real: Tensor, synthetic: Tensor, per_scan: int, few: int) -> dict[str, Any]:
    """Seconds of one metric, together and pair by pair."""
    n = len(real)
    sets = [(real, real), (synthetic, synthetic)] if metric.within else [(real, synthetic)]
    one, other = ([f"{name} {i}" for i in range(n)] for name in ("real", "synthetic"))
    pairs = torch.from_numpy(draw_pairs(one, None if metric.within else other, n * per_scan, seed=0))
    start = time.perf_counter()
    values = [metric.on_pairs(a, b, pairs) for a, b in sets]
    together = time.perf_counter() - start
    start = time.perf_counter()
    single = [metric.function(sets[0][0][i][None], sets[0][1][j][None]) for i, j in pairs[:few]]
    alone = (time.perf_counter() - start) / few
    count = len(pairs) * len(sets)
    return {
        "pairs": count,
        "seconds": round(together, 2),
        "times faster": round(alone / (together / count), 1),
        "greatest difference": float((torch.cat(single) - values[0][:few]).abs().max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n-scans", type=int, default=210, metavar="N")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 64, 40), metavar=("X", "Y", "Z"))
    parser.add_argument("--pairs-per-scan", type=int, default=100, metavar="N")
    parser.add_argument("--msssim-pairs-per-scan", type=int, default=10, metavar="N")
    parser.add_argument("--few", type=int, default=40, metavar="N", help="pairs that are done one at a time")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    real, synthetic = (scans(options.n_scans, tuple(options.shape), seed) for seed in (1, 2))
    result: dict[str, Any] = {"threads": options.threads, "n_scans": options.n_scans, "shape": options.shape}
    with torch.inference_mode():
        for name, metric in METRICS.items():
            per_scan = options.msssim_pairs_per_scan if metric.within else options.pairs_per_scan
            result[name] = measure(metric, real, synthetic, per_scan, options.few)
    result["seconds"] = round(sum(result[name]["seconds"] for name in METRICS), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
