"""How far apart two sets of scans lie."""

from torch import Tensor


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
