"""Files are written beside their path and then renamed, so that a reader never sees half a file."""

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_UNFINISHED = ".writing-"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it is renamed to `path`, on failure removed.

    The temporary name keeps the full suffix (``.nii.gz``), which libraries inspect, and starts with a dot, so that
    BIDS tools ignore it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_UNFINISHED, suffix="-" + path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the half-written files of killed processes, recursively. No other process may write there meanwhile."""
    for path in folder.rglob(f"{_UNFINISHED}*"):
        path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk, so that they survive a power failure."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8. A file with the same content is left untouched."""
    if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write JSON (UTF-8, indented). Raises ValueError for NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as a BIDS table: tab separated, with a header line and ``n/a`` for None."""
    columns = list(columns or rows[0])
    lines = ["\t".join(columns)]
    lines += ["\t".join("n/a" if row[c] is None else str(row[c]) for c in columns) for row in rows]
    write_text(path, "\n".join(lines) + "\n")


def read_tsv(path: Path) -> list[dict[str, str]]:
    """Read a BIDS table as a list of rows. All values stay strings."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def digest(content: Any) -> str:
    """SHA-256 (hex) of a JSON-serialisable value, to detect changes. Other types enter as their str()."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
