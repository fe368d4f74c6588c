"""A toy quality measure: the brightest voxel over the brain's mean."""

from bids_alphagan.qc.measures import Masked, Measure


def peak(scan: Masked) -> float:
    return float(scan.values.max() / scan.values.mean())


PEAK = Measure(peak, "brightest voxel over the brain's mean", "", "high", 0.1)
