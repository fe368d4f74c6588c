"""The downstream experiment of the group level, from the files of a run to its tables."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.bids.derivatives import DOWNSTREAM_RECORD, DOWNSTREAM_TABLES, model_folder
from bids_alphagan.bids.names import ScanName
from bids_alphagan.bids.prepared import PreparedScan, scan_masks, segmented, synthetic_scans
from bids_alphagan.bids.split import Split, animals_of
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json
from bids_alphagan.config import Config
from bids_alphagan.config.run import once
from bids_alphagan.group.train import device

log = logging.getLogger(__name__)


def check(config: Config, sides: Split) -> None:
    """Raise UserError where the real scans or the options allow no experiment: before anything is trained."""
    from bids_alphagan.evaluation.downstream import check_split

    settings_of(config)
    if not any("dseg" in scan.masks for scan in sides.scans):
        raise UserError(
            "downstream: no real scan has tissue masks, from which the networks learn. Make them first: run "
            "participant with --segmenter ants or spm."
        )
    if not sides.held_out:
        raise UserError(
            "downstream: no animal is held out to test on. Give --held-out a share above 0, leave out "
            "--protocol paper, and have at least 4 animals; then --steps train synthesise downstream."
        )
    check_split(with_masks(sides.scans), with_masks(sides.held_out), ())


def with_masks(scans: Sequence[PreparedScan]) -> set[str]:
    """The animals of those scans that have labels."""
    return set(animals_of([scan for scan in scans if "dseg" in scan.masks]))


def settings_of(config: Config) -> Any:
    """The options of the experiment, as it knows them (`evaluation.downstream.Settings`)."""
    from bids_alphagan.evaluation.downstream import Arm, Settings, read_arm

    return Settings(
        arms=tuple(dict.fromkeys([Arm(1), *map(read_arm, config.downstream_arms)])),
        steps=config.downstream_steps,
        seeds=config.downstream_seeds,
        batch_size=config.downstream_batch_size,
        channels=tuple(config.downstream_channels),
        residual_units=config.downstream_residual_units,
        learning_rate=config.downstream_learning_rate,
    )


def downstream(config: Config, sides: Split, cohorts: Mapping[str, Path]) -> None:
    """Segment held-out animals by networks trained with and without each cohort; write DOWNSTREAM_TABLES.

    Finished networks' results stay in models/downstream: a run that was stopped goes on from there.
    """
    trained_on = {model: animals_of(seen(config, model, sides)) for model in cohorts}
    for model, place in cohorts.items():
        check_masks(model, place)
    content = segmented(sides.scans, cohorts)
    inputs = {
        "settings": config.settings("downstream"),
        "content": content,
        "held out": [scan.name.stem for scan in sides.held_out],
        "trained on": trained_on,
        "grid": config.grid,
        "intensity percentile": config.intensity_percentile,
        "seed": config.seed,
    }
    tables = [config.output_dir / name for name in DOWNSTREAM_TABLES]
    record = once(
        config.output_dir / "models" / DOWNSTREAM_RECORD,
        inputs,
        tables,
        lambda: {"content": content, "models": experiment(config, sides, cohorts, trained_on, tables)},
    )
    for model, found in record["models"].items():
        log.info("%s: %s", model, found["headline"]["text"])
    for note in notes_of(record["models"]):
        log.warning("downstream: %s", note)


def notes_of(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What limits the numbers, each said once: real scans alone are the same for all models."""
    return list(dict.fromkeys(note for told in models.values() for note in told.get("notes", [])))


def experiment(
    config: Config,
    sides: Split,
    cohorts: Mapping[str, Path],
    trained_on: Mapping[str, Sequence[str]],
    tables: Sequence[Path],
) -> dict[str, Any]:
    """Run it for each cohort and write the tables; what the report says beside them, by model."""
    from bids_alphagan.evaluation import downstream as parts
    from bids_alphagan.evaluation import volumes
    from bids_alphagan.evaluation.downstream.measures import GLOBAL

    settings, held_out = settings_of(config), with_masks(sides.held_out)
    box = volumes.common_field_of_view([scan.record for scan in sides.scans])
    real = parts.real_scans(sides.scans, box)
    folder = config.output_dir / "models" / "downstream"
    results, told = {}, {}
    for model, place in cohorts.items():
        log.info("downstream: with the synthetic scans of %s", model)
        synthetic = parts.synthetic_scans(place, box, config.grid, config.intensity_percentile)
        animals = trained_on[model]
        result = parts.run(real, synthetic, held_out, animals, settings, folder, config.seed, device(config))
        leading = parts.headline([parts.read_arm(name) for name in result.record["settings"]["arms"]]).name
        wanted = {"arm": leading, "compared_with": "r1", "tissue": GLOBAL, "measure": "dice"}
        first = next(one for one in result.sentences if wanted.items() <= one.items())
        results[model] = result
        notes = parts.hardly_learned(result.summary, settings.steps)
        told[model] = {**result.record, "headline": first, "sentences": result.sentences, "notes": notes}
    parts.write_tables(results, *tables)
    return told


def seen(config: Config, model: str, sides: Split) -> list[PreparedScan]:
    """The scans that a generator was trained on: those whose content its training record names.

    Raises UserError where that is neither all scans nor those that are for training: it may have seen any.
    """
    from bids_alphagan import training
    from bids_alphagan.training.augment import data_hash

    path = model_folder(config.output_dir, model) / "config.json"
    again = f"train it again: --steps train synthesise downstream --model {model}."
    try:
        known = read_json(path)["data"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: does not say on which scans {model} was trained ({error}). To know, {again}"
        ) from error
    for scans in (sides.training, sides.scans):
        if data_hash(training.prepared([scan.preproc for scan in scans], config.work / "scans")) == known:
            return scans
    raise UserError(
        f"{path}: {model} was trained on other scans than those that are for training now. It may have seen "
        "held-out animals, and a test on them would prove nothing. Give the labels and the --held-out of its "
        f"training, or {again}"
    )


def check_masks(model: str, place: Path) -> None:
    """Raise UserError where none of a cohort's scans has labels."""
    scans = synthetic_scans(place)
    if not any("dseg" in scan_masks(place, ScanName.parse(path.name), "synthetic") for path in scans):
        raise UserError(
            f"{place}: the {len(scans)} synthetic scans of {model} have no tissue masks, from which the "
            f"networks learn. Make them: --steps synthesise downstream --segmenter ants --model {model}."
        )
