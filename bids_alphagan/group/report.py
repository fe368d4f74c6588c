"""From what a run left behind to what its reports say."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bids_alphagan.bids.derivatives import EVALUATION_RECORD, METRICS_TABLES, SYNTHESIS_RECORD, model_folder
from bids_alphagan.bids.names import ScanName, sidecar
from bids_alphagan.bids.prepared import PreparedScan, compared, scan_masks, subject_scans, synthetic_scans
from bids_alphagan.bids.split import Split, animals_of
from bids_alphagan.common.files import read_json, read_tsv
from bids_alphagan.config import Config
from bids_alphagan.evaluation.downstream.section import downstream_methods, downstream_section
from bids_alphagan.evaluation.pairs.section import MetricsSection
from bids_alphagan.evaluation.sections import statistics_methods, statistics_section
from bids_alphagan.models import MODELS, from_record
from bids_alphagan.qc import limits as gate
from bids_alphagan.qc import rejected
from bids_alphagan.qc import verdicts as judgement
from bids_alphagan.qc.section import Failure, GateSection
from bids_alphagan.report import figures
from bids_alphagan.report.html import ModelSection, ScanSection, write_group_report, write_participant_report
from bids_alphagan.report.methods import (
    ComparisonFacts,
    MaskFacts,
    ModelFacts,
    group_methods,
    participant_methods,
)
from bids_alphagan.templates import Template, templateflow_homes

_SHOWN = 4  # scans in a gallery


def participant_reports(
    config: Config,
    results: Sequence[Any],
    template: Template | None,
    segmenters: Mapping[str, Any],
    notes: Mapping[str, Sequence[str]],
    provenance: Mapping[str, Any],
) -> None:
    """Write sub-<label>.html for each participant of `results` (`preprocess.ScanResult`)."""
    jobs = []
    for subject in dict.fromkeys(result.scan.name.subject for result in results):
        mine = [result for result in results if result.scan.name.subject == subject]
        methods = participant_methods(
            grid=config.grid,
            intensity_percentile=config.intensity_percentile,
            masks=mask_facts(segmenters[subject], template),
            versions=provenance["Versions"],
        )
        sections = [_scan_section(config, result, notes[subject]) for result in mine]
        now = [result.scan.name for result in mine]
        sections += [
            _earlier(scan) for scan in subject_scans(config.output_dir, subject) if scan.name not in now
        ]
        path = config.output_dir / f"sub-{subject}.html"
        jobs.append((path, subject, sections, provenance, methods))
    if config.processes == 1 or len(jobs) == 1:
        for job in jobs:
            write_participant_report(*job)
        return
    with ProcessPoolExecutor(config.processes, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(write_participant_report, *job) for job in jobs]:
            done.result()


def _scan_section(config: Config, result: Any, notes: Sequence[str]) -> ScanSection:
    name: ScanName = result.scan.name
    title = f"{name.stem}_{name.suffix}"
    if result.error:
        return ScanSection(title, error=result.error, notes=notes)
    root = config.output_dir
    parameters = {"Preparation": result.record}
    if result.provenance:
        parameters |= {"Segmentation": result.provenance}
    return ScanSection(
        title,
        reference=root / name.image("reference"),
        preproc=root / name.image("preproc"),
        masks=scan_masks(root, name),
        measures=result.quality,
        parameters=parameters,
        notes=[*notes, *_warnings(result.provenance)],
    )


def _earlier(scan: PreparedScan) -> ScanSection:
    """A scan of the same animal that another run prepared."""
    segmentation = read_json(sidecar(scan.masks["dseg"]))["Segmentation"] if "dseg" in scan.masks else {}
    parameters = {"Preparation": scan.record}
    if segmentation:
        parameters |= {"Segmentation": segmentation}
    return ScanSection(
        f"{scan.name.stem}_{scan.name.suffix}",
        reference=scan.reference,
        preproc=scan.preproc,
        masks=scan.masks,
        measures=scan.quality,
        parameters=parameters,
        notes=["Prepared by another run than the one that wrote this page.", *_warnings(segmentation)],
    )


def _warnings(provenance: Mapping[str, Any]) -> list[str]:
    notes = [str(provenance["Note"])] if "Note" in provenance else []
    return [*notes, *(f"Check the header: {told}." for told in provenance.get("Warnings", []))]


def mask_facts(segmenter: Any, template: Template | None) -> MaskFacts | None:
    """What the methods text says about the masks; None where there are none."""
    if segmenter is None or template is None:
        return None
    facts = segmenter.describe()
    homes = {home.expanduser().resolve() for home in templateflow_homes()}
    from_templateflow = bool(homes & set(template.t2w.resolve().parents))
    name = template.name.replace("[@", "[")  # which would be a citation
    return MaskFacts(facts["Name"], facts["Version"], name, template.citation, from_templateflow)


def group_report(
    config: Config,
    sides: Split,
    cohorts: Mapping[str, Path],
    limits: gate.Limits,
    provenance: Mapping[str, Any],
) -> None:
    """Write group.html from the models' and cohorts' folders, group_metrics.tsv and group_quality.tsv."""
    scans = sides.scans
    sections, facts, masks = [], [], None
    for model, place in cohorts.items():
        folder = model_folder(config.output_dir, model)
        training, synthesis = (
            read_json(folder / "config.json"),
            read_json(folder / SYNTHESIS_RECORD)["record"],
        )
        sections.append(_model_section(model, place, folder, training, synthesis))
        facts.append(_model_facts(training, synthesis))
        masks = MaskFacts(**synthesis["masks"]) if synthesis["masks"] else masks
    table = config.output_dir / "group_metrics.tsv"
    stamp = config.output_dir / "models" / EVALUATION_RECORD
    evaluated = read_json(stamp)["record"] if stamp.is_file() and table.is_file() else {}
    if evaluated.get("compared") != compared(scans, {m: synthetic_scans(p) for m, p in cohorts.items()}):
        evaluated = {}  # of other scans
    helped = downstream_section(config.output_dir, scans, cohorts)
    sets = statistics_section(config.output_dir, scans, cohorts)
    shown = list(_spread(scans))
    write_group_report(
        config.output_dir / "group.html",
        [scan.reference for scan in shown],
        [scan.masks.get("dseg") for scan in shown],
        sections,
        _metrics_section(table, facts, evaluated.get("notes", ())) if evaluated else None,
        provenance,
        group_methods(
            n_scans=len(sides.training),
            n_animals=len(set(animals_of(sides.training))),
            grid=config.grid,
            models=facts,
            masks=masks,
            compared=_comparison(sides, evaluated),
            seed=config.seed,
            versions=provenance["Versions"],
            more=[
                *(statistics_methods(sets) if sets else []),
                *([downstream_methods(helped)] if helped else []),
            ],
        ),
        [*_group_notes(sides, bool(evaluated)), *_gate_notes(sides.training, limits)],
        n_real=len(sides.training),
        gate_section=_gate_section(config, scans, list(cohorts), limits),
        downstream_section=helped,
        statistics_section=sets,
    )


def _model_section(
    model: str, place: Path, folder: Path, training: Mapping[str, Any], synthesis: Mapping[str, Any]
) -> ModelSection:
    examples = synthetic_scans(place)[:_SHOWN]
    names = [ScanName.parse(path.name) for path in examples]
    return ModelSection(
        name=model,
        label=MODELS[model].title,
        examples=examples,
        example_dsegs=[scan_masks(place, name, "synthetic").get("dseg") for name in names],
        losses=folder / "losses.tsv",
        samples=sorted((folder / "samples").glob("step-*.npy"), key=figures.step_of),
        n_accepted=synthesis["n_accepted"],
        n_rejected=synthesis["n_rejected"],
        settings=training,
    )


def _model_facts(training: Mapping[str, Any], synthesis: Mapping[str, Any]) -> ModelFacts:
    settings, spec = training["settings"], from_record(training["model"])
    every, trained = settings["checkpoint_every"], settings["iterations"]
    chosen_from = (every, trained) if settings["use_checkpoint"] == "best" and every <= trained else None
    return ModelFacts(
        spec=spec,
        channels=settings["channels"],
        latent=settings["latent"] or spec.latent,
        iterations=synthesis["step"],
        chosen_from=chosen_from,
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        adam_betas=settings["adam_betas"],
        ema_decay=settings["ema_decay"],
        gate_width=synthesis["gate_width"],
        n_accepted=synthesis["n_accepted"],
        n_rejected=synthesis["n_rejected"],
    )


def _spread(scans: Sequence[PreparedScan]) -> Iterable[PreparedScan]:
    """A few scans, of different animals as far as there are."""
    by_animal = {scan.name.subject: scan for scan in reversed(scans)}
    first = list(reversed(by_animal.values()))
    return (first + [scan for scan in scans if scan not in first])[:_SHOWN]


def _typed(row: Mapping[str, str]) -> dict[str, Any]:
    keys = ("value", "low", "high", "sd", "sd_passes")
    numbers = {key: None if row[key] == "n/a" else float(row[key]) for key in keys}
    return {**row, **numbers, "n": int(row["n"])}


def _group_notes(sides: Split, evaluated: bool) -> list[str]:
    scans, notes = sides.training, []
    if not evaluated:
        notes.append("These scans have not been evaluated: run --steps evaluate report.")
    if not any(scan.masks for scan in scans):
        notes.append("The real scans have no masks, so the synthetic scans have none and were not checked.")
    elif len(scans) < 20:
        notes.append(
            f"Only {len(scans)} training scans: a model trained on so few scans tends to repeat them."
        )
    if not sides.held_out:
        notes.append(
            "No animal was held out: the metrics compare with the scans that the models learned from, which "
            "a model that copies them passes best."
        )
    return notes


def _gate_notes(scans: Sequence[PreparedScan], limits: gate.Limits) -> list[str]:
    note = gate.few_note(sum(bool(scan.quality) for scan in scans), limits)
    return [note] if note else []


def _gate_section(
    config: Config, scans: Sequence[PreparedScan], models: Sequence[str], limits: gate.Limits
) -> GateSection | None:
    """What the gate said of each scan, with the pictures that were kept; None where no scan was judged."""
    rows = judgement.read_table(config.output_dir)
    if not rows:
        return None
    there = {row["source"] for row in rows}
    sources = {judgement.REAL: "Real"} | {model: MODELS[model].title for model in models if model in there}
    verdicts = {row["scan"]: row["reasons"] for row in rows if row["source"] == judgement.REAL}
    first: dict[str, Failure] = {}  # the first real scan with each worst reason
    for scan in scans:
        if reasons := verdicts.get(f"{scan.name.stem}_{scan.name.suffix}"):
            failure = Failure(f"Real: {scan.name.stem}", reasons, scan.reference, scan.masks)
            first.setdefault(gate.kind(reasons[0]), failure)
    failures = list(first.values())[: rejected.EXAMPLES]
    for model in sources:
        drawn = {(row["scan"], row["draw"], row["seed"]) for row in rows if row["source"] == model}
        kept = [
            one
            for one in rejected.kept(rejected.place(model_folder(config.output_dir, model)))
            if (one.name, str(one.draw), str(one.rejection.seed)) in drawn
        ]
        for one in rejected.examples(kept):
            title = f"{sources[model]}: {one.name}, draw {one.draw}"
            failures.append(Failure(title, one.rejection.reasons, one.scan, one.masks))
    return GateSection(sources, rows, limits, failures)


def _comparison(sides: Split, evaluated: Mapping[str, Any]) -> ComparisonFacts | None:
    if not evaluated:
        return None
    pairs = (evaluated["pairs_per_scan"], evaluated["msssim_pairs_per_scan"])
    return ComparisonFacts(len(set(animals_of(sides.held_out))), *pairs)


def _metrics_section(table: Path, models: Sequence[ModelFacts], notes: Sequence[str]) -> MetricsSection:
    beside = table.with_suffix(".json")
    descriptions = read_json(beside)["metric"]["Levels"] if beside.is_file() else {}
    titles = {model.spec.name: model.spec.title for model in models}
    table2 = table.with_name(METRICS_TABLES[1])
    paper = read_tsv(table2) if table2.is_file() else []
    return MetricsSection([_typed(row) for row in read_tsv(table)], titles, descriptions, notes, paper)
