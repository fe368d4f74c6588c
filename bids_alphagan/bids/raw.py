"""The input: queries of a raw BIDS data set with pybids."""

import csv
import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bids_alphagan.bids.names import DERIVATIVE_ENTITIES, SUFFIXES, ScanName, require_known
from bids_alphagan.bids.selection import Selection
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_json, read_tsv

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawScan:
    """A scan of the input: its path, its parsed name, and its metadata with BIDS inheritance."""

    path: Path
    name: ScanName
    metadata: dict[str, Any]


def check_dataset(bids_dir: Path) -> None:
    """Raise UserError unless `bids_dir` looks like a BIDS data set."""
    description = bids_dir / "dataset_description.json"
    try:
        names = [path.name for path in bids_dir.iterdir()]
        described = description.is_file()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{bids_dir}: no such folder.") from error
    except OSError as error:
        raise UserError(f"{bids_dir}: cannot be read ({error.strerror}). Change its permissions.") from error
    if not described:
        raise UserError(
            f"{bids_dir}: not a BIDS data set, dataset_description.json is missing. Give the "
            "folder that holds it, or add one with Name and BIDSVersion."
        )
    try:
        content = read_json(description)
    except (OSError, ValueError) as error:
        raise UserError(f"{description}: cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict) or "Name" not in content or "BIDSVersion" not in content:
        raise UserError(f"{description}: Name and BIDSVersion are required by BIDS.")
    if not any(name.startswith("sub-") for name in names):
        raise UserError(f"{bids_dir}: the data set is empty, it has no sub-* folders.")
    species(bids_dir)  # reports a broken table before anything is written


def animals(bids_dir: Path, selection: Selection) -> list[str]:
    """The labels of the selected participants that have a scan of the selected kinds, in order.

    Reads file names only: a thousand animals take a moment, pybids many seconds.
    Raises UserError for an unknown participant, and if no participant is left.
    """
    available = _labels(bids_dir)
    require_known("participant", selection.participants or [], available)
    labels = [
        label
        for label in available
        if label in (selection.participants or available)
        and any(any((bids_dir / f"sub-{label}").glob(f"**/sub-*_{s}.nii*")) for s in selection.suffixes)
    ]
    if not labels:
        raise UserError(f"{bids_dir}: no participant has a {' or '.join(selection.suffixes)} scan.")
    return labels


def _labels(bids_dir: Path) -> list[str]:
    return sorted(path.name.removeprefix("sub-") for path in bids_dir.glob("sub-*") if path.is_dir())


def _indexer(participants: Sequence[str] | None) -> Any:
    """pybids's indexer, which skips the folders of participants that are not selected."""
    from bids import BIDSLayoutIndexer
    from bids.layout.validation import DEFAULT_LOCATIONS_TO_IGNORE

    ignored = list(DEFAULT_LOCATIONS_TO_IGNORE)
    if participants:
        labels = "|".join(map(re.escape, participants))
        ignored.append(re.compile(rf"^/sub-(?!({labels})(/|$))"))
    return BIDSLayoutIndexer(validate=False, ignore=ignored)


def find_scans(bids_dir: Path, selection: Selection) -> list[RawScan]:
    """The selected scans, sorted by path.

    Raises
    ------
    UserError: unknown participant, session or task; an unreadable filter file; no scan left; metadata that pybids
        cannot read.
    """
    from bids import BIDSLayout

    filters = read_filters(selection.filter_file)
    require_known("participant", selection.participants or [], _labels(bids_dir))
    try:
        layout = BIDSLayout(bids_dir, validate=False, indexer=_indexer(selection.participants))
    except PermissionError as error:
        closed = Path(error.filename)
        if closed.name == "layout_config.json":  # pybids looks for it in every folder
            closed = closed.parent
        raise UserError(
            f"{closed}: cannot be read ({error.strerror}). Change its permissions, or choose other "
            "participants with --participant-label."
        ) from error
    except Exception as error:  # pybids raises its own errors and json's
        raise UserError(f"{bids_dir}: pybids cannot read this data set ({error}).") from error
    entities = {"participant": "subject", "session": "session", "task": "task"}  # pybids's names
    query: dict[str, Sequence[str]] = {}
    for word, _, labels in selection.labels:
        if labels:
            require_known(word, labels, layout.get(return_type="id", target=entities[word]))
            query[entities[word]] = labels
    scans = []
    for suffix in selection.suffixes:
        of_kind = {k: v for k, v in query.items() if not (k == "task" and SUFFIXES[suffix] != "func")}
        kind = {"suffix": suffix, "extension": [".nii", ".nii.gz"]}
        try:
            filtered = {file.path for file in layout.get(**(kind | filters.get(suffix, {})))}
            files = [file for file in layout.get(**(kind | of_kind)) if file.path in filtered]
        except (ValueError, TypeError) as error:  # entities that pybids does not know
            raise UserError(f"--bids-filter-file {selection.filter_file}: {error}") from error
        for file in files:
            path = bids_dir / Path(file.path).relative_to(layout.root)
            if name := _raw_name(path, bids_dir):
                scans.append(RawScan(path, name, _finite(path, file.get_metadata())))
    _require_one_file_each(scans)
    if not scans:
        raise UserError(
            f"{bids_dir}: no {' or '.join(selection.suffixes)} scan matches the selection. "
            "Check --suffix, the labels and --bids-filter-file."
        )
    return sorted(scans, key=lambda scan: scan.path)


def _finite(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata without NaN and infinity, which Python accepts in JSON although JSON does not have them."""
    good = {}
    for key, value in metadata.items():
        try:
            json.dumps(value, allow_nan=False)
            good[key] = value
        except ValueError:
            log.warning("%s: %s in its sidecar is not a finite number and is ignored.", path, key)
    return good


def _raw_name(path: Path, bids_dir: Path) -> ScanName | None:
    """The parsed name; None for files that are not raw scans, and for phase and other parts of complex data."""
    try:
        name = ScanName.parse(path.name)
        good = path.relative_to(bids_dir).parent == name.folder
    except (ValueError, KeyError):
        good = False
    entities = dict(name.entities) if good else {}
    if not good or entities.keys() & DERIVATIVE_ENTITIES:
        log.warning("%s is skipped: its name or folder is not that of a raw BIDS scan.", path)
        return None
    return name if entities.get("part", "mag") == "mag" else None


def _require_one_file_each(scans: Sequence[RawScan]) -> None:
    twice = [scan for scan, n in Counter(scan.name for scan in scans).items() if n > 1]
    if twice:
        names = ", ".join(str(name.image()) for name in twice)
        raise UserError(f"Both .nii and .nii.gz exist and may differ: {names}. Keep one of them.")


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """The filters of --bids-filter-file, by suffix. Raises UserError if it is not such a file."""
    if path is None:
        return {}
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--bids-filter-file {path}: cannot be read as JSON ({error}).") from error
    good = isinstance(content, dict) and all(isinstance(value, dict) for value in content.values())
    if not good or not set(content) <= set(SUFFIXES):
        raise UserError(
            f"--bids-filter-file {path}: must be an object of filters by suffix ({', '.join(SUFFIXES)}), "
            'e.g. {"bold": {"acquisition": "epi"}}.'
        )
    return content


def species(bids_dir: Path) -> dict[str, str]:
    """The participants' species, lower case, by label, for those that participants.tsv gives.

    Raises UserError for a table that is not text.
    """
    table = bids_dir / "participants.tsv"
    try:
        rows = read_tsv(table) if table.is_file() else []
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table}: cannot be read as a UTF-8 table ({error}).") from error
    return {
        row["participant_id"].removeprefix("sub-"): row["species"].strip().lower()
        for row in rows
        if row.get("participant_id") and (row.get("species") or "n/a").strip().lower() != "n/a"
    }


def validate(bids_dir: Path) -> None:
    """Run the BIDS validator (bids-validator-deno, offline) and log its errors.

    An invalid data set is not refused: one damaged file must not stop the other scans.
    """
    program = Path(sys.executable).with_name("bids-validator-deno")
    if not program.is_file():
        log.warning("bids-validator-deno is not installed: the input was not validated.")
        return
    command = [str(program), "--json", "--ignoreWarnings", str(bids_dir)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        issues = json.loads(answer.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError):
        log.warning(
            "The BIDS validator did not answer (%s).", answer.stderr.strip()[-300:] or answer.returncode
        )
        return
    errors = [issue for issue in issues if issue.get("severity") == "error"]
    for code, count in Counter(issue.get("code", "?") for issue in errors).items():
        example = next(issue.get("location", "") for issue in errors if issue.get("code", "?") == code)
        log.warning("BIDS validator: %s (%d times), e.g. %s", code, count, example)
    if errors:
        log.warning("The input is not valid BIDS; the run goes on (--skip-bids-validation skips this check).")
    else:
        log.info("BIDS validator: the input is valid.")
