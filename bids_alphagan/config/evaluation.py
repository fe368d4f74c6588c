"""The options of the evaluation, a part of `config.Config`: animals, pairs and training sets."""

from dataclasses import dataclass

from bids_alphagan.config.option import option
from bids_alphagan.evaluation import PROTOCOLS
from bids_alphagan.evaluation.downstream import DEFAULT_ARMS


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Fields whose `step` is "evaluate" or "downstream" change the tables of that step."""

    protocol: str = option(
        "held-out: synthetic scans are compared with animals that no model was trained on; paper: as in the "
        "publication, with the training scans",
        "held-out",
        choices=PROTOCOLS,
        step="evaluate",
    )
    held_out: float = option(
        "share of the animals that no model is trained on; 0: none (also with --protocol paper)",
        0.2,
        least=0,
        most=0.8,
        metavar="SHARE",
        step="evaluate",
    )
    pairs_per_scan: int = option(
        "random pairs per real scan, for each metric of real with synthetic scans",
        100,
        least=1,
        most=10**6,
        metavar="N",
        step="evaluate",
    )
    msssim_pairs_per_scan: int = option(
        "random pairs per scan, for each metric within the real and within the synthetic set",
        10,
        least=1,
        most=10**6,
        metavar="N",
        step="evaluate",
    )

    downstream_arms: list[str] = option(
        "training sets to compare in --steps downstream: r1 all real scans, +s0.5 half as many synthetic "
        "ones, +a augmented (docs/downstream.md); r1 is always included",
        list(DEFAULT_ARMS),
        many=True,
        metavar="ARM",
        step="downstream",
    )
    downstream_steps: int = option(
        "optimisation steps of each segmentation network, the same for all training sets",
        3000,
        least=1,
        most=10**7,
        metavar="N",
        step="downstream",
    )
    downstream_seeds: int = option(
        "segmentation networks for each training set",
        3,
        least=1,
        most=1000,
        metavar="N",
        step="downstream",
    )
    downstream_batch_size: int = option(
        "scans per step of a segmentation network", 4, least=1, most=1024, metavar="N", step="downstream"
    )
    downstream_channels: list[int] = option(
        "channels of the segmentation network's levels, from fine to coarse; at least two",
        [16, 32, 64, 128],
        many=True,
        type=int,
        least=1,
        most=4096,
        metavar="N",
        step="downstream",
    )
    downstream_residual_units: int = option(
        "residual units in each level of the segmentation network; 0: plain convolutions",
        2,
        least=0,
        most=16,
        metavar="N",
        step="downstream",
    )
    downstream_learning_rate: float = option(
        "initial learning rate of the segmentation network (Adam), with cosine decay to 0",
        1e-3,
        least=1e-12,
        most=10,
        metavar="LR",
        step="downstream",
    )

    @property
    def held_out_share(self) -> float:
        """Share of the animals that is held out, in [0, 0.8]."""
        return 0.0 if self.protocol == "paper" else self.held_out
