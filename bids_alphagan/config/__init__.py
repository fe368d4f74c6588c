"""All options, each declared once: a field is a flag, its help text, its TOML key and its line in the run record.

A field's `step` metadata names the step whose result it changes. A finished step is done again if one of
its fields, or of the steps before it, has another value (see `Config.settings`).
"""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Optional

from bids_alphagan.bids.names import SUFFIXES
from bids_alphagan.bids.selection import Selection
from bids_alphagan.common.errors import UserError
from bids_alphagan.config.evaluation import EvaluationOptions
from bids_alphagan.config.option import Names, check_value, option, plain
from bids_alphagan.config.training import TrainingOptions
from bids_alphagan.segmenters import AUTO, NONE, SEGMENTERS
from bids_alphagan.segmenters.options import MaskOptions

LEVELS = ("participant", "group")
STEPS = ("train", "synthesise", "evaluate", "downstream", "report")
DEFAULT_STEPS = ("train", "synthesise", "evaluate", "report")  # downstream takes hours at full size


def _label(prefix: str) -> Callable[[str], str]:
    def strip(text: str) -> str:
        return text.removeprefix(f"{prefix}-")

    return strip


def _with_absolute_program(command: str) -> str:
    try:
        program, *rest = shlex.split(command)
    except ValueError:  # not a command; the search for the program reports it
        return command
    is_relative = os.sep in program and not Path(program).is_absolute()
    return shlex.join([str(Path(program).absolute()), *rest]) if is_relative else command


@dataclass(frozen=True)
class Config(TrainingOptions, EvaluationOptions):
    """One run. Paths are as given; `checked` raises UserError for values that cannot be used."""

    bids_dir: Path = field(metadata={"args": ["bids_dir"], "type": Path, "help": "the raw BIDS data set"})
    output_dir: Path = field(
        metadata={
            "args": ["output_dir"],
            "type": Path,
            "help": "output folder for the derivatives (shared by runs)",
        }
    )
    analysis_level: str = field(
        metadata={
            "args": ["analysis_level"],
            "choices": LEVELS,
            "help": "participant: prepare and segment each scan; group: train, synthesise, evaluate, report",
        }
    )

    # What to work on
    participant_label: Optional[list[str]] = option(
        "participants to work on, with or without 'sub-' (default: all)",
        many=True,
        type=_label("sub"),
        metavar="L",
        step="participant",
    )
    session_label: Optional[list[str]] = option(
        "sessions to work on, with or without 'ses-' (default: all)",
        many=True,
        type=_label("ses"),
        metavar="L",
        step="participant",
    )
    task_id: Optional[list[str]] = option(
        "tasks of the bold scans to work on (default: all)",
        many=True,
        type=_label("task"),
        metavar="T",
        step="participant",
    )
    suffix: list[str] = option(
        "kinds of scan to work on",
        ["bold", "T2w"],
        many=True,
        choices=tuple(SUFFIXES),
        step="participant",
    )
    bids_filter_file: Optional[Path] = option(
        'JSON file of PyBIDS filters, by suffix: {"bold": {"acquisition": "epi"}}',
        type=Path,
        metavar="FILE",
        step="participant",
    )
    skip_bids_validation: bool = option("do not run the BIDS validator on the input first", False)

    # How to run
    work_dir: Optional[Path] = option(
        "folder for intermediate files (default: OUTPUT_DIR/.work)",
        None,
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
    )
    nprocs: Optional[int] = option(
        "number of parallel processes (default: all cores)",
        type=int,
        metavar="N",
        least=1,
        most=1024,
    )
    omp_nthreads: Optional[int] = option(
        "threads per process (default: 1 for masks, all cores for training on a CPU)",
        type=int,
        metavar="N",
        least=1,
        most=1024,
    )
    mem_mb: Optional[int] = option(
        "memory limit for scheduling, MB (default: 90 % of the machine's)",
        type=int,
        least=256,
        most=10**9,
        metavar="MB",
    )
    use_plugin: Optional[Path] = option(
        "nipype plugin settings (YAML or JSON: plugin, plugin_args)",
        type=Path,
        metavar="FILE",
    )
    stop_on_first_crash: bool = option(
        "stop at the first scan that fails (default: go on with the others)", False
    )
    verbose: int = option(
        "more log messages on the screen; twice: all of them",
        0,
        "-v",
        "--verbose",
    )
    config: Optional[Path] = option(
        "TOML file with any of these options; flags override it",
        type=Path,
        metavar="FILE.toml",
    )

    # Preparation and masks
    grid: int = option(
        "edge of the cube that scans are resampled to, in voxels (4, 5, 6 or 7 times a power of two)",
        64,
        least=16,
        most=256,
        metavar="N",
        step="participant",
    )
    intensity_percentile: float = option(
        "percentile of the scan's intensities that maps to 1; brighter voxels are clipped. 100: no clipping",
        100.0,
        least=50,
        most=100,
        metavar="P",
        step="participant",
    )
    template: str = option(
        "TemplateFlow NAME[:cohort-N], or a folder with a template and its GM, WM, CSF maps",
        "Fischer344",
        metavar="NAME[:cohort-N]|DIR",
        step="participant",
    )
    segmenter: str = option(
        "how tissue masks are made; auto: spm if SPM is found, else ants",
        "auto",
        choices=Names([AUTO], SEGMENTERS, [NONE]),
        step="participant",
    )
    spm_cmd: Optional[str] = option(
        "command that runs an SPM batch script, e.g. '/opt/spm/bin/spm-octave script'",
        type=str,
        metavar="CMD",
        step="participant",
    )
    spm_time_limit: float = option(
        "minutes that SPM may take for a scan; after that it is stopped and the scan fails",
        30.0,
        least=0.01,
        most=10**6,
        metavar="MINUTES",
        step="participant",
    )
    bias_corrected: bool = option(
        "also write each scan without coil shading (desc-biascorrected)",
        False,
        step="participant",
    )
    quick_masks: bool = option(
        "coarser, faster registration for the masks",
        False,
        step="participant",
    )

    # Synthesis
    n_synthetic: int = option(
        "synthetic scans per model that pass quality control",
        100,
        least=1,
        most=10**6,
        metavar="N",
        step="synthesise",
    )
    max_draws: int = option(
        "draws per synthetic scan before it is given up",
        10,
        least=1,
        most=10**6,
        metavar="N",
        step="synthesise",
    )
    gate_width: float = option(
        "limits of quality control: how far a synthetic scan's measures may lie from the real scans' medians, "
        "in robust standard deviations; a scan beyond them is rejected and drawn again",
        5.0,
        "--qc-width",
        "--gate-width",
        least=0.1,
        most=1e12,
        metavar="W",
        step="synthesise",
    )
    gate_limits: Optional[Path] = option(
        'JSON or TOML file of quality control limits that replace those of the real scans: {"entropy": '
        "[0, 1.2]}, null for no limit (docs/quality-control.md lists the measures)",
        None,
        "--qc-limits",
        "--gate-limits",
        type=Path,
        metavar="FILE",
        step="synthesise",
    )
    keep_rejected: bool = option(
        "keep all rejected draws, with their masks and reasons, in OUTPUT_DIR/models/MODEL/rejected "
        "(default: one example per reason)",
        False,
        step="synthesise",
    )
    steps: list[str] = option(
        "group-level steps to run; downstream takes hours at full size",
        list(DEFAULT_STEPS),
        many=True,
        choices=STEPS,
    )

    def checked(self) -> "Config":
        """Return self with absolute paths. Raises UserError, naming the option, for a value out of bounds."""
        for f in fields(self):
            value = getattr(self, f.name)
            for item in value if isinstance(value, list) else [value]:
                check_value(f.name, f.metadata, item)
        if self.grid % 2 ** (self.grid.bit_length() - 3):
            raise UserError(
                f"--grid {self.grid}: must be 4, 5, 6 or 7 times a power of two (32, 48, 64, 80 ...)."
            )
        if self.bias_corrected and self.segmenter == NONE:
            raise UserError(
                "--bias-corrected: the segmenter makes the correction, so it cannot be used with --segmenter none."
            )
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        paths: dict[str, Any] = {n: v.absolute() for n, v in values.items() if isinstance(v, Path)}
        if Path(self.template).is_dir():  # so that the run record works from any folder
            paths["template"] = str(Path(self.template).absolute())
        if self.spm_cmd:
            paths["spm_cmd"] = _with_absolute_program(self.spm_cmd)
        return replace(self, **paths)

    def settings(self, *steps: str) -> dict[str, Any]:
        """The fields that change the result of `steps`, as JSON-serialisable values."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.metadata.get("step") in steps}

    def record(self) -> dict[str, Any]:
        """All fields that are set, as values for JSON and TOML."""
        values = {f.name: plain(getattr(self, f.name)) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def processes(self) -> int:
        return self.nprocs or len(os.sched_getaffinity(0))

    @property
    def memory_gb(self) -> float:
        """Memory that scheduling may allot, GB: --mem-mb, else 90 % of the machine's."""
        megabytes = self.mem_mb or 0.9 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
        return megabytes / 1024

    @property
    def mask_threads(self) -> int:
        return self.omp_nthreads or 1

    @property
    def mask_options(self) -> MaskOptions:
        """How the tissue masks are made."""
        return MaskOptions(
            self.quick_masks, self.mask_threads, self.spm_cmd, self.spm_time_limit, self.work / "tpm"
        )

    @property
    def selection(self) -> Selection:
        """Which scans to work on."""
        return Selection(
            self.participant_label, self.session_label, self.task_id, self.suffix, self.bids_filter_file
        )

    @property
    def work(self) -> Path:
        return self.work_dir or self.output_dir / ".work"
