"""The experiment: train each arm with each seed, test it on held-out animals, compare."""

import json
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bids_alphagan.common.files import digest, read_json, remove_unfinished, write_json
from bids_alphagan.common.process.interrupt import Interrupted, Request, requests
from bids_alphagan.common.process.lock import lock
from bids_alphagan.evaluation.downstream import scans as arrays
from bids_alphagan.evaluation.downstream.arms import Arm, check_split, choose, possible
from bids_alphagan.evaluation.downstream.measures import GLOBAL, measure
from bids_alphagan.evaluation.downstream.network import Data, Settings, segment, train_network
from bids_alphagan.evaluation.downstream.scans import Scan
from bids_alphagan.evaluation.downstream.summary import sentences, summarise
from bids_alphagan.training.resources import duration

WARM_UP, TIMED = 2, 10  # steps of the first training that are timed to estimate the duration of all

log = logging.getLogger(__name__)


class Result(NamedTuple):
    """The result of the experiment.

    rows: of each scan, columns as in `scan_columns`. summary: columns as in `summary_columns`. sentences: one
    for each gain in `summary`, {"arm", "compared_with", "tissue", "measure", "text"}. left_out: the reason, by
    arm name. record: settings, animals and numbers of scans, as JSON; its "sizes": numbers of real and
    synthetic scans of each arm, by name, means over seeds.
    """

    rows: list[dict[str, Any]]
    summary: list[dict[str, Any]]
    sentences: list[dict[str, str]]
    left_out: dict[str, str]
    record: dict[str, Any]


class Job(NamedTuple):
    """One training. real, synthetic: indices into the training scans of each kind."""

    arm: Arm
    seed: int
    real: list[int]
    synthetic: list[int]


def run(
    real: Sequence[Scan],
    synthetic: Sequence[Scan],
    held_out: Collection[str],
    trained_on: Collection[str],
    settings: Settings,
    folder: Path,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Result:
    """Train segmentation networks on each arm's scans and test them on the real scans of held-out animals.

    Every arm gets the same number of steps, and with the same seed all networks start from the same weights. Each
    finished training is a file in `folder`, so that a stopped run can resume; a training with other scans or settings
    is repeated. Several generators may use a folder one after the other: the arms without synthetic scans are then
    trained only once.

    Parameters
    ----------
    real: all real scans with masks, including those of held-out animals. synthetic: the generator's. All of one shape.
    held_out: labels of the animals to test on; all other real animals are for training.
    trained_on: labels of the animals whose scans the generator was trained on.
    seed: the first of settings.seeds seeds.

    Raises
    ------
    UserError: the generator was trained on held-out animals, there are too few animals or synthetic scans, a training
    diverged, or another run uses `folder`. Interrupted: after SIGINT, SIGTERM or SIGUSR1.
    """
    check_split({scan.animal for scan in real}, held_out, trained_on)
    arrays.check([*real, *synthetic])
    train = [scan for scan in real if scan.animal not in held_out]
    test = [scan for scan in real if scan.animal in held_out]
    arms, left_out = possible(settings.arms, len(train), len(synthetic))
    for name, why in left_out.items():
        log.warning("downstream: the training set %s is left out: it %s", name, why)
    animals = [scan.animal for scan in train]
    jobs = [
        Job(arm, s, *choose(arm, animals, len(synthetic), s))
        for arm in arms
        for s in range(seed, seed + settings.seeds)
    ]
    with lock(folder), requests() as request:
        remove_unfinished(folder)
        experiment = Experiment(train, synthetic, test, settings, folder, torch.device(device), request)
        rows = experiment.rows(jobs)
    summary = summarise(rows, arms)
    record = {
        "settings": {**asdict(settings), "arms": [arm.name for arm in arms], "seed": seed},
        "held_out": sorted(set(held_out)),
        "trained_on": sorted(set(trained_on)),
        "n_real": len(train),
        "n_synthetic": len(synthetic),
        "n_test": len(test),
        "sizes": sizes(jobs),
        "left_out": left_out,
    }
    return Result(rows, summary, sentences(summary, arms), left_out, json.loads(json.dumps(record)))


def sizes(jobs: Sequence[Job]) -> dict[str, list[int]]:
    """Numbers of real and synthetic scans by arm name; rounded means over seeds."""
    return {
        arm.name: [
            round(np.mean([len(kind) for kind in kinds]))
            for kinds in zip(*((job.real, job.synthetic) for job in jobs if job.arm == arm), strict=True)
        ]
        for arm in dict.fromkeys(job.arm for job in jobs)
    }


class Experiment:
    """The trainings of one `run`, one after the other."""

    def __init__(
        self,
        train: Sequence[Scan],
        synthetic: Sequence[Scan],
        test: Sequence[Scan],
        settings: Settings,
        folder: Path,
        device: torch.device,
        request: Request,
    ) -> None:
        self.settings, self.folder, self.request = settings, folder, request
        self.test, self.n_real = test, len(train)
        everything = [*train, *synthetic, *test]
        self.content = [arrays.fingerprint(kind) for kind in (train, synthetic, test)]
        self.data = Data(everything, settings.multiple, device)
        self.first_test = len(everything) - len(test)

    def rows(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """The rows of all jobs; finished jobs in the folder are not repeated."""
        results = {self.file(job): self.kept(job) for job in jobs}
        left = [job for job in jobs if results[self.file(job)] is None]
        if len(left) < len(jobs):
            log.info("downstream: %d of %d trainings are already done", len(jobs) - len(left), len(jobs))
        began = time.perf_counter()
        for done, job in enumerate(left, start=1):
            results[self.file(job)] = rows = self.work(job, trainings=len(left) - done + 1, logged=done > 1)
            overall = [row["dice"] for row in rows if row["tissue"] == GLOBAL and row["dice"] is not None]
            to_come = (time.perf_counter() - began) / done * (len(left) - done)
            log.info(
                "downstream: %s, seed %d: overall Dice %.3f; %d of %d trainings done, about %s left",
                *(job.arm.name, job.seed, sum(overall) / max(len(overall), 1)),
                *(len(jobs) - len(left) + done, len(jobs), duration(timedelta(seconds=to_come))),
            )
        return [row for job in jobs for row in results[self.file(job)] or []]

    def file(self, job: Job) -> Path:
        """The job's file; its name includes the synthetic scans, because several generators share a folder."""
        _, synthetic, _ = self.content
        drawn = f"_synthetic-{synthetic[:8]}" if job.synthetic else ""
        return self.folder / f"{job.arm.name}_seed-{job.seed}{drawn}.json"

    def kept(self, job: Job) -> list[dict[str, Any]] | None:
        """The rows of an earlier run; None if there are none, or if scans or settings differ."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # missing, or damaged
            record = read_json(self.file(job))
            if record["fingerprint"] == self.fingerprint(job):
                return list(record["rows"])
        return None

    def fingerprint(self, job: Job) -> str:
        """Digest of everything that the rows of a job depend on."""
        settings = {k: v for k, v in asdict(self.settings).items() if k not in ("arms", "seeds")}
        real, synthetic, test = self.content
        return digest([*job, settings, real, synthetic if job.synthetic else None, test])

    def work(self, job: Job, trainings: int, logged: bool) -> list[dict[str, Any]]:
        """Train, test, and write the job's file.

        trainings: number that remain, including this one. logged: whether the duration was logged before.
        """
        steps, began, warm = 0, time.perf_counter(), 0.0

        def after_step() -> None:
            nonlocal steps, warm
            steps += 1
            warm = time.perf_counter() if steps == WARM_UP else warm
            if self.request.by:
                done = f"finished trainings are in {self.folder}"
                raise Interrupted(f"downstream stopped in {job.arm.name}; {done}", self.request.by)
            if steps == WARM_UP + TIMED and not logged:
                seconds = (time.perf_counter() - warm) / TIMED * self.settings.steps * trainings
                log.info(
                    "downstream: %d trainings of %d steps will take about %s",
                    *(trainings, self.settings.steps, duration(timedelta(seconds=seconds))),
                )

        pool = [*job.real, *(self.n_real + i for i in job.synthetic)]
        network = train_network(self.data, pool, self.settings, job.arm.augment, job.seed, after_step)
        rows: list[dict[str, Any]] = []
        for index, scan in enumerate(self.test, start=self.first_test):
            about = {"arm": job.arm.name, "seed": job.seed, "animal": scan.animal, "scan": scan.name}
            rows += measure(segment(network, self.data, index), scan.labels, scan.spacing, about)
        record = {
            "fingerprint": self.fingerprint(job),
            "n_real": len(job.real),
            "n_synthetic": len(job.synthetic),
            "steps": steps,
            "seconds": round(time.perf_counter() - began, 1),
            "device": str(self.data.device),
            "rows": rows,
        }
        write_json(self.file(job), record)
        return rows
