"""Do synthetic scans help? Segmentation networks with and without them, tested on held-out real animals.

``scans`` (arrays and labels on one grid) -> ``arms`` (who trains on what) -> ``network`` (one training) ->
``measures`` -> ``summary`` (gains with intervals, sentences) -> ``tables``; ``experiment`` runs it all. After
table 4 of Ferreira et al. 2022 (doi 10.3390/app12104844), with held-out animals, equal steps, several seeds.
"""

from bids_alphagan.evaluation.downstream.arms import ARMS, PAPER_TESTS, Arm, check_split, read_arm
from bids_alphagan.evaluation.downstream.experiment import Result, run
from bids_alphagan.evaluation.downstream.network import Settings
from bids_alphagan.evaluation.downstream.scans import Scan, real_scans, synthetic_scans
from bids_alphagan.evaluation.downstream.summary import hardly_learned, headline
from bids_alphagan.evaluation.downstream.table import write_tables

__all__ = [
    "ARMS",
    "PAPER_TESTS",
    "Arm",
    "Result",
    "Scan",
    "Settings",
    "check_split",
    "hardly_learned",
    "headline",
    "read_arm",
    "real_scans",
    "run",
    "synthetic_scans",
    "write_tables",
]
