"""The metrics for many pairs of two sets at once, on any device. tests/oracles has a plain version of each.

Pairs share scans: terms that depend on one scan are computed once per scan, and terms that are linear in both
become a matrix product. Each function takes

first, second: (n, x, y, z) and (m, x, y, z), float32 in [0, 1].
pairs: (k, 2) int64, indices into the first and the second set.

and returns (k,) float64.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

# Weights of the five scales, fine to coarse (Wang et al. 2003, section 4).
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
WINDOW_SIGMA = 1.5
# (K1 L)^2 and (K2 L)^2 with K1 = 0.01, K2 = 0.03 and the dynamic range L = 1.
C1, C2 = 0.01**2, 0.03**2
MOST_DB = 100.0  # the peak signal-to-noise ratio of equal scans, which is infinite
VOXELS = 2**20  # of scans or pairs at a time: arrays of 4 MB of float32, which fit into caches


def absolute_errors(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    """Mean over voxels of abs(x - y), in [0, 1]."""
    a, b = first.flatten(1), second.flatten(1)
    difference = torch.empty_like(a[0])  # a single buffer stays in the processor's cache
    values = [torch.sub(a[i], b[j], out=difference).abs_().mean() for i, j in pairs.tolist()]
    return torch.stack(values).double() if values else a.new_zeros(0, dtype=torch.float64)


def squared_distances(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    r"""Sum over voxels of (x - y)^2: the squared maximum mean discrepancy of a pair with a linear kernel.

    With :math:`k(x, y) = x^T y`, the squared MMD of two sets is the squared distance of their mean scans, and a pair
    is two sets of one scan each (Kwon et al. 2019, doi:10.1007/978-3-030-32248-9_14; Gretton et al. 2012, lemma 6,
    JMLR 13:723-773). It grows with the number of voxels. The notebook of Ferreira et al. 2022 uses two scans from
    each set, whose expectation :math:`\|\mu_x - \mu_y\|^2 + (tr \Sigma_x + tr \Sigma_y)/2` is smaller.
    """
    lengths = [_sums(scans.flatten(1), power=2) for scans in (first, second)]
    products = _products(first, second)
    i, j = pairs.T
    return (lengths[0][i] + lengths[1][j] - 2 * products[i, j]).clamp(min=0)


def squared_errors(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    """The mean over voxels of the squared difference of each pair."""
    return squared_distances(first, second, pairs) / first[0].numel()


def root_squared_errors(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    """Root of the mean over voxels of (x - y)^2, in [0, 1]."""
    return squared_errors(first, second, pairs).sqrt()


def signal_to_noise(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    """Peak signal-to-noise ratio for the peak 1, -10 log10 of the mean squared error: dB, at most MOST_DB."""
    return -10 * squared_errors(first, second, pairs).clamp(min=10 ** (-MOST_DB / 10)).log10()


def correlations(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    """Pearson's correlation over all voxels, in [-1, 1]; 0 if one of the scans is constant."""
    n = first[0].numel()
    sums = [_sums(scans.flatten(1)) for scans in (first, second)]
    spreads = [
        _sums(scans.flatten(1), power=2) - total**2 / n
        for scans, total in zip((first, second), sums, strict=True)
    ]
    i, j = pairs.T
    together = _products(first, second)[i, j] - sums[0][i] * sums[1][j] / n
    scale = (spreads[0].clamp(min=0)[i] * spreads[1].clamp(min=0)[j]).sqrt()
    return torch.where(scale > 1e-6, together / scale.clamp(min=1e-12), 0).clamp(-1, 1)


def structural_similarities(first: Tensor, second: Tensor, pairs: Tensor) -> Tensor:
    r"""Multi-scale structural similarity, :math:`SSIM_M^{w_M} \prod_{j<M} CS_j^{w_j}`, in [0, 1].

    Wang, Simoncelli and Bovik 2003, equation 7 (doi:10.1109/ACSSC.2003.1292216): a Gaussian window of 11 voxels
    (sigma 1.5) at all positions inside the volume, cut to shorter axes; each scale averages 2x2x2 voxels; a
    negative term counts as 0.

    A Gaussian blur is a product with a banded matrix along each axis. The scans' own blurred means and
    variances are computed once per scale; a pair adds the blur of its product.
    """
    result = torch.ones(len(pairs), dtype=torch.float64, device=first.device)
    same = first is second
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        bands = [_band(n, first) for n in first.shape[1:]]
        first_moments = _own(first, bands)
        second_moments = first_moments if same else _own(second, bands)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        start = 0
        for i, j in _some(pairs, first[0].numel()):
            (mean_a, var_a), (mean_b, var_b) = (
                [x[k] for x in of] for of, k in ((first_moments, i), (second_moments, j))
            )
            shared = mean_a * mean_b
            term = (2 * (_blur(first[i] * second[j], bands) - shared) + C2) / (var_a + var_b + C2)
            if last:
                term *= (2 * shared + C1) / (mean_a**2 + mean_b**2 + C1)
            mean = term.mean(dim=(1, 2, 3)).double()
            result[start : start + len(i)] *= mean.clamp(min=0) ** weight
            start += len(i)
        halving = [2 if n > 1 else 1 for n in first.shape[1:]]
        first = F.avg_pool3d(first.unsqueeze(1), halving).squeeze(1)
        second = first if same else F.avg_pool3d(second.unsqueeze(1), halving).squeeze(1)
    return result


def _some(pairs: Tensor, voxels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pairs' indices, in chunks of the size that VOXELS allows."""
    for some in pairs.split(max(1, VOXELS // voxels)):
        yield some[:, 0], some[:, 1]


def _sums(flat: Tensor, power: int = 1) -> Tensor:
    """Sum over voxels of (n, voxels), each value to that power: (n,) float64."""
    return torch.stack([(row.double() ** power).sum() for row in flat])


def _products(first: Tensor, second: Tensor) -> Tensor:
    """Scalar products of all scans of two sets: (n, m) float64."""
    a, b = first.flatten(1), second.flatten(1)
    step = max(1, VOXELS // max(len(a), len(b), 1))
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for start in range(0, a.shape[1], step):
        here = slice(start, start + step)
        total += a[:, here].double() @ b[:, here].double().T
    return total


def _own(scans: Tensor, bands: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Blurred means and variances of each scan."""
    means, variances = [], []
    for some in scans.split(max(1, VOXELS // scans[0].numel())):
        mean = _blur(some, bands)
        means.append(mean)
        variances.append(_blur(some * some, bands) - mean**2)
    return torch.cat(means), torch.cat(variances)


def _band(n: int, like: Tensor) -> Tensor:
    """The Gaussian window, cut to an axis of n voxels, at all positions inside it: (n - size + 1, n)."""
    size = min(WINDOW, n)
    offsets = torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2
    kernel = torch.softmax(-(offsets**2) / (2 * WINDOW_SIGMA**2), dim=0)
    band = torch.zeros(n - size + 1, n, dtype=like.dtype, device=like.device)
    for row in range(len(band)):
        band[row, row : row + size] = kernel
    return band


def _blur(volumes: Tensor, bands: list[Tensor]) -> Tensor:
    """(b, x, y, z) times the bands of the three axes."""
    x, y, z = bands
    volumes = volumes @ z.T
    volumes = y @ volumes
    b, _, ny, nz = volumes.shape
    return (x @ volumes.flatten(2)).reshape(b, len(x), ny, nz)
