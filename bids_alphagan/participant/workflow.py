"""The participant level as a nipype workflow: one small chain of nodes for each scan.

read (reference volume) -> conform (network's cube) -> write
                       \\-> segment (tissue masks)  ->/
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import yaml
from nipype import Node, Workflow
from nipype import config as nipype_config
from nipype.interfaces.base import BaseInterface
from nipype.pipeline import plugins
from nipype.pipeline.plugins.base import GraphPluginBase
from nipype.pipeline.plugins.multiproc import MultiProcPlugin, process_initializer
from tqdm import tqdm

from bids_alphagan.bids.derivatives import forget
from bids_alphagan.bids.raw import RawScan
from bids_alphagan.common.errors import ScanError, UserError
from bids_alphagan.common.files import read_json, write_json
from bids_alphagan.common.volume import check_there, voxels
from bids_alphagan.config import Config
from bids_alphagan.participant import nodes
from bids_alphagan.participant.nodes import (
    FILES,
    ConformToGrid,
    ReadReference,
    SegmentTissue,
    WriteDerivatives,
)

log = logging.getLogger(__name__)

# Cached results of nodes name their classes, which older versions had in this module.
sys.modules.setdefault("bids_alphagan.nodes", nodes)

# A segmenter: (scan, private folder) -> segmentation (probseg, dseg, brain, provenance, measures).
Segment = Callable[[Path, Path], Any]
_NOT_FINISHED = (
    "not finished: the run stopped before it, or its process was killed, perhaps for lack of memory (see "
    "logs/). Run again; fewer --nprocs need less memory."
)
_NODE_MEMORY_GB = {"read": 1.0, "conform": 0.5, "write": 0.5}  # segmenters have memory_gb
_HERE = ("Linear", "Debug", "MultiProc", "LegacyMultiProc")  # nipype's plugins without a batch system


@dataclass(frozen=True)
class ScanResult:
    """The result of one scan. error: the reason of its failure, else None."""

    scan: RawScan
    error: str | None
    provenance: dict[str, Any]
    quality: dict[str, float]
    record: dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """The options that the workflow needs. plugin: nipype's plugin and its arguments."""

    bids_dir: Path
    output_dir: Path
    work_dir: Path
    grid: int
    intensity_percentile: float
    bias_corrected: bool
    mask_threads: int
    stop_on_first_crash: bool
    log_nipype: bool
    plugin: tuple[str, dict[str, Any]]

    @classmethod
    def of(cls, config: Config) -> Self:
        """Raises UserError if --use-plugin cannot be read."""
        return cls(
            config.bids_dir,
            config.output_dir,
            config.work,
            config.grid,
            config.intensity_percentile,
            config.bias_corrected,
            config.mask_threads,
            config.stop_on_first_crash,
            config.verbose > 1,
            _plugin(config.use_plugin, config.processes, config.mem_mb),
        )

    def folder(self, scan: RawScan) -> Path:
        """The work folder of a scan's nodes."""
        return self.work_dir / "participant" / _slug(scan)


def run(
    settings: Settings, scans: Sequence[RawScan], segmenters: Mapping[str, Segment | None]
) -> list[ScanResult]:
    """Prepare and segment scans. If one fails, the others go on.

    segmenters: by participant label; None for no masks.
    """
    workflow, lost = plan(settings, scans, segmenters)
    plugin, arguments = settings.plugin
    with tqdm(total=len(scans), initial=lost, desc="participant", unit="scan") as progress:
        arguments["status_callback"] = partial(_advance, progress, set())
        gc.freeze()  # nipype runs the garbage collector before each node; freeze what the libraries have loaded
        try:
            workflow.run(MultiProc(arguments) if plugin == "MultiProc" else plugin, arguments)
        except Exception as error:  # each failed scan has recorded its reason; see _result
            log.debug("nipype: %s", error)
        finally:
            gc.unfreeze()
    for scan in scans:
        failure = settings.folder(scan) / "failure.json"
        if failure.is_file() and read_json(failure)["bad_scan"] and forget(settings.output_dir, scan.name):
            log.warning(
                "%s: removed the derivatives of this scan, which were made before it was damaged", scan.path
            )
    return [_result(scan, settings.folder(scan)) for scan in scans]


def plan(
    settings: Settings, scans: Sequence[RawScan], segmenters: Mapping[str, Segment | None]
) -> tuple[Workflow, int]:
    """The workflow of all readable scans, and the number of unreadable ones, whose reason is recorded."""
    workflow = Workflow(name="participant", base_dir=str(settings.work_dir))
    # Before any interface exists: the first one would look up nipype's newest version on the network.
    _configure_nipype(workflow, settings, len(scans))
    lost = 0
    for scan in scans:
        folder = settings.folder(scan)
        (folder / "failure.json").unlink(missing_ok=True)
        (folder / "write" / FILES["result"]).unlink(missing_ok=True)
        try:
            check_there(scan.path)  # nipype itself would stop at a dead link
        except ScanError as error:
            write_json(folder / "failure.json", {"reason": str(error), "bad_scan": True})
            lost += 1
            continue
        workflow.add_nodes([scan_workflow(settings, scan, segmenters[scan.name.subject])])
    return workflow, lost


class MultiProc(MultiProcPlugin):
    """nipype's MultiProc plugin, which otherwise waits forever for a killed process (e.g. out of memory).

    Here the nodes in that process pool fail, and the remaining nodes get a new pool.
    """

    def __init__(self, plugin_args: Mapping[str, Any]) -> None:
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown()  # type: ignore[has-type]
        self.pool = self._new_pool()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.processors, initializer=_start_worker, initargs=(self._cwd,))

    def _async_callback(self, args: Future[Any]) -> None:
        """Does nothing: `_get_result` queries the task itself and so notices its death."""

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        task = self._task_obj[taskid]
        if task.done() and isinstance(task.exception(), BrokenProcessPool):
            return {"taskid": taskid, "result": None, "traceback": [str(task.exception())]}
        return task.result() if task.done() else None

    def _submit_job(self, node: Any, updatehash: bool = False) -> Any:
        try:
            return super()._submit_job(node, updatehash)
        except BrokenProcessPool:
            self.pool = self._new_pool()
            return super()._submit_job(node, updatehash)


def _start_worker(folder: str) -> None:
    """A worker ends silently when the run is stopped; the main process reports it."""
    process_initializer(folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def _advance(progress: Any, through: set[str], node: Any, status: str) -> None:
    """nipype's status callback: a scan counts as done when it is segmented or has failed.

    Not when it is written: nipype's serial plugin writes all scans at the very end and would show no progress until
    then. It also reports an end for nodes that were not run because an earlier one failed.
    """
    scan = node.fullname.rpartition(".")[0]
    done = status == "end" and node.name in ("segment", "write")
    if scan not in through and (done or status == "exception"):
        through.add(scan)
        progress.update()


def scan_workflow(settings: Settings, scan: RawScan, segment: Segment | None) -> Workflow:
    """The chain of nodes of one scan."""
    failure = str(settings.folder(scan) / "failure.json")

    def node(name: str, interface: BaseInterface) -> Node:
        return Node(interface, name=name, mem_gb=_NODE_MEMORY_GB[name])

    read = node("read", ReadReference(in_file=str(scan.path), failure_file=failure))
    cube = node(
        "conform",
        ConformToGrid(
            grid=settings.grid, upper_percentile=settings.intensity_percentile, failure_file=failure
        ),
    )
    write = node(
        "write",
        WriteDerivatives(
            in_file=str(scan.path),
            output_dir=str(settings.output_dir.resolve()),
            raw_path=scan.path.relative_to(settings.bids_dir).as_posix(),
            metadata=scan.metadata,
            bias_corrected=settings.bias_corrected,
            failure_file=failure,
        ),
    )
    write.overwrite = True  # its files are outside nipype's folders, so nipype does not notice missing ones
    flow = Workflow(name=_slug(scan))
    flow.connect(read, "reference", cube, "reference")
    flow.connect(read, "reference", write, "reference")
    flow.connect(read, "reading", write, "reading")
    flow.connect(cube, "cube", write, "cube")
    flow.connect(cube, "conforming", write, "conforming")
    if segment is not None:
        interface = SegmentTissue(segment=segment, failure_file=failure)
        estimate = getattr(segment, "memory_gb", None)
        size = estimate(voxels(scan.path)) if estimate else _NODE_MEMORY_GB["read"]
        tissue = Node(interface, name="segment", n_procs=settings.mask_threads, mem_gb=size)
        flow.connect(read, "reference", tissue, "reference")
        flow.connect(tissue, "maps", write, "maps")
        flow.connect(tissue, "segmentation", write, "segmentation")
    return flow


def _slug(scan: RawScan) -> str:
    return f"{scan.name.stem}_{scan.name.suffix}".replace("-", "").replace("+", "plus")


def _result(scan: RawScan, folder: Path) -> ScanResult:
    failure, result = folder / "failure.json", folder / "write" / FILES["result"]
    if failure.is_file():
        return ScanResult(scan, read_json(failure)["reason"], {}, {}, {})
    if not result.is_file():
        return ScanResult(scan, _NOT_FINISHED, {}, {}, {})
    facts = read_json(result)
    return ScanResult(scan, None, facts["provenance"], facts["quality"], facts["record"])


def _configure_nipype(workflow: Workflow, settings: Settings, n_scans: int) -> None:
    # Processes may wait for work until nipype's next poll; polling many nodes takes longer itself.
    # Each poll queries a batch system for each of its jobs.
    pause = min(0.1, max(0.02, n_scans / 5000)) if settings.plugin[0] in _HERE else 2
    execution = {
        "crashfile_format": "txt",
        "stop_on_first_crash": str(settings.stop_on_first_crash).lower(),
        "hash_method": "content",
        "remove_unnecessary_outputs": "false",
        "poll_sleep_duration": str(pause),
        "check_version": "false",  # no network calls
        "create_report": "false",
    }
    nipype_config.update_config({"execution": execution, "logging": {"log_to_file": "false"}})
    os.environ.setdefault("LOGNAME", "bids-alphagan")  # nipype uses it in the names of batch jobs
    # Only here: a % in a path is an error to nipype's own configuration file parser.
    workflow.config["execution"] = execution | {"crashdump_dir": str(settings.output_dir.resolve() / "logs")}
    # nipype's messages go to the log file; on the screen a failed scan is one line at the end.
    nipype_log = logging.getLogger("nipype")
    for handler in [h for h in nipype_log.handlers if not isinstance(h, logging.FileHandler)]:
        nipype_log.removeHandler(handler)
    nipype_log.propagate = settings.log_nipype


def _plugin(file: Path | None, processes: int, mem_mb: int | None) -> tuple[str, dict[str, Any]]:
    if file:
        return read_plugin(file)
    if processes == 1:
        return "Linear", {}
    arguments: dict[str, Any] = {"n_procs": processes, "raise_insufficient": False}
    if mem_mb:
        arguments["memory_gb"] = mem_mb / 1024
    return "MultiProc", arguments


def read_plugin(path: Path) -> tuple[str, dict[str, Any]]:
    """The nipype plugin and its arguments from a YAML or JSON file. Raises UserError for an invalid file."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--use-plugin {path}: cannot be read as YAML or JSON ({error}).") from error
    plugin_names = [name.removesuffix("Plugin") for name in dir(plugins) if name.endswith("Plugin")]
    settings = settings if isinstance(settings, dict) else {}
    name, arguments = settings.get("plugin"), settings.get("plugin_args") or {}
    if name not in plugin_names or not isinstance(arguments, dict):
        raise UserError(
            f"--use-plugin {path}: must hold 'plugin', one of {', '.join(plugin_names)}, and may hold 'plugin_args' "
            "(arguments by name)."
        )
    if issubclass(getattr(plugins, f"{name}Plugin"), GraphPluginBase):
        raise UserError(
            f"--use-plugin {path}: {name} submits its jobs and ends, but the app needs their results. Use "
            "another plugin, such as SLURM or SGE, or the jobs that bids-alphagan-slurm writes."
        )
    return name, arguments
