"""Level 1, one scan at a time: prepare and segment each scan, and write a page for each participant."""

import logging

from bids_alphagan.bids import derivatives, raw
from bids_alphagan.bids.prepared import warn_of_orientations
from bids_alphagan.config import Config
from bids_alphagan.config.run import provenance, run_record
from bids_alphagan.participant import workflow
from bids_alphagan.participant.masks import per_participant
from bids_alphagan.participant.page import Preparation, write_pages
from bids_alphagan.segmenters import NONE, resolve_segmenter
from bids_alphagan.templates import find_template

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Run the participant level and return its exit code: 0 all done, 1 some scans failed."""
    scans = raw.find_scans(config.bids_dir, config.selection)
    settings = workflow.Settings.of(config)
    template = segmenter = None
    if config.segmenter != NONE:
        template = find_template(config.template)
        segmenter = resolve_segmenter(config.segmenter, template, config.mask_options)
    with run_record(config):
        derivatives.describe_output(config.output_dir, config.bids_dir)
        if not config.skip_bids_validation:
            raw.validate(config.bids_dir)
        species = raw.species(config.bids_dir)
        segmenters, notes = per_participant(scans, species, template, segmenter)
        results = workflow.run(settings, scans, segmenters)
        preparation = Preparation(config.grid, config.intensity_percentile, provenance(config.record()))
        write_pages(config.output_dir, results, template, segmenters, notes, preparation, config.processes)

        for result in results:
            for warning in result.provenance.get("Warnings", []):
                log.warning("%s: %s", result.scan.path.relative_to(config.bids_dir), warning)
        warn_of_orientations({str(r.scan.name.image()): r.record for r in results if not r.error})
        failed = [result for result in results if result.error]
        ready = len(results) - len(failed)
        log.info("%d of %d scans are ready in %s", ready, len(results), config.output_dir)
        for result in failed:
            log.error("FAILED %s: %s", result.scan.path.relative_to(config.bids_dir), result.error)
    return 1 if failed else 0
