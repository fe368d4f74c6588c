"""Around a run: may we write there, what was asked for, the log, what a run before it has already done."""

import logging
import os
import platform
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bids_alphagan import __version__
from bids_alphagan.bids.derivatives import is_foreign
from bids_alphagan.common.errors import UserError, unwritable
from bids_alphagan.common.files import digest, read_json, write_json, write_text
from bids_alphagan.common.logs import file_log
from bids_alphagan.config import Config
from bids_alphagan.config.files import to_toml

log = logging.getLogger(__name__)

_VERSIONS_OF = ("torch", "numpy", "scipy", "nibabel", "nipype", "pybids", "antspyx", "templateflow")


def start_run(config: Config) -> None:
    """Check that the run can be done and its folders written, then begin the log and write the run record.

    The record, logs/<run id>.toml, holds every option; `--config` reads it back.

    Raises
    ------
    UserError: a folder cannot be written, there is no such GPU or nipype plugin. Then nothing was written.
    """
    _check_means(config)
    _check_folders(config)
    run_id = f"{config.analysis_level}_{time.strftime('%Y%m%d-%H%M%S')}_{uuid.uuid4().hex[:8]}"
    logs = config.output_dir / "logs"
    command = shlex.join(sys.argv).encode("unicode_escape").decode()  # a line break would end the comment
    head = f"# bids-alphagan {__version__}: {command}\n"
    write_text(logs / f"{run_id}.toml", head + to_toml(config.record()))
    file_log(logs / f"{run_id}.log")
    log.debug("run %s: %s", run_id, config.record())


def check_output(config: Config) -> None:
    """Raise UserError where the output would swallow the input or another data set. Touches nothing."""
    source, target = config.bids_dir.resolve(), config.output_dir.resolve()
    if target == source or target in source.parents:
        what = "the input itself" if target == source else "a folder above the input"
        raise UserError(f"{config.output_dir} is {what}. Give another OUTPUT_DIR, e.g. {source}-derivatives")
    for folder in (config.output_dir, config.work):
        check_outside(config.bids_dir, folder)
    if is_foreign(target):
        raise UserError(
            f"{config.output_dir} holds another data set (see its dataset_description.json), which would be "
            f"written over. Give another OUTPUT_DIR, e.g. {source}-derivatives"
        )


def check_outside(bids_dir: Path, folder: Path) -> None:
    """Raise UserError where a folder to write to is the raw data set itself, or in an animal's folder."""
    source, place = bids_dir.resolve(), folder.resolve()
    inside = place.relative_to(source).parts if source in place.parents else ()
    if place == source or (inside and inside[0].startswith("sub-")):
        raise UserError(f"{folder} is inside the raw data. Give another folder, e.g. {source}-derivatives")


def _check_means(config: Config) -> None:
    if config.analysis_level == "participant" and config.use_plugin:
        from bids_alphagan.participant.workflow import read_plugin

        read_plugin(config.use_plugin)
    if config.analysis_level == "group" and config.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--device cuda: torch finds no GPU here. Use --device cpu, or check the driver.")
    if config.analysis_level == "group" and "train" in config.steps:
        from bids_alphagan.training import distributed

        distributed.check(config.devices, config.num_nodes, config.batch_size, config.device)


def _check_folders(config: Config) -> None:
    folders = (config.output_dir, config.work)
    new = [path for folder in folders for path in (folder, *folder.parents) if not path.exists()]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            for path in sorted(filter(Path.is_dir, set(new)), reverse=True):  # the inner ones first
                path.rmdir()  # nothing is left of a call that could not be done
            raise unwritable(folder, error) from error


def provenance(config: Config) -> dict[str, Any]:
    """What a report says about how it was made: versions, machine, command line, configuration."""
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
        "Configuration": config.record(),
    }


def once(
    stamp: Path, inputs: Mapping[str, Any], outputs: list[Path], work: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Do `work` unless it was done with the same `inputs` and its `outputs` are still there.

    Returns what `work` returned, now or then; it is kept in `stamp` (JSON).
    """
    fingerprint = digest(inputs)
    if stamp.is_file() and all(path.exists() for path in outputs):
        known = read_json(stamp)
        if known["fingerprint"] == fingerprint:
            log.info("%s: nothing has changed, kept as it is", stamp.stem)
            return dict(known["record"])
    record = work()  # puts its outputs in place as its last deed: until then the former ones hold
    write_json(stamp, {"fingerprint": fingerprint, "record": record})
    return record


def keep_aside(folder: Path) -> None:
    """Rename a folder out of the way, so that nothing trained is ever lost."""
    if folder.is_dir() and any(folder.iterdir()):
        aside = folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}")
        folder.rename(aside)
        log.warning("the former run is kept in %s", aside)
