"""The metrics of pairs of scans: METRICS, from which table, sidecar and report are made."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bids_alphagan.evaluation.pairs import pairwise

ERRORS = "Wang and Bovik 2009, doi:10.1109/MSP.2008.930649"  # not in the paper
PAPER = "Ferreira et al. 2022, doi:10.3390/app12104844"


@dataclass(frozen=True)
class Metric:
    """A number that compares pairs of scans, and its description for tables, sidecars and the report.

    Attributes
    ----------
    name: as in the column ``metric``.
    label: the full name.
    unit: of the value; "1" for a pure number.
    direction: which value is better: "higher", "lower" or "closer to real" (to the real set's own value).
    reference: the source, with its DOI.
    within: True for pairs within one set (a measure of its diversity), False for pairs of a real and a
        synthetic scan.
    on_pairs: computes it for many pairs of two sets (see `pairwise`).
    cite: keys of `report.references` for the methods text, such as "[@msssim]"; None: `reference` itself.
    """

    name: str
    label: str
    unit: str
    direction: str
    reference: str
    within: bool
    on_pairs: Callable[[Tensor, Tensor, Tensor], Tensor]
    cite: str | None = None


METRICS: dict[str, Metric] = {
    "MS-SSIM": Metric(
        name="MS-SSIM",
        label="Multi-scale structural similarity within a set",
        cite="[@msssim]",
        unit="1",
        direction="closer to real",
        reference="Wang, Simoncelli and Bovik 2003, doi:10.1109/ACSSC.2003.1292216",
        within=True,
        on_pairs=pairwise.structural_similarities,
    ),
    "NCC": Metric(
        name="NCC",
        label="Normalised cross-correlation",
        cite="",
        unit="1",
        direction="higher",
        reference=PAPER,
        within=False,
        on_pairs=pairwise.correlations,
    ),
    "MAE": Metric(
        name="MAE",
        label="Mean absolute error",
        cite="",
        unit="1",
        direction="lower",
        reference=PAPER,
        within=False,
        on_pairs=pairwise.absolute_errors,
    ),
    "RMSE": Metric(
        name="RMSE",
        label="Root mean squared error",
        cite="",
        unit="1",
        direction="lower",
        reference=ERRORS,
        within=False,
        on_pairs=pairwise.root_squared_errors,
    ),
    "PSNR": Metric(
        name="PSNR",
        label="Peak signal-to-noise ratio",
        cite="",
        unit="dB",
        direction="higher",
        reference=ERRORS,
        within=False,
        on_pairs=pairwise.signal_to_noise,
    ),
    "MMD": Metric(
        name="MMD",
        label="Squared maximum mean discrepancy, linear kernel on voxels",
        cite="[@mmd; kwon]",
        unit="1",
        direction="lower",
        reference="Kwon et al. 2019, doi:10.1007/978-3-030-32248-9_14",
        within=False,
        on_pairs=pairwise.squared_distances,
    ),
}
