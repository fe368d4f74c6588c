"""The participant level as a nipype workflow: one small chain of nodes for each scan.

read (reference volume) -> conform (network's cube) -> write
                       \\-> segment (tissue masks)  ->/
"""

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import yaml
from nipype import Node, Workflow
from nipype import config as nipype_config
from nipype.interfaces.base import (
    BaseInterface,
    BaseInterfaceInputSpec,
    File,
    TraitedSpec,
    traits,
)
from nipype.pipeline import plugins
from tqdm import tqdm

from bids_alphagan.config import Config
from bids_alphagan.errors import ScanError, UserError
from bids_alphagan.files import read_json, write_json
from bids_alphagan.layout.derivatives import write_masks, write_prepared
from bids_alphagan.layout.names import ScanName, uri
from bids_alphagan.layout.raw import RawScan
from bids_alphagan.volume import check_there, conform, load, read_reference

log = logging.getLogger(__name__)

# A segmenter as this module sees it: (scan, private folder) -> probseg, dseg, brain, provenance, measures.
Segment = Callable[[Path, Path], Any]
_NODE_MEMORY_GB = {"read": 1.0, "conform": 0.5, "segment": 1.5, "write": 0.5}


# What the nodes hand to one another, each in its node's folder.
_FILES = {
    "reference": "reference.nii.gz",
    "reading": "reading.json",
    "cube": "cube.nii.gz",
    "conforming": "conforming.json",
    "maps": "maps.npz",
    "segmentation": "segmentation.json",
    "result": "result.json",
}


@dataclass(frozen=True)
class ScanResult:
    """How it went with one scan: `error` is the reason of its failure, else None."""

    scan: RawScan
    error: str | None
    provenance: dict[str, Any]
    quality: dict[str, float]
    record: dict[str, Any]


class _ScanInput(BaseInterfaceInputSpec):
    failure_file = File(desc="where a failure is noted, so that the report can give its reason", nohash=True)


class _ScanInterface(BaseInterface):
    """An interface that notes the reason of its failure before nipype hears of it."""

    def _run_interface(self, runtime: Any) -> Any:
        try:
            self._process(Path(runtime.cwd))
        except Exception as error:
            reason = str(error) if isinstance(error, ScanError) else f"{type(error).__name__}: {error}"
            write_json(
                Path(self.inputs.failure_file), {"reason": reason, "traceback": traceback.format_exc()}
            )
            raise
        return runtime

    def _process(self, folder: Path) -> None:
        raise AssertionError("each interface says what it does")

    def _list_outputs(self) -> dict[str, Any]:
        outputs = self.output_spec().get()
        return {name: str(Path.cwd() / _FILES[name]) for name in outputs}


class _ReadInput(_ScanInput):
    in_file = File(mandatory=True)


class _ReadOutput(TraitedSpec):
    reference = File(exists=True)
    reading = File(exists=True)


class ReadReference(_ScanInterface):
    """Raw scan -> one 3D float volume (see `volume.read_reference`)."""

    input_spec = _ReadInput
    output_spec = _ReadOutput

    def _process(self, folder: Path) -> None:
        image, record = read_reference(Path(self.inputs.in_file))
        image.header.set_data_dtype(np.float32)
        nib.save(image, folder / _FILES["reference"])
        write_json(folder / _FILES["reading"], record)


class _ConformInput(_ScanInput):
    reference = File(exists=True, mandatory=True)
    grid = traits.Int(mandatory=True)
    upper_percentile = traits.Float(mandatory=True)


class _ConformOutput(TraitedSpec):
    cube = File(exists=True)
    conforming = File(exists=True)


class ConformToGrid(_ScanInterface):
    """3D volume -> the network's cube in [-1, 1] (see `volume.conform`)."""

    input_spec = _ConformInput
    output_spec = _ConformOutput

    def _process(self, folder: Path) -> None:
        cube = conform(load(self.inputs.reference), self.inputs.grid, self.inputs.upper_percentile)
        nib.save(nib.Nifti1Image(cube.data, cube.affine), folder / _FILES["cube"])
        write_json(folder / _FILES["conforming"], cube.record)


class _SegmentInput(_ScanInput):
    reference = File(exists=True, mandatory=True)
    segment = traits.Any(mandatory=True, desc="a frozen dataclass: its repr enters nipype's hash")


class _SegmentOutput(TraitedSpec):
    maps = File(exists=True)
    segmentation = File(exists=True)


class SegmentTissue(_ScanInterface):
    """3D volume -> tissue probability maps, dseg and brain mask on its own grid."""

    input_spec = _SegmentInput
    output_spec = _SegmentOutput

    def _process(self, folder: Path) -> None:
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        made = self.inputs.segment(Path(self.inputs.reference), scratch)
        maps = {**made.probseg, "dseg": made.dseg, "brain": made.brain}
        np.savez_compressed(folder / _FILES["maps"], **maps)
        facts = {"provenance": made.provenance, "quality": made.measures}
        write_json(folder / _FILES["segmentation"], facts)


class _WriteInput(_ScanInput):
    in_file = File(exists=True, mandatory=True)
    reference = File(exists=True, mandatory=True)
    reading = File(exists=True, mandatory=True)
    cube = File(exists=True, mandatory=True)
    conforming = File(exists=True, mandatory=True)
    maps = File(exists=True)
    segmentation = File(exists=True)
    output_dir = traits.Str(mandatory=True)
    raw_path = traits.Str(mandatory=True, desc="path of the raw scan in its data set")
    metadata = traits.Dict(mandatory=True)


class _WriteOutput(TraitedSpec):
    result = File(exists=True)


class WriteDerivatives(_ScanInterface):
    """Everything of one scan -> output_dir; the prepared cube last, so that it stands for a whole set."""

    input_spec = _WriteInput
    output_spec = _WriteOutput

    def _process(self, folder: Path) -> None:
        inputs = self.inputs
        root, name = Path(inputs.output_dir), ScanName.parse(Path(inputs.raw_path).name)
        raw = load(inputs.in_file)
        reference = load(inputs.reference)
        record = read_json(Path(inputs.reading)) | read_json(Path(inputs.conforming))
        facts: dict[str, Any] = {"provenance": {}, "quality": {}}
        if inputs.maps:
            facts = read_json(Path(inputs.segmentation))
            with np.load(inputs.maps, allow_pickle=False) as maps:
                source = uri(name.image("reference"))
                write_masks(root, name, reference, maps, source, facts["provenance"], facts["quality"])
        else:
            for path in name.masks().values():  # of an earlier run with a segmenter
                for stale in (root / path, root / str(path).replace(".nii.gz", ".json")):
                    stale.unlink(missing_ok=True)
        raw_uri = uri(Path(inputs.raw_path), "raw")
        data = np.asarray(reference.dataobj)
        write_prepared(root, name, raw, raw_uri, data, load(inputs.cube), record, inputs.metadata)
        write_json(folder / _FILES["result"], facts | {"record": record})


def run(
    config: Config, scans: Sequence[RawScan], segmenters: Mapping[str, Segment | None]
) -> list[ScanResult]:
    """Prepare and segment scans; one that fails does not hold back the others.

    segmenters: by participant label; None where there are to be no masks.
    """
    base = config.work / "participant"
    workflow = Workflow(name="participant", base_dir=str(config.work))
    lost = 0
    for scan in scans:
        folder = base / _slug(scan)
        (folder / "failure.json").unlink(missing_ok=True)
        (folder / "write" / _FILES["result"]).unlink(missing_ok=True)
        try:
            check_there(scan.path)  # here, for nipype itself stops at a link that leads nowhere
        except ScanError as error:
            write_json(folder / "failure.json", {"reason": str(error)})
            lost += 1
            continue
        workflow.add_nodes([scan_workflow(config, scan, segmenters[scan.name.subject])])
    _configure_nipype(workflow, config)
    plugin, arguments = _plugin(config)
    with tqdm(total=len(scans), initial=lost, desc="participant", unit="scan") as progress:
        arguments["status_callback"] = partial(_advance, progress, set())
        try:
            workflow.run(plugin=plugin, plugin_args=arguments)
        except Exception as error:  # each failed scan has left its reason; see _result
            log.debug("nipype: %s", error)
    return [_result(scan, base / _slug(scan)) for scan in scans]


def _advance(progress: Any, through: set[str], node: Any, status: str) -> None:
    """What nipype calls when a node starts, ends or fails: a scan is through when it is written, or fails.

    nipype's serial plugin tells of an end for nodes, too, that were not run because one before them failed.
    """
    scan = node.fullname.rpartition(".")[0]
    if scan not in through and (status == "exception" or (status == "end" and node.name == "write")):
        through.add(scan)
        progress.update()


def scan_workflow(config: Config, scan: RawScan, segment: Segment | None) -> Workflow:
    """The chain of nodes of one scan."""
    failure = str(config.work / "participant" / _slug(scan) / "failure.json")

    def node(name: str, interface: BaseInterface) -> Node:
        threads = config.omp_nthreads if name == "segment" else 1
        return Node(interface, name=name, n_procs=threads, mem_gb=_NODE_MEMORY_GB[name])

    read = node("read", ReadReference(in_file=str(scan.path), failure_file=failure))
    cube = node(
        "conform",
        ConformToGrid(grid=config.grid, upper_percentile=config.intensity_percentile, failure_file=failure),
    )
    write = node(
        "write",
        WriteDerivatives(
            in_file=str(scan.path),
            output_dir=str(config.output_dir.resolve()),
            raw_path=scan.path.relative_to(config.bids_dir).as_posix(),
            metadata=scan.metadata,
            failure_file=failure,
        ),
    )
    write.overwrite = True  # its files lie outside nipype's folders, where nipype cannot see them missing
    flow = Workflow(name=_slug(scan))
    flow.connect(read, "reference", cube, "reference")
    flow.connect(read, "reference", write, "reference")
    flow.connect(read, "reading", write, "reading")
    flow.connect(cube, "cube", write, "cube")
    flow.connect(cube, "conforming", write, "conforming")
    if segment is not None:
        tissue = node("segment", SegmentTissue(segment=segment, failure_file=failure))
        flow.connect(read, "reference", tissue, "reference")
        flow.connect(tissue, "maps", write, "maps")
        flow.connect(tissue, "segmentation", write, "segmentation")
    return flow


def _slug(scan: RawScan) -> str:
    return f"{scan.name.stem}_{scan.name.suffix}".replace("-", "").replace("+", "plus")


def _result(scan: RawScan, folder: Path) -> ScanResult:
    failure, result = folder / "failure.json", folder / "write" / _FILES["result"]
    if failure.is_file():
        return ScanResult(scan, read_json(failure)["reason"], {}, {}, {})
    if not result.is_file():
        return ScanResult(scan, "not finished: stopped before its turn, or killed (see logs/)", {}, {}, {})
    facts = read_json(result)
    return ScanResult(scan, None, facts["provenance"], facts["quality"], facts["record"])


def _configure_nipype(workflow: Workflow, config: Config) -> None:
    logs = config.output_dir.resolve() / "logs"
    execution = {
        "crashdump_dir": str(logs),
        "crashfile_format": "txt",
        "stop_on_first_crash": str(config.stop_on_first_crash).lower(),
        "hash_method": "content",
        "remove_unnecessary_outputs": "false",
        "poll_sleep_duration": "0.1",
        "check_version": "false",  # no calls to the outside
        "create_report": "false",
    }
    nipype_config.update_config({"execution": execution, "logging": {"log_to_file": "false"}})
    workflow.config["execution"] = execution
    # nipype's own words go to the log file; on the screen a failed scan is one line at the end.
    nipype_log = logging.getLogger("nipype")
    for handler in [h for h in nipype_log.handlers if not isinstance(h, logging.FileHandler)]:
        nipype_log.removeHandler(handler)
    nipype_log.propagate = config.verbose > 1


def _plugin(config: Config) -> tuple[str, dict[str, Any]]:
    if config.use_plugin:
        return read_plugin(config.use_plugin)
    if config.processes == 1:
        return "Linear", {}
    arguments: dict[str, Any] = {"n_procs": config.processes, "raise_insufficient": False}
    if config.mem_mb:
        arguments["memory_gb"] = config.mem_mb / 1024
    return "MultiProc", arguments


def read_plugin(path: Path) -> tuple[str, dict[str, Any]]:
    """The nipype plugin and its arguments from a YAML or JSON file. Raises UserError for anything else."""
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"--use-plugin {path}: cannot be read as YAML or JSON ({error}).") from error
    known = [name.removesuffix("Plugin") for name in dir(plugins) if name.endswith("Plugin")]
    settings = settings if isinstance(settings, dict) else {}
    name, arguments = settings.get("plugin"), settings.get("plugin_args") or {}
    if name not in known or not isinstance(arguments, dict):
        raise UserError(
            f"--use-plugin {path}: must hold 'plugin', one of {', '.join(known)}, and may hold 'plugin_args' "
            "(arguments by name)."
        )
    return name, arguments
