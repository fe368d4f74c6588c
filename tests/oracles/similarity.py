"""Plain statements of the metrics of pairs, to compare `evaluation.pairs.pairwise` with."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bids_alphagan.evaluation.pairs.pairwise import C1, C2, MOST_DB, MS_SSIM_WEIGHTS, WINDOW, WINDOW_SIGMA


def mean_absolute_error(first: Tensor, second: Tensor) -> Tensor:
    """Mean over voxels of |first - second|.

    Parameters
    ----------
    first, second: (b, x, y, z), any range.

    Returns
    -------
    (b,) in the unit of the intensities; 0 for equal scans.
    """
    return (first - second).abs().mean(dim=(1, 2, 3))


def root_mean_squared_error(first: Tensor, second: Tensor) -> Tensor:
    """Root of the mean over voxels of (first - second)^2.

    Parameters
    ----------
    first, second: (b, x, y, z), any range.

    Returns
    -------
    (b,) in the unit of the intensities; 0 for equal scans.
    """
    return ((first - second) ** 2).mean(dim=(1, 2, 3)).sqrt()


def peak_signal_to_noise(first: Tensor, second: Tensor) -> Tensor:
    r"""Peak signal-to-noise ratio, :math:`-10 \log_{10} MSE`, for the peak 1.

    Parameters
    ----------
    first, second: (b, x, y, z) in [0, 1].

    Returns
    -------
    (b,) in dB, at least 0; at most MOST_DB, which equal scans have.
    """
    least = 10 ** (-MOST_DB / 10)
    return -10 * ((first - second) ** 2).mean(dim=(1, 2, 3)).clamp(min=least).log10()


def normalised_cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of the two scans over all voxels.

    Parameters
    ----------
    first, second: (b, x, y, z), any range.

    Returns
    -------
    (b,) in [-1, 1]; 0 where one of the two scans is constant and the correlation is undefined.
    """
    a, b = first.flatten(1).double(), second.flatten(1).double()
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    return (F.normalize(a, dim=1) * F.normalize(b, dim=1)).sum(dim=1).to(first.dtype)


def ms_ssim(first: Tensor, second: Tensor, weights: tuple[float, ...] = MS_SSIM_WEIGHTS) -> Tensor:
    r"""Multi-scale structural similarity: :math:`SSIM_M^{w_M} \prod_{j<M} CS_j^{w_j}`.

    Gaussian window of 11 voxels (sigma 1.5), placed only where it fits whole; each scale halves the scan
    by averaging 2x2x2 voxels. So that small or thin scans have all five scales too, the window is cut to
    the scan along each axis where the scan is shorter than it, and an axis of one voxel is halved no
    further. A negative term counts as 0, for its power is not real. Where the scan is at least 11 voxels
    long at the coarsest scale, this is MONAI's definition; TorchMetrics differs in the SSIM of the coarsest
    scale alone, where it lets the window reach over the border into a mirrored scan.

    The published implementation of Kwon et al. 2019, which Ferreira et al. 2022 took over, multiplies
    :math:`SSIM_M^{w_M}` in once per remaining scale (four times) and cuts all three axes of the window to
    the shortest one. Here the definition of Wang et al. is followed, so values differ from theirs.

    Parameters
    ----------
    first, second: (b, x, y, z) in [0, 1].
    weights: one exponent per scale, fine to coarse.

    Returns
    -------
    (b,) in [0, 1]; 1 for equal scans.

    Source: Wang, Simoncelli and Bovik 2003, equation 7 (doi 10.1109/ACSSC.2003.1292216).
    """
    a, b = first.unsqueeze(1), second.unsqueeze(1)
    result = torch.ones(len(first), dtype=first.dtype, device=first.device)
    for scale, weight in enumerate(weights):
        ssim, contrast_structure = _ssim(a, b)
        term = ssim if scale == len(weights) - 1 else contrast_structure
        result = result * term.clamp(min=0) ** weight
        halving = [2 if n > 1 else 1 for n in a.shape[2:]]
        a, b = F.avg_pool3d(a, halving), F.avg_pool3d(b, halving)
    return result


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part of (b, 1, x, y, z), each averaged over the volume: (b,), (b,)."""
    moments = _blur(torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 1)).unflatten(0, (5, len(a)))
    mean_a, mean_b, aa, bb, ab = moments
    variances = aa - mean_a**2 + bb - mean_b**2
    contrast_structure = (2 * (ab - mean_a * mean_b) + C2) / (variances + C2)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    whole = (1, 2, 3, 4)
    return (luminance * contrast_structure).mean(dim=whole), contrast_structure.mean(dim=whole)


def _blur(volumes: Tensor) -> Tensor:
    """Gaussian weighted mean over the window, one axis after the other, without padding."""
    for axis in (2, 3, 4):
        size = min(WINDOW, volumes.shape[axis])
        offsets = torch.arange(size, dtype=volumes.dtype, device=volumes.device) - (size - 1) / 2
        kernel = torch.softmax(-(offsets**2) / (2 * WINDOW_SIGMA**2), dim=0)
        shape = [1] * 5
        shape[axis] = size
        volumes = F.conv3d(volumes, kernel.reshape(shape))
    return volumes


def linear_mmd(first: Tensor, second: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy with the kernel :math:`k(x, y) = x^T y` on raw voxels, pair by pair.

    With a linear kernel, the squared MMD of two sets is the squared distance of their mean scans,
    :math:`\|\bar x - \bar y\|^2 = \sum kxx/n^2 + \sum kyy/m^2 - 2 \sum kxy/nm`. The published notebooks of
    Kwon et al. 2019 evaluate that sum on minibatches and average it. A pair is the minibatch with one scan
    from each set (Kwon et al.), and its value is the sum over voxels of the squared difference: it grows
    with the number of voxels, so it compares models on one data set only, and on pairs it tells no more
    than a mean squared error. The notebook of Ferreira et al. 2022 has two scans from each set in a
    minibatch. Its expectation :math:`\|\mu_x - \mu_y\|^2 + (tr \Sigma_x + tr \Sigma_y)/2` is smaller than
    that of single pairs, which has no 2 under the spread; mind this beside the paper's values around 780.

    Parameters
    ----------
    first, second: (b, x, y, z) in [0, 1].

    Returns
    -------
    (b,), 0 for equal scans, at most the number of voxels.

    Sources: Gretton et al. 2012, lemma 6 (JMLR 13:723-773);
    Kwon et al. 2019 (doi 10.1007/978-3-030-32248-9_14).
    """
    return ((first - second) ** 2).sum(dim=(1, 2, 3))


DEFINITIONS = {
    "MS-SSIM": ms_ssim,
    "NCC": normalised_cross_correlation,
    "MAE": mean_absolute_error,
    "RMSE": root_mean_squared_error,
    "PSNR": peak_signal_to_noise,
    "MMD": linear_mmd,
}
PERFECT = {"MS-SSIM": 1.0, "NCC": 1.0, "MAE": 0.0, "RMSE": 0.0, "PSNR": MOST_DB, "MMD": 0.0}  # of equal scans
