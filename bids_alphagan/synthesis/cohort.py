"""Latent vector -> NIfTI in a real scan's geometry -> masks -> accepted, or rejected and drawn again.

A cohort grows in a staging folder, one complete subject at a time, so that an interrupted run can resume; it is moved
to its final folder when it is complete. Every draw follows from (seed, scan, draw), so the result depends neither on
the number of processes nor on interruptions.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from tqdm import tqdm

from bids_alphagan.bids.derivatives import (
    describe_cohort,
    real_uri,
    synthetic_name,
    write_masks,
    write_participants,
    write_scan,
)
from bids_alphagan.bids.names import TISSUES, ScanName, sidecar, uri
from bids_alphagan.bids.prepared import PreparedScan
from bids_alphagan.common.errors import ScanError
from bids_alphagan.common.files import read_json, write_json
from bids_alphagan.common.logs import log_files, worker_log
from bids_alphagan.common.volume import load, restore, restore_map, tissue_labels
from bids_alphagan.models import SCAN
from bids_alphagan.qc import limits as qc
from bids_alphagan.qc import rejected
from bids_alphagan.qc.measures import MEASURES
from bids_alphagan.qc.rejected import NonePassedError, Rejection, finite

log = logging.getLogger(__name__)

# A segmenter: (scan, private folder) -> segmentation (probseg, dseg, brain, provenance, measures).
Segment = Callable[[Path, Path], Any]
# Seeds -> samples (n, C, N, N, N) in [-1, 1].
Generate = Callable[[Sequence[int]], np.ndarray]

_AT_ONCE = 16  # samples that wait for their masks at a time, to limit memory
_COLUMNS = {
    "participant_id": "synthetic subject",
    "seed": "seed of the latent vector",
    "draws": "number of draws until the masks passed quality control",
    "geometry": "real scan whose header, grid and intensity range are used",
}


@dataclass(frozen=True)
class Cohort:
    """The settings of a cohort, apart from the numbers of scans; the same for every draw.

    folder: the final folder. output_dir: the data set of the real scans `like`.
    facts: model, generator's hash and so on, as written to every sidecar.
    segment: makes the masks; None: no masks and no quality control.
    segment_id: changes if `segment` would make other masks.
    limits: of the quality measures; a scan outside one of them is rejected and drawn again.
    rejected: folder for rejected draws; all of them with `keep_rejected`, else examples.
    channels: of a sample: the scan, and tissue maps, which become its masks without a `segment`.
    """

    folder: Path
    output_dir: Path
    like: tuple[PreparedScan, ...]
    seed: int
    facts: dict[str, Any]
    segment: Segment | None
    segment_id: str
    limits: qc.Limits
    rejected: Path
    keep_rejected: bool = False
    channels: tuple[str, ...] = (SCAN,)

    def settings(self) -> dict[str, Any]:
        """Everything that determines a draw, as JSON."""
        return {
            "seed": self.seed,
            "facts": self.facts,
            "limits": {key: limit.record() for key, limit in self.limits.items()},
            "keep_rejected": self.keep_rejected,
            "like": {scan.name.stem: scan.record for scan in self.like},
            "segmenter": self.segment_id,
            **({"channels": list(self.channels)} if self.channels != (SCAN,) else {}),
        }

    @property
    def staging(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.partial")

    @property
    def rejected_staging(self) -> Path:
        return self.rejected.with_name(f".{self.rejected.name}.partial")

    def geometry(self, index: int) -> PreparedScan:
        """The real scan whose geometry scan `index` takes; the real scans are used in shuffled rounds."""
        turn, position = divmod(index - 1, len(self.like))
        order = np.random.default_rng([self.seed, 1, turn]).permutation(len(self.like))
        return self.like[order[position]]

    def name(self, index: int) -> ScanName:
        return synthetic_name(index, self.geometry(index).name)

    def draw_seed(self, index: int, draw: int) -> int:
        return int(np.random.SeedSequence([self.seed, 2, index, draw]).generate_state(1)[0] >> 1)


def synthesise(
    cohort: Cohort, n: int, max_draws: int, generate: Generate, bids_dir: Path, processes: int
) -> dict[str, Any]:
    """Draw `n` scans, each at most `max_draws` times, and move the cohort to its final folder.

    Returns
    -------
    n_accepted; n_rejected; reasons (text -> count); given_up (subjects without a draw that passed); draws
    (one row each: scan, draw, seed, passed, reasons, measures), if there is quality control.

    Raises
    ------
    NonePassedError: no draw passed. An earlier cohort is left unchanged, and rejected draws are kept for inspection.
    """
    _open_staging(cohort)
    done = [i for i in range(1, n + 1) if (cohort.staging / f"sub-{cohort.name(i).subject}").is_dir()]
    waiting: dict[int, list[Rejection]] = {i: [] for i in range(1, n + 1) if i not in done}
    if done:
        log.info("%s: resuming, %d of %d scans exist", cohort.folder.name, len(done), n)
    progress = tqdm(total=n, initial=len(done), desc=f"synthesise {cohort.folder.name}", unit="scan")
    with progress, _mapper(processes) as run:
        for draw in range(max_draws):
            for part in _parts(list(waiting)):
                seeds = [cohort.draw_seed(index, draw) for index in part]
                tries = [
                    (cohort, index, seed, waiting[index]) for index, seed in zip(part, seeds, strict=True)
                ]
                for index, rejection in zip(part, run(_try, tries, generate(seeds)), strict=True):
                    if rejection is None:
                        del waiting[index]
                        progress.update()
                    else:
                        waiting[index].append(rejection)
                        log.info(
                            "scan %d, draw %d rejected: %s", index, draw + 1, "; ".join(rejection.reasons)
                        )
                if not cohort.keep_rejected:
                    rejected.thin(cohort.rejected_staging)
    return _finish(cohort, n, waiting, bids_dir)


def _try(job: tuple[Cohort, int, int, list[Rejection]], sample: np.ndarray) -> Rejection | None:
    """Write one draw with its masks to the staging folder, or return its rejection. Runs in a worker process."""
    cohort, index, seed, rejections = job
    real, name = cohort.geometry(index), cohort.name(index)
    root = cohort.staging / f".draw-{index:04d}"
    shutil.rmtree(root, ignore_errors=True)
    header = load(real.reference)
    image = restore(sample[0], header, real.record)
    measures: dict[str, float | None] = {}
    maps: dict[str, np.ndarray] = {}
    if cohort.segment:
        reference = root / "scratch" / "scan.nii.gz"
        reference.parent.mkdir(parents=True)
        nib.save(image, reference)
        try:
            segmentation = cohort.segment(reference, reference.parent)
            measures, reasons = (
                finite(segmentation.measures),
                qc.reasons(segmentation.measures, cohort.limits),
            )
            maps = {**segmentation.probseg, "dseg": segmentation.dseg, "brain": segmentation.brain}
        except ScanError as error:
            reasons = [f"no masks: {str(error).replace(str(reference), 'the draw')}"]
        shutil.rmtree(root)
        if reasons:
            rejection = Rejection(seed, reasons, measures)
            draw = len(rejections) + 1
            rejected.write(cohort.rejected_staging, index, draw, rejection, image, maps, cohort.facts)
            return rejection
        source = uri(name.image())
        write_masks(root, name, image, maps, source, segmentation.provenance, measures, desc="synthetic")
    elif set(TISSUES) <= set(cohort.channels):
        channels = dict(zip(cohort.channels, sample, strict=True))
        maps = drawn_masks({tissue: restore_map(channels[tissue], header, real.record) for tissue in TISSUES})
        provenance = {"Name": "drawn with the scan", **cohort.facts}
        write_masks(root, name, image, maps, uri(name.image()), provenance, measures, desc="synthetic")
    source_facts = read_json(sidecar(real.reference))
    acquisition = {
        k: v for k, v in source_facts.items() if k not in ("Sources", "Description", "SkullStripped")
    }
    write_scan(
        root,
        name.image(),
        image,
        "Synthetic scan: drawn from a generative model, not acquired from an animal",
        [real_uri(cohort.output_dir, real.reference)],
        {
            **acquisition,
            **cohort.facts,
            "RandomSeed": seed,
            "GeometryFrom": real_uri(cohort.output_dir, real.reference),
            "QualityControl": {
                "Measures": measures,
                "Limits": {key: list(limit.bounds) for key, limit in cohort.limits.items()},
                "Draws": len(rejections) + 1,
                "Rejections": [asdict(rejection) for rejection in rejections],
            },
        },
    )
    (root / f"sub-{name.subject}").rename(cohort.staging / f"sub-{name.subject}")
    shutil.rmtree(root)
    return None


def drawn_masks(tissues: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Maps, dseg and brain mask from tissue maps (x, y, z) in [0, 1] that a model has drawn."""
    total = np.sum([tissues[tissue] for tissue in TISSUES], axis=0)
    maps = {tissue: tissues[tissue] / np.maximum(total, 1) for tissue in TISSUES}
    brain = total > 0.5
    return {**maps, "dseg": tissue_labels(maps, brain), "brain": brain}


def _parts(indices: list[int]) -> list[list[int]]:
    return [indices[at : at + _AT_ONCE] for at in range(0, len(indices), _AT_ONCE)]


@contextmanager
def _mapper(processes: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map`, in worker processes if there is more than one."""
    if processes == 1:
        yield map
        return
    # Not forked: a forked child of a process that has used torch's threads may hang.
    start = (log_files(),)
    with ProcessPoolExecutor(processes, get_context("spawn"), worker_log, start) as pool:
        yield pool.map


def _open_staging(cohort: Cohort) -> None:
    """Start a staging folder, or resume one that an interrupted run with the same settings left."""
    note = cohort.staging / ".settings.json"
    if cohort.staging.is_dir() and not (note.is_file() and read_json(note) == cohort.settings()):
        shutil.rmtree(cohort.staging)
    if not cohort.staging.is_dir():
        shutil.rmtree(cohort.rejected_staging, ignore_errors=True)
    cohort.staging.mkdir(parents=True, exist_ok=True)
    write_json(note, cohort.settings())


def _clear_staging(cohort: Cohort, keep: set[str]) -> None:
    """Remove interrupted draws, and subjects of an earlier call for more scans."""
    for path in cohort.staging.iterdir():
        if path.name.startswith(".draw-") or (path.name.startswith("sub-") and path.name not in keep):
            shutil.rmtree(path)


def _finish(cohort: Cohort, n: int, waiting: dict[int, list[Rejection]], bids_dir: Path) -> dict[str, Any]:
    rows, draws = [], []
    for index in range(1, n + 1):
        name = cohort.name(index)
        if index in waiting:
            draws += _draw_rows(name.subject, [asdict(rejection) for rejection in waiting[index]])
            continue
        facts = read_json(sidecar(cohort.staging / name.image()))
        control = facts["QualityControl"]
        row = {
            "participant_id": f"sub-{name.subject}",
            "seed": facts["RandomSeed"],
            "draws": control["Draws"],
        }
        rows.append(row | {"geometry": facts["GeometryFrom"]} | control["Measures"])
        passed = {"seed": facts["RandomSeed"], "reasons": [], "measures": control["Measures"]}
        draws += _draw_rows(name.subject, [*control["Rejections"], passed])
    reasons = Counter(qc.kind(reason) for draw in draws for reason in draw["reasons"])
    given_up = [f"sub-{cohort.name(index).subject}" for index in waiting]
    record = {
        "n_accepted": len(rows),
        "n_rejected": len(draws) - len(rows),
        "reasons": dict(reasons),
        "given_up": given_up,
        "draws": draws if cohort.segment else [],
    }
    if not rows:
        shutil.rmtree(cohort.staging)
        rejected.settle(cohort.rejected_staging, cohort.rejected, n, cohort.keep_rejected)
        worst = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(3))
        raise NonePassedError(
            f"none of {len(draws)} draws of {cohort.folder.name} passed quality control: {worst}. "
            f"{cohort.rejected} has examples. Train longer (--iterations), and check the pages of the "
            "participants.",
            draws,
        )
    _clear_staging(cohort, {row["participant_id"] for row in rows})
    if given_up:
        log.warning("%s: no draw passed quality control for %s", cohort.folder.name, ", ".join(given_up))
    measures = [key for key in rows[0] if key not in _COLUMNS]
    columns = _COLUMNS | {key: MEASURES[key].described for key in measures}
    write_participants(cohort.staging, rows, columns)
    describe_cohort(cohort.staging, cohort.folder.name, bids_dir)
    (cohort.staging / ".settings.json").unlink()
    old = cohort.folder.with_name(f".{cohort.folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if cohort.folder.exists():
        cohort.folder.rename(old)
    cohort.staging.rename(cohort.folder)
    shutil.rmtree(old, ignore_errors=True)
    rejected.settle(cohort.rejected_staging, cohort.rejected, n, cohort.keep_rejected)
    return record


def _draw_rows(scan: str, tries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All draws of one scan, in order; the one without reasons passed."""
    return [
        {"scan": scan, "draw": draw, "passed": not attempt["reasons"], **attempt}
        for draw, attempt in enumerate(tries, start=1)
    ]
