"""The screen: how a scan travels from a BIDS tree to a synthetic derivative."""

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bids_alphagan.bids import derivatives, raw
from bids_alphagan.bids.derivatives import SYNTHESIS_RECORD, cohort_folder, model_folder
from bids_alphagan.bids.prepared import PreparedScan, check_synthetic, prepared_scans
from bids_alphagan.bids.split import Split, split
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import file_digest, read_json
from bids_alphagan.common.process.scratch import use_scratch
from bids_alphagan.config import Config
from bids_alphagan.config.choices import MODEL_NAMES
from bids_alphagan.config.run import check_output, once, provenance, start_run
from bids_alphagan.group.ledger import remove_stale
from bids_alphagan.group.train import device, follow, follows, train
from bids_alphagan.qc import limits as gate
from bids_alphagan.qc import verdicts as judgement
from bids_alphagan.qc.rejected import NonePassedError
from bids_alphagan.segmenters import Segmenter, resolve_segmenter
from bids_alphagan.segmenters.consistency import check_alike
from bids_alphagan.templates import Template, find_template

log = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Run one analysis level and return the exit code: 0 all done, 1 some scans failed."""
    raw.check_dataset(config.bids_dir)
    check_output(config)
    use_scratch(config.work)
    return {"participant": run_participant, "group": run_group}[config.analysis_level](config)


def run_participant(config: Config) -> int:
    """Prepare and segment each scan; write derivatives and a report for each participant."""
    from bids_alphagan.group.report import participant_reports
    from bids_alphagan.participant import workflow as preprocess

    scans = raw.find_scans(config)
    template, segmenter = masks_by(config)
    start_run(config)
    derivatives.describe_output(config.output_dir, config.bids_dir)
    if not config.skip_bids_validation:
        raw.validate(config.bids_dir)

    segmenters, notes = per_participant(config, scans, template, segmenter)
    results = preprocess.run(config, scans, segmenters)
    participant_reports(config, results, template, segmenters, notes, provenance(config))

    for result in results:
        for told in result.provenance.get("Warnings", []):
            log.warning("%s: %s", result.scan.path.relative_to(config.bids_dir), told)
    warn_of_headers({str(r.scan.name.image()): r.record for r in results if not r.error})
    failed = [result for result in results if result.error]
    log.info("%d of %d scans are ready in %s", len(results) - len(failed), len(results), config.output_dir)
    for result in failed:
        log.error("FAILED %s: %s", result.scan.path.relative_to(config.bids_dir), result.error)
    return 1 if failed else 0


def run_group(config: Config) -> int:
    """Train the models, draw the synthetic cohorts, evaluate and report: each as far as asked for."""
    from bids_alphagan.group import downstream as group_downstream
    from bids_alphagan.group.evaluate import evaluate
    from bids_alphagan.group.report import group_report

    if follows():
        follow(config)
    raw.read_filters(config)  # the participant level has used them; a damaged file is told of here, too
    scans = prepared_scans(config)
    warn_of_headers({str(scan.name.image()): scan.record for scan in scans})
    sides = split(config, scans)
    with_masks = "synthesise" in config.steps and any(scan.masks for scan in scans)
    template, segmenter = masks_by(config) if with_masks else (None, None)
    if segmenter is not None:
        check_alike({scan.name.stem: scan.segmentation for scan in scans if scan.masks}, segmenter)
    limits = judgement.limits_of(config, sides.training)
    if "downstream" in config.steps:
        group_downstream.check(config, sides)
    if not {"train", "synthesise"} & set(config.steps):
        cohorts(config, sides)
    start_run(config)
    derivatives.describe_output(config.output_dir, config.bids_dir)
    sides.record(config)
    judged = judgement.judge_real(sides.training, sides.held_out, limits)

    if "train" in config.steps:
        train(config, sides.training)
    if "synthesise" in config.steps:
        for at, model in enumerate(config.model):
            try:
                synthesise(config, model, sides.training, template, segmenter, limits)
            except NonePassedError as error:
                before, refused = config.model[:at], {model: error.draws}
                table = judgement.write_table(config.output_dir, judged, limits, before, refused)
                raise UserError(f"{error} {table} has every draw with its reasons.") from error
    made = cohorts(config, sides) if set(config.steps) - {"train"} else {}
    if {"synthesise", "report"} & set(config.steps):
        judgement.write_table(config.output_dir, judged, limits, list(made))
    if made:
        check_synthetic(made)
        remove_stale(config.output_dir, sides.scans, made)
    if "evaluate" in config.steps:
        evaluate(config, sides, made)
    if "downstream" in config.steps:
        group_downstream.downstream(config, sides, made)
    if "report" in config.steps:
        group_report(config, sides, made, limits, provenance(config))
        log.info("open %s", config.output_dir / "group.html")
    return 0


def masks_by(config: Config) -> tuple[Template | None, Segmenter | None]:
    """The template and the segmenter that the options ask for; (None, None) for --segmenter none."""
    if config.segmenter == "none":
        log.warning("no tissue masks: --segmenter none")
        return None, None
    template = find_template(config.template)
    return template, resolve_segmenter(
        config.segmenter,
        template,
        config.spm_cmd,
        config.quick_masks,
        config.mask_threads,
        config.spm_time_limit,
        config.work / "tpm",
    )


def warn_of_headers(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn where scans are stored in several orders: a wrong one is a mirror image that no picture shows.

    records: `volume.Conformed.record` by the scan's name.
    """
    orders = Counter(record["SourceOrientation"] for record in records.values())
    usual = orders.most_common(1)[0][0] if orders else ""
    others = [name for name, record in records.items() if record["SourceOrientation"] != usual]
    if others:
        told = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        log.warning(
            "The headers disagree (%s): if one is wrong, left and right may be swapped, which no picture "
            "shows. Other than the most: %s",
            ", ".join(f"{n} scans {order}" for order, n in orders.most_common()),
            told,
        )


def per_participant(
    config: Config, scans: Sequence[raw.RawScan], template: Template | None, segmenter: Segmenter | None
) -> tuple[dict[str, Segmenter | None], dict[str, list[str]]]:
    """A segmenter for each participant: none where the template is of another species, with a note."""
    species = raw.species(config.bids_dir)
    segmenters: dict[str, Segmenter | None] = {}
    notes: dict[str, list[str]] = {}
    for label in dict.fromkeys(scan.name.subject for scan in scans):
        segmenters[label], notes[label] = segmenter, []
        mine = species.get(label)
        if template and template.species and mine and mine != template.species.lower():
            segmenters[label] = None
            notes[label] = [
                f"No masks: the animal is {mine}, the template {template.name} is {template.species}. "
                "Give a template of its species with --template."
            ]
        elif segmenter is None:
            notes[label] = ["No masks: --segmenter none was given."]
        for note in notes[label]:
            log.warning("sub-%s: %s", label, note)
    return segmenters, notes


def synthesise(
    config: Config,
    model: str,
    scans: Sequence[PreparedScan],
    template: Template | None,
    segmenter: Segmenter | None,
    limits: gate.Limits,
) -> None:
    """Draw a cohort from a trained model; scans whose masks fail the gate are drawn again."""
    from bids_alphagan.group.report import mask_facts
    from bids_alphagan.models.alphagan import generator as trained
    from bids_alphagan.qc import rejected
    from bids_alphagan.synthesis import cohort as synthesis

    folder = model_folder(config.output_dir, model)
    generator = trained.load_generator(folder, device(config))
    digest = file_digest(folder / trained.GENERATOR_FILE)
    facts = {"Model": model, "ModelInformation": generator.info, "GeneratorSHA256": digest}
    cohort = synthesis.Cohort(
        folder=cohort_folder(config.output_dir, model),
        output_dir=config.output_dir,
        like=tuple(scans),
        seed=config.seed,
        facts=facts,
        segment=segmenter,
        segment_id=masks_id(template, segmenter),
        limits=limits if segmenter else {},
        rejected=rejected.place(folder),
        keep_rejected=config.keep_rejected,
    )

    def generate(seeds: Sequence[int]) -> Any:
        latents = [trained.draw_latent(seed, generator.latent) for seed in seeds]
        return trained.generate(generator, np.stack(latents))

    def work() -> dict[str, Any]:
        n, draws = config.n_synthetic, config.max_draws
        largest = max(math.prod(scan.record["SourceGrid"]) for scan in scans)
        processes = config.processes_of(segmenter.memory_gb(largest)) if segmenter else config.processes
        made = synthesis.synthesise(cohort, n, draws, generate, config.bids_dir, processes)
        masks = mask_facts(segmenter, template)
        return {
            **made,
            **origin(config, model, scans),
            "step": generator.info["step"],
            "gate_width": config.gate_width,
            "limits": {name: limit.record() for name, limit in cohort.limits.items()},
            "masks": asdict(masks) if masks else None,
        }

    inputs = {"cohort": cohort.settings(), "n": config.n_synthetic, "max_draws": config.max_draws}
    record = once(folder / SYNTHESIS_RECORD, inputs, [cohort.folder], work)
    log.info("%s: %d scans accepted, %d draws rejected", model, record["n_accepted"], record["n_rejected"])


def masks_id(template: Template | None, segmenter: Segmenter | None) -> str:
    """What decides how masks are made: method, parameters, the template's content."""
    if template is None or segmenter is None:
        return "none"
    images = (template.t2w, template.brain_mask, template.gm, template.wm, template.csf)
    return json.dumps([segmenter.describe(), [file_digest(path) for path in images]])


def origin(config: Config, model: str, scans: Sequence[PreparedScan]) -> dict[str, Any]:
    """What a cohort comes from: generator, real scans and seed."""
    from bids_alphagan.models.alphagan.generator import GENERATOR_FILE

    generator = model_folder(config.output_dir, model) / GENERATOR_FILE
    return {
        "generator": file_digest(generator) if generator.is_file() else None,
        "scans": scan_names(scans),
        "seed": config.seed,
    }


def scan_names(scans: Sequence[PreparedScan]) -> list[str]:
    """Scans as a cohort's record names them."""
    return [f"{scan.name.stem}_{scan.name.suffix}" for scan in scans]


def cohorts(config: Config, sides: Split) -> dict[str, Path]:
    """The cohorts that were drawn from today's generators, scans and seed, by model, in the paper's order.

    Raises UserError where one of a model that was asked for is not there.
    """
    found = {}
    for model in MODEL_NAMES:
        place = cohort_folder(config.output_dir, model)
        record = model_folder(config.output_dir, model) / SYNTHESIS_RECORD
        then = read_json(record)["record"] if record.is_file() and place.is_dir() else None
        now = origin(config, model, sides.training)
        changed = [key for key in now if then and then[key] != now[key]]
        if then and not changed:
            found[model] = place
            continue
        why = f"were made with other {' and '.join(changed)}" if changed else "are not there"
        if model in config.model:
            mend = back(then, now, sides) if then else ""
            again = f"--steps train synthesise --model {model}."
            raise UserError(
                f"{place}: synthetic scans of {model} {why}. "
                + (f"{mend}, or make them anew: {again}" if mend else f"Make them first: {again}")
            )
        if changed:
            log.warning("%s is left out: its synthetic scans %s", model, why)
    return found


def back(then: Mapping[str, Any], now: Mapping[str, Any], sides: Split) -> str:
    """Which options to give so that a cohort fits again, from what it was made of; "" where none does it."""
    options = []
    if then["scans"] != now["scans"]:
        everything = scan_names(sides.scans)
        told = f"({len(then['scans'])} training scans then, {len(now['scans'])} now)"
        if set(then["scans"]) <= set(everything):
            options.append(f"the --protocol and --held-out of then {told}")
        else:
            options.append(f"the labels, --suffix, --protocol and --held-out of then {told}")
    if then["seed"] != now["seed"]:
        options.append(f"--seed {then['seed']}")
    return f"Give {' and '.join(options)}" if options else ""
