"""What several generators' experiments found, as BIDS tables, one of them in the layout of the paper."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bids_alphagan.bids.names import TISSUES
from bids_alphagan.common.files import write_json, write_tsv
from bids_alphagan.evaluation.downstream.arms import PAPER_TESTS, read_arm
from bids_alphagan.evaluation.downstream.experiment import Result
from bids_alphagan.evaluation.downstream.measures import GLOBAL
from bids_alphagan.evaluation.downstream.summary import scan_columns, summary_columns

_MODEL = {
    "model": {"Description": "The model that drew the synthetic scans; n/a for training sets without any."}
}


def write_tables(results: Mapping[str, Result], summary: Path, scans: Path, table4: Path) -> None:
    """Write three BIDS tables with their sidecars: what was found, every scan's numbers, the paper's table.

    results: by model, all of the same real scans and settings. What takes no synthetic scans is told once.
    """
    found = joined((model, result.summary) for model, result in results.items())
    for path, rows, columns in (
        (scans, joined((model, result.rows) for model, result in results.items()), _MODEL | scan_columns()),
        (table4, paper_rows(found, results), paper_columns()),
        (summary, found, _MODEL | summary_columns()),
    ):
        write_tsv(path, rows, list(columns))
        write_json(path.with_suffix(".json"), columns)


def joined(tables: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> list[dict[str, Any]]:
    """Rows of all models with a first column `model`, None for arms without synthetic scans."""
    rows, first = [], True
    for model, table in tables:
        for row in table:
            synthetic = read_arm(row["arm"]).synthetic
            if synthetic or first:
                rows.append({"model": model if synthetic else None, **row})
        first = False
    return rows


def paper_rows(summary: Sequence[Mapping[str, Any]], results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Table 4 of Ferreira et al. 2022 (doi 10.3390/app12104844): mean Dice of each training set.

    summary: of `joined`. Four decimals, as there.
    """
    tests = {arm.name: number for number, arm in enumerate(PAPER_TESTS, start=1)}
    sizes = {model: result.record["sizes"] for model, result in results.items()}
    lines: dict[tuple[str | None, str], dict[str, Any]] = {}
    for row in summary:
        if row["measure"] == "dice":
            n = sizes[row["model"] or next(iter(sizes))][row["arm"]]
            line = lines.setdefault(
                (row["model"], row["arm"]),
                {
                    "test": tests.get(row["arm"]),
                    "model": row["model"],
                    "training_set": training_set(row["arm"], *n),
                    **dict.fromkeys((GLOBAL, *TISSUES)),
                    "n_animals": row["n_animals"],
                    "n_seeds": row["n_seeds"],
                },
            )
            line[row["tissue"]] = f"{row['mean']:.4f}"
    return list(lines.values())


def training_set(arm: str, n_real: int, n_synthetic: int) -> str:
    """An arm by its numbers of scans, as the paper writes it: r174 + s87."""
    parts = [f"{letter}{n}" for letter, n in (("r", n_real), ("s", n_synthetic)) if n]
    return " + ".join(parts) + (", augmented" if read_arm(arm).augment else "")


def paper_columns() -> dict[str, Any]:
    """Describe the columns of `paper_rows`, in the form of a BIDS sidecar."""
    dice = "Mean Dice over held-out real animals (seeds and scans averaged within each)"
    return {
        "test": {"Description": "Number of the test in table 4 of doi:10.3390/app12104844; n/a: not there."},
        **_MODEL,
        "training_set": {
            "Description": "Numbers of real (r) and synthetic (s) scans; means over seeds where they differ."
        },
        GLOBAL: {"Description": f"{dice}, of all three tissues by their voxels."},
        **{tissue: {"Description": f"{dice}, of {tissue}."} for tissue in TISSUES},
        "n_animals": {"Description": "Held-out animals."},
        "n_seeds": {"Description": "Trainings, averaged."},
    }
