"""The gate's verdict on every scan of a data set, real and synthetic: group_quality.tsv, log and warnings."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.bids.derivatives import SYNTHESIS_RECORD, model_folder
from bids_alphagan.bids.prepared import PreparedScan
from bids_alphagan.common.files import read_json, read_tsv, write_json, write_tsv
from bids_alphagan.config import Config
from bids_alphagan.qc import limits as gate
from bids_alphagan.qc.measures import MEASURES

log = logging.getLogger(__name__)

REAL, HELD_OUT = "real", "held-out"
TABLE = "group_quality.tsv"
_COLUMNS: dict[str, dict[str, Any]] = {
    "source": {
        "Description": "Where the scan comes from.",
        "Levels": {REAL: "acquired", "adni, sigmarat1, sigmarat2": "drawn from that model"},
    },
    "split": {
        "Description": "Whether the models learn from a real scan; n/a for draws.",
        "Levels": {
            "training": "they do, and the gate's limits come from these scans",
            "held-out": "no model sees it, and no limit comes from it",
        },
    },
    "scan": {"Description": "The scan's name; for a synthetic scan, which one the draw was to become."},
    "draw": {"Description": "Number of the draw, from 1; n/a for real scans."},
    "seed": {"Description": "Seed of the latent vector; n/a for real scans."},
    "verdict": {
        "Description": "What the gate says. Synthetic scans that fail are drawn again; real ones are used.",
        "Levels": {"pass": "every measure lies within its limits", "fail": "one or more do not, or no masks"},
    },
    "reasons": {"Description": "Why it fails, the worst first, separated by semicolons."},
}


def limits_of(config: Config, scans: Sequence[PreparedScan]) -> gate.Limits:
    """The limits: from the training scans, and --gate-limits. UserError where that file cannot be used."""
    own = gate.read_limits(config.gate_limits) if config.gate_limits else {}
    return gate.thresholds([scan.quality for scan in scans if scan.quality], config.gate_width, own)


def judge_real(
    training: Sequence[PreparedScan], held_out: Sequence[PreparedScan], limits: gate.Limits
) -> list[dict[str, Any]]:
    """One row of the table for each real scan that has masks; says in the log who passes and who does not."""
    rows = []
    for side, scans in (("training", training), (HELD_OUT, held_out)):
        for scan in scans:
            if scan.quality:
                name, told = f"{scan.name.stem}_{scan.name.suffix}", gate.reasons(scan.quality, limits)
                rows.append(_row(REAL, name, scan.quality, told, side=side))
    if not rows:
        return rows
    if note := gate.few_note(sum(row["split"] != HELD_OUT for row in rows), limits):
        log.warning(note)
    log.info("the gate: %d of %d real scans pass", sum(r["verdict"] == "pass" for r in rows), len(rows))
    for row in rows:
        if row["verdict"] == "fail":
            how = "are compared with it" if row["split"] == HELD_OUT else "learn from it"
            log.warning(
                "%s fails the gate, and the models %s all the same: %s", row["scan"], how, row["reasons"]
            )
    return rows


def write_table(
    output_dir: Path,
    real: Sequence[dict[str, Any]],
    limits: gate.Limits,
    models: Sequence[str],
    refused: Mapping[str, Sequence[dict[str, Any]]] | None = None,
) -> Path:
    """Write group_quality.tsv and .json from the real scans' rows and what was drawn from `models`.

    refused: all draws of further models, of which none passed.
    """
    today = {name: limit.record() for name, limit in limits.items()}
    rows, used = list(real), {REAL: today}
    records = {m: read_json(model_folder(output_dir, m) / SYNTHESIS_RECORD)["record"] for m in models}
    records |= {model: {"draws": draws, "limits": today} for model, draws in (refused or {}).items()}
    for model, record in records.items():
        used[model] = record.get("limits", {})
        rows += [
            _row(model, one["scan"], one["measures"], one["reasons"], one["draw"], one["seed"])
            for one in record.get("draws", [])
        ]
    table = output_dir / TABLE
    if not rows:
        for path in (table, table.with_suffix(".json")):  # of another selection of scans
            path.unlink(missing_ok=True)
        return table
    write_tsv(table, rows)
    write_json(table.with_suffix(".json"), _COLUMNS | {name: _column(name, used) for name in MEASURES})
    return table


def read_table(output_dir: Path) -> list[dict[str, Any]]:
    """The rows of group_quality.tsv: measures as numbers, None where n/a; none where there is no table."""
    table = output_dir / TABLE
    rows: list[dict[str, Any]] = []
    for row in read_tsv(table) if table.is_file() else []:
        known = {name: row.get(name, "n/a") for name in MEASURES}
        numbers = {name: None if value == "n/a" else float(value) for name, value in known.items()}
        told = [] if row["reasons"] == "n/a" else row["reasons"].split("; ")
        rows.append({**row, **numbers, "reasons": told})
    return rows


def _row(
    source: str,
    scan: str,
    measures: Mapping[str, float | None],
    reasons: Sequence[str],
    draw: int | None = None,
    seed: int | None = None,
    side: str | None = None,
) -> dict[str, Any]:
    told = [" ".join(reason.replace(";", ",").split()) for reason in reasons]  # no tabs, no line breaks
    head = {"source": source, "split": side, "scan": scan, "draw": draw, "seed": seed}
    verdict = {"verdict": "fail" if told else "pass", "reasons": "; ".join(told) or None}
    return head | verdict | {name: measures.get(name) for name in MEASURES}


def _column(name: str, used: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the sidecar says about a measure: unit, and the limits that each source was judged by."""
    what = MEASURES[name]
    unit = {"Units": what.unit} if what.unit else {}
    limits = {source: known[name] for source, known in used.items() if name in known}
    return {"Description": what.description, **unit, "Limits": limits}
