"""The frame of a run: checks of its folders, the run record and log, and the provenance for reports."""

import logging
import os
import platform
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from bids_alphagan import __version__
from bids_alphagan.bids.derivatives import is_foreign
from bids_alphagan.common.errors import UserError, unwritable
from bids_alphagan.common.files import write_text
from bids_alphagan.common.logs import file_log
from bids_alphagan.config import Config
from bids_alphagan.config.files import to_toml

log = logging.getLogger(__name__)

_VERSIONS_OF = ("torch", "numpy", "scipy", "nibabel", "nipype", "pybids", "antspyx", "templateflow")


@contextmanager
def run_record(config: Config) -> Iterator[None]:
    """Check that the folders can be written, then open the log and write the run record.

    The record, logs/<run id>.toml, holds every option; `--config` reads it back.

    Raises UserError if a folder cannot be written; then nothing is written.
    """
    _check_folders((config.output_dir, config.work))
    run_id = f"{config.analysis_level}_{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
    logs = config.output_dir / "logs"
    command = shlex.join(sys.argv).encode("unicode_escape").decode()  # a line break would end the comment
    head = f"# bids-alphagan {__version__}: {command}\n"
    write_text(logs / f"{run_id}.toml", head + to_toml(config.record()))
    file_log(logs / f"{run_id}.log")
    log.debug("run %s: %s", run_id, config.record())
    yield


def check_output(bids_dir: Path, output_dir: Path, work_dir: Path) -> None:
    """Raise UserError if the output would overwrite the input or another data set. Writes nothing."""
    source, target = bids_dir.resolve(), output_dir.resolve()
    if target == source or target in source.parents:
        what = "the input itself" if target == source else "a folder above the input"
        raise UserError(f"{output_dir} is {what}. Give another OUTPUT_DIR, e.g. {source}-derivatives")
    for folder in (output_dir, work_dir):
        check_outside(bids_dir, folder)
    if is_foreign(target):
        raise UserError(
            f"{output_dir} holds another data set (see its dataset_description.json), which would be "
            f"overwritten. Give another OUTPUT_DIR, e.g. {source}-derivatives"
        )


def check_outside(bids_dir: Path, folder: Path) -> None:
    """Raise UserError if an output folder is the raw data set itself or is inside an animal's folder."""
    source, target = bids_dir.resolve(), folder.resolve()
    inside = target.relative_to(source).parts if source in target.parents else ()
    if target == source or (inside and inside[0].startswith("sub-")):
        raise UserError(f"{folder} is inside the raw data. Give another folder, e.g. {source}-derivatives")


def _check_folders(folders: Sequence[Path]) -> None:
    new = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            for path in sorted(filter(Path.is_dir, set(new)), reverse=True):  # inner folders first
                path.rmdir()  # a failed call leaves nothing behind
            raise unwritable(folder, error) from error


def provenance(options: Mapping[str, Any]) -> dict[str, Any]:
    """How a report was made: versions, machine, command line, options (`Config.record`)."""
    versions = {"bids-alphagan": __version__, "python": platform.python_version()}
    for name in _VERSIONS_OF:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "Versions": versions,
        "Machine": f"{platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "Command": shlex.join(["bids-alphagan", *sys.argv[1:]]),
        "Configuration": dict(options),
    }
