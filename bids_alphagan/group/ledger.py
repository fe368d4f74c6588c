"""Tables of the group level that no longer hold: they are of other scans than those that lie beside them."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.bids.derivatives import (
    DOWNSTREAM_RECORD,
    DOWNSTREAM_TABLES,
    EVALUATION_RECORD,
    METRICS_TABLES,
    STATISTICS_TABLES,
    statistic_record,
)
from bids_alphagan.bids.prepared import PreparedScan, compared, masks_compared, segmented, synthetic_scans
from bids_alphagan.common.files import read_json

log = logging.getLogger(__name__)


def remove_stale(output_dir: Path, scans: Sequence[PreparedScan], cohorts: Mapping[str, Path]) -> None:
    """Remove tables that were made of other scans or masks than these, and say so.

    What is slow to compute is kept in models (the downstream networks' results among it), so the step that
    made a table makes it again quickly where the former scans come back.
    """
    alike = compared(scans, {model: synthetic_scans(place) for model, place in cohorts.items()})
    masks = masks_compared(scans, cohorts)
    models = output_dir / "models"
    made = [
        (models / EVALUATION_RECORD, {"compared": alike}, METRICS_TABLES, "evaluate"),
        (models / DOWNSTREAM_RECORD, {"content": segmented(scans, cohorts)}, DOWNSTREAM_TABLES, "downstream"),
    ]
    for name, tables in STATISTICS_TABLES.items():
        now = {"compared": alike, "masks": masks}
        made.append((statistic_record(output_dir, name), now, tables, "evaluate"))
    gone: dict[str, list[str]] = {}
    for record, now, tables, step in made:
        then = _record(record)
        if all(then.get(key) == value for key, value in now.items()):
            continue
        for table in (output_dir / name for name in tables):
            if table.is_file():
                table.unlink()
                table.with_suffix(".json").unlink(missing_ok=True)
                gone.setdefault(step, []).append(table.name)
    for step, names in gone.items():
        told = ", ".join(names)
        log.warning("removed, for they were of other scans: %s (--steps %s makes them anew)", told, step)


def _record(path: Path) -> dict[str, Any]:
    """What a step keeps of itself; nothing where it has not been run, or the file is damaged."""
    try:
        return dict(read_json(path)["record"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
