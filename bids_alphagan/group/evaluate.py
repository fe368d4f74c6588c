"""The evaluation of the cohorts, from the files of a run to its tables."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bids_alphagan.bids.derivatives import EVALUATION_RECORD, METRICS_TABLES, statistic_record
from bids_alphagan.bids.prepared import compared, masks_compared
from bids_alphagan.bids.split import Split, animals_of
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, read_tsv, replacing, write_json, write_tsv
from bids_alphagan.config import Config
from bids_alphagan.config.run import once
from bids_alphagan.group.train import device

if TYPE_CHECKING:  # it brings torch, which only the steps that need it import
    from bids_alphagan.evaluation.scans import Scans

log = logging.getLogger(__name__)


def evaluate(config: Config, sides: Split, cohorts: Mapping[str, Path]) -> None:
    """Compare each cohort with the real scans: metrics of pairs, then statistics of whole cohorts."""
    from bids_alphagan.evaluation.memorisation.table import write_verdicts
    from bids_alphagan.evaluation.questions import STATISTICS
    from bids_alphagan.evaluation.scans import Scans

    scans = Scans(config, sides, cohorts)
    metrics(scans)
    for name in STATISTICS:
        tables = statistic(name, scans)
        if name == "memorisation":
            write_verdicts(cohorts, tables.get(name, []), sides.training)


def metrics(scans: "Scans") -> None:
    """Metrics of pairs of scans: group_metrics.tsv and, for the paper's protocol, group_table2.tsv."""
    from bids_alphagan.evaluation.pairs import compare as evaluation

    config, sides = scans.config, scans.sides
    table, table2 = (config.output_dir / name for name in METRICS_TABLES)

    def work() -> dict[str, Any]:
        held = scans.held_out
        training = evaluation.RealScans(scans.training, animals_of(sides.training))
        others = None if held is None else evaluation.RealScans(held, animals_of(sides.held_out))
        rows = evaluation.evaluate(
            training,
            others,
            scans.synthetic,
            protocol=config.protocol,
            pairs_per_scan=config.pairs_per_scan,
            msssim_pairs_per_scan=config.msssim_pairs_per_scan,
            seed=config.seed,
            device=device(config),
        )
        write_tsv(table, rows)
        write_json(table.with_suffix(".json"), evaluation.columns_sidecar())
        if config.protocol == "paper":
            write_tsv(table2, evaluation.paper_table(rows))
            write_json(table2.with_suffix(".json"), evaluation.paper_columns())
        else:
            for path in (table2, table2.with_suffix(".json")):  # of another protocol
                path.unlink(missing_ok=True)
        notes = evaluation.notes(training, others)
        return {**config.settings("evaluate"), "compared": compared(sides.scans, scans.paths), "notes": notes}

    inputs = {
        "settings": config.settings("evaluate"),
        "compared": compared(sides.scans, scans.paths),
        "held out": [scan.name.stem for scan in sides.held_out],
        "seed": config.seed,
        "version": evaluation.VERSION,
    }
    tables = [table, table2] if config.protocol == "paper" else [table]
    record = once(config.output_dir / "models" / EVALUATION_RECORD, inputs, tables, work)
    for note in record["notes"]:
        log.warning("metrics: %s", note)
    for row in (row for row in read_tsv(table) if row["value"] != "n/a"):
        log.info("%-10s %-8s %.4g", row["model"], row["metric"], float(row["value"]))


def statistic(name: str, scans: "Scans") -> dict[str, list[dict[str, Any]]]:
    """One of `statistics.STATISTICS`: its tables, written and returned; where it fails, the reason is told.

    What is found is kept in models/<name>.json (and .npz), from which tables and report follow.
    """
    from bids_alphagan.evaluation.questions import STATISTICS

    config, sides = scans.config, scans.sides
    what = STATISTICS[name]
    stamp = statistic_record(config.output_dir, name)
    pictures = stamp.with_suffix(".npz")
    of = {"compared": compared(sides.scans, scans.paths), "masks": masks_compared(sides.scans, scans.cohorts)}

    def work() -> dict[str, Any]:
        try:
            found = what.find(scans)
        except UserError as error:  # too few scans: the same scans will be too few again
            return {**of, "tables": {}, "notes": [], "reason": str(error)}
        if found.pictures:
            with replacing(pictures) as path, path.open("wb") as stream:
                np.savez_compressed(stream, allow_pickle=False, **found.pictures)
        told = {"tables": found.tables, "notes": found.notes, "more": found.more, "reason": None}
        return {**of, **told, "pictures": bool(found.pictures)}

    inputs = {
        **of,
        "held out": [scan.name.stem for scan in sides.held_out],
        "seed": config.seed,
        "preparation": [config.grid, config.intensity_percentile],
        "version": what.version,
    }
    try:
        drawn = stamp.is_file() and read_json(stamp)["record"].get("pictures", False)
        record = once(stamp, inputs, [pictures] if drawn else [], work)
    except Exception as error:  # a fault of ours, or of memory: the other statistics are not to blame
        log.exception("%s failed and is left out", name)
        stamp.unlink(missing_ok=True)
        record = {"tables": {}, "notes": [], "reason": f"{type(error).__name__}: {error}"}
    for note in [*record["notes"], *([record["reason"]] if record["reason"] else [])]:
        log.warning("%s: %s", name, note)
    for table, columns in what.tables.items():
        path = config.output_dir / f"group_{table}.tsv"
        if record["tables"]:
            write_tsv(path, record["tables"][table], list(columns))
            write_json(path.with_suffix(".json"), columns)
        else:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
    return dict(record["tables"])
