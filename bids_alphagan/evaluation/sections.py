"""The group report's sections on whole cohorts: distribution, anatomy, memorisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_alphagan.bids.derivatives import statistic_record
from bids_alphagan.bids.prepared import PreparedScan, compared, masks_compared, synthetic_scans
from bids_alphagan.common.files import read_json
from bids_alphagan.evaluation.anatomy import section as anatomy
from bids_alphagan.evaluation.distribution import section as distribution
from bids_alphagan.evaluation.memorisation import section as memorisation
from bids_alphagan.models import MODELS

NAMES = ("distribution", "anatomy", "memorisation")


@dataclass(frozen=True)
class StatisticsSection:
    """What the group report says about whole cohorts.

    Attributes
    ----------
    records: of each of NAMES, what models/<name>.json keeps of today's scans; may be missing.
    labels: model to its name in print.
    pictures: models/memorisation.npz, the worst pairs of each model; need not be there.
    """

    records: Mapping[str, Mapping[str, Any]]
    labels: Mapping[str, str]
    pictures: Path


def statistics_section(
    output_dir: Path, scans: Sequence[PreparedScan], cohorts: Mapping[str, Path]
) -> StatisticsSection | None:
    """What the step "evaluate" has found of these scans; None where it has not been run for them."""
    now = {
        "compared": compared(scans, {model: synthetic_scans(place) for model, place in cohorts.items()}),
        "masks": masks_compared(scans, cohorts),
    }
    records = {}
    for name in NAMES:
        path = statistic_record(output_dir, name)
        record = read_json(path)["record"] if path.is_file() else {}
        if all(record.get(key) == value for key, value in now.items()):
            records[name] = record
    labels = {model: MODELS[model].title for model in cohorts}
    pictures = statistic_record(output_dir, "memorisation").with_suffix(".npz")
    return StatisticsSection(records, labels, pictures) if records else None


_METHODS = {
    "distribution": (
        "Whole cohorts were compared with the real scans as sets of features (anatomy: volumes, shape, "
        "tissue contrast and texture from scans and masks; appearance: principal components of the training "
        "scans' lowest spatial frequencies) by the unbiased kernel maximum mean discrepancy with a "
        "permutation test over animals [@mmd], by precision and recall [@precision] and by density and "
        "coverage [@density]{}."
    ),
    "anatomy": (
        "Volumes of brain and tissues were compared by Hedges' g [@hedges] and by the ratio of their "
        "standard deviations, with 95 % bootstrap intervals over animals [@bootstrap]."
    ),
    "memorisation": (
        "To find copies, each synthetic scan and its mirror image was aligned with the training scans. The "
        "ratio of its distances to the nearest and the second nearest training animal [@twonn] was tested "
        "against that of real scans, with p adjusted for the number of scans [@holm]."
    ),
}


def statistics_methods(section: StatisticsSection) -> list[str]:
    """Paragraphs for the methods section of a manuscript, citing as `report.methods.compose` says."""
    found = {name: record for name, record in section.records.items() if not record["reason"]}
    rows = found.get("distribution", {}).get("tables", {}).get("distribution", [])
    frechet = any(row["frechet"] is not None for row in rows)
    told = [
        _METHODS[name].format(", and by the Fréchet distance [@frechet]" if frechet else "") for name in found
    ]
    return [" ".join(told)] if told else []


def view(section: StatisticsSection) -> dict[str, Any]:
    """All that the page shows, by section; each has `notes`, and `reason` where there are no numbers."""
    missing = {"reason": "Not computed for these scans: run --steps evaluate report.", "notes": []}
    views = {}
    for name in NAMES:
        record = section.records.get(name, missing)
        views[name] = {"reason": record["reason"], "notes": record["notes"]}
    found = {name: record for name, record in section.records.items() if not record["reason"]}
    if "distribution" in found:
        views["distribution"] |= distribution.view(found["distribution"], section.labels)
    if "anatomy" in found:
        views["anatomy"] |= anatomy.view(found["anatomy"], section.labels)
    if "memorisation" in found:
        views["memorisation"] |= memorisation.view(found["memorisation"], section.labels, section.pictures)
    return views
