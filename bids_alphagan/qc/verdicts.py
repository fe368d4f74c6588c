"""The results of quality control for a study's real and synthetic scans: group_quality.tsv, log and warnings."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_alphagan.bids.study import Study
from bids_alphagan.common.files import read_tsv, write_json, write_tsv
from bids_alphagan.models import MODELS
from bids_alphagan.qc.limits import Limits, few_note, read_limits, reasons, thresholds
from bids_alphagan.qc.measures import MEASURES

log = logging.getLogger(__name__)

REAL, HELD_OUT = "real", "held-out"
TABLE = "group_quality.tsv"
_COLUMNS: dict[str, dict[str, Any]] = {
    "source": {"Description": "Origin of the scan."},
    "split": {
        "Description": "Use of a real scan; n/a for draws.",
        "Levels": {
            "training": "the models are trained on it, and the limits come from these scans",
            "held-out": "no model is trained on it, and no limit comes from it",
        },
    },
    "scan": {"Description": "The scan's name; for a draw, the synthetic scan for which it was drawn."},
    "draw": {"Description": "Number of the draw, from 1; n/a for real scans."},
    "seed": {"Description": "Seed of the latent vector; n/a for real scans."},
    "verdict": {
        "Description": "Whether it passes quality control. Synthetic scans that fail are drawn again; real "
        "ones are used.",
        "Levels": {"pass": "every measure is within its limits", "fail": "one or more are not, or no masks"},
    },
    "reasons": {"Description": "Why it fails, worst first, separated by semicolons."},
}


@dataclass(frozen=True)
class QualityControl:
    """The limits from a study's training scans, and a table row for each real scan with masks."""

    output_dir: Path
    limits: Limits
    real: list[dict[str, Any]]

    @classmethod
    def of(cls, study: Study, width: float, limits_file: Path | None = None) -> "QualityControl":
        """width: of the limits, in robust standard deviations. limits_file: limits that replace single ones.

        Raises UserError if that file cannot be used.
        """
        own = read_limits(limits_file) if limits_file else {}
        limits = thresholds([scan.quality for scan in study.training if scan.quality], width, own)
        rows = []
        for side, scans in (("training", study.training), (HELD_OUT, study.held_out)):
            for scan in scans:
                if scan.quality:
                    name = f"{scan.name.stem}_{scan.name.suffix}"
                    failed_by = reasons(scan.quality, limits)
                    rows.append(_row(REAL, name, scan.quality, failed_by, side=side))
        return cls(study.output_dir, limits, rows)

    @property
    def n_training(self) -> int:
        """Number of training scans that the limits come from."""
        return sum(row["split"] != HELD_OUT for row in self.real)

    def log_real(self) -> None:
        """Log how many real scans pass, and which fail."""
        if not self.real:
            return
        if note := few_note(self.n_training, self.limits):
            log.warning(note)
        passed = sum(row["verdict"] == "pass" for row in self.real)
        log.info("quality control: %d of %d real scans pass", passed, len(self.real))
        for row in self.real:
            if row["verdict"] == "fail":
                use = "compared with it" if row["split"] == HELD_OUT else "trained on it"
                log.warning(
                    "%s fails quality control, but the models are still %s: %s",
                    *(row["scan"], use, row["reasons"]),
                )

    def write_table(
        self,
        cohorts: Mapping[str, Mapping[str, Any]],
        rejected: Mapping[str, Sequence[dict[str, Any]]] | None = None,
    ) -> Path:
        """Write group_quality.tsv and .json with the real scans and all draws; return the table's path.

        cohorts: by model, the record of its cohort ("draws", "limits"). rejected: all draws of further models, none of
        which passed.
        """
        today = {name: limit.record() for name, limit in self.limits.items()}
        rows, used = list(self.real), {REAL: today}
        records = dict(cohorts) | {m: {"draws": d, "limits": today} for m, d in (rejected or {}).items()}
        for model, record in records.items():
            used[model] = record.get("limits", {})
            rows += [
                _row(model, draw["scan"], draw["measures"], draw["reasons"], draw["draw"], draw["seed"])
                for draw in record.get("draws", [])
            ]
        table = self.output_dir / TABLE
        if not rows:
            for path in (table, table.with_suffix(".json")):  # from another selection of scans
                path.unlink(missing_ok=True)
            return table
        write_tsv(table, rows)
        write_json(table.with_suffix(".json"), _columns() | {name: _column(name, used) for name in MEASURES})
        return table


def _columns() -> dict[str, dict[str, Any]]:
    levels = {REAL: "acquired", ", ".join(MODELS): "drawn from that model"}
    return _COLUMNS | {"source": _COLUMNS["source"] | {"Levels": levels}}


def read_table(output_dir: Path) -> list[dict[str, Any]]:
    """The rows of group_quality.tsv: measures as numbers, None for n/a; empty if there is no table."""
    table = output_dir / TABLE
    rows: list[dict[str, Any]] = []
    for row in read_tsv(table) if table.is_file() else []:
        texts = {name: row.get(name, "n/a") for name in MEASURES}
        numbers = {name: None if value == "n/a" else float(value) for name, value in texts.items()}
        failed_by = [] if row["reasons"] == "n/a" else row["reasons"].split("; ")
        rows.append({**row, **numbers, "reasons": failed_by})
    return rows


def _row(
    source: str,
    scan: str,
    measures: Mapping[str, float | None],
    failed_by: Sequence[str],
    draw: int | None = None,
    seed: int | None = None,
    side: str | None = None,
) -> dict[str, Any]:
    plain = [" ".join(reason.replace(";", ",").split()) for reason in failed_by]  # no tabs, no line breaks
    head = {"source": source, "split": side, "scan": scan, "draw": draw, "seed": seed}
    verdict = {"verdict": "fail" if plain else "pass", "reasons": "; ".join(plain) or None}
    return head | verdict | {name: measures.get(name) for name in MEASURES}


def _column(name: str, used: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The sidecar's entry for a measure: unit, and the limits for each source."""
    what = MEASURES[name]
    unit = {"Units": what.unit} if what.unit else {}
    limits = {source: records[name] for source, records in used.items() if name in records}
    return {"Description": what.description, **unit, "Limits": limits}
