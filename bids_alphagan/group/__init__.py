"""Level 2, all scans together: train the models, draw the cohorts, evaluate and report; only the chosen steps."""

from bids_alphagan.bids import raw
from bids_alphagan.bids.prepared import warn_of_orientations
from bids_alphagan.bids.study import Study
from bids_alphagan.common.process.threads import use_threads
from bids_alphagan.config import Config
from bids_alphagan.config.run import run_record
from bids_alphagan.group.downstream import Downstream
from bids_alphagan.group.evaluate import Evaluate
from bids_alphagan.group.report import Report
from bids_alphagan.group.step import Step
from bids_alphagan.group.synthesise import Synthesise
from bids_alphagan.group.train import Train, follow
from bids_alphagan.qc.verdicts import QualityControl
from bids_alphagan.training import distributed

STEPS: tuple[type[Step], ...] = (Train, Synthesise, Evaluate, Downstream, Report)


def run(config: Config) -> int:
    """Run the group level and return its exit code, 0. Errors are raised."""
    use_threads(config.omp_nthreads or max(1, config.processes // distributed.sharing()))
    # Only the participant level applies the filters, but a damaged file is an error here, too.
    raw.read_filters(config.bids_filter_file)
    study = Study.open(
        config.bids_dir,
        config.output_dir,
        config.work,
        config.selection,
        config.held_out_share,
        grid=config.grid,
        intensity_percentile=config.intensity_percentile,
    )
    steps = [step.with_options(config) for step in STEPS if step.name in config.steps]
    if distributed.follows():
        return follow(study, steps)
    warn_of_orientations({str(scan.name.image()): scan.record for scan in study.scans})
    quality = QualityControl.of(study, config.gate_width, config.gate_limits)
    for step in steps:
        step.check(study)  # all steps are checked before anything is written
    with run_record(config):
        study.write()
        quality.log_real()
        for step in steps:
            step.run(study)
    return 0
