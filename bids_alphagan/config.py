"""Every option, once: a field is a flag, its help text, its TOML key and its line in the run record.

A field's `step` metadata names the steps whose result it changes; a finished step is done again when one of
its fields, or those of a step before it, has another value (see `Config.settings`).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Optional

from bids_alphagan.errors import UserError

LEVELS = ("participant", "group")
MODEL_NAMES = ("adni", "sigmarat1", "sigmarat2")
PRESETS = ("paper", "fast", "demo")
STEPS = ("train", "synthesise", "evaluate", "report")


def _label(prefix: str) -> Callable[[str], str]:
    def strip(text: str) -> str:
        return text.removeprefix(f"{prefix}-")

    return strip


def _option(
    help: str,
    default: Any = None,
    *flags: str,
    choices: Sequence[str] | None = None,
    many: bool = False,
    type: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    least: float | None = None,
    most: float | None = None,
    step: str | None = None,
) -> Any:
    """Declare a field. `least` and `most` bound numbers (inclusive); `step` names what it changes."""
    # argparse expands % in help texts
    metadata: dict[str, Any] = {"help": help.replace("%", "%%"), "least": least, "most": most, "step": step}
    optional = {"choices": choices, "type": type, "metavar": metavar, "args": list(flags) or None}
    metadata |= {key: value for key, value in optional.items() if value is not None}
    if many:
        metadata |= {"nargs": "+", "type": type or str}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """One run. Paths are as given; `checked` raises UserError for values that make no sense."""

    bids_dir: Path = field(metadata={"args": ["bids_dir"], "type": Path, "help": "the raw BIDS data set"})
    output_dir: Path = field(
        metadata={"args": ["output_dir"], "type": Path, "help": "where the derivatives go (shared by runs)"}
    )
    analysis_level: str = field(
        metadata={
            "args": ["analysis_level"],
            "choices": LEVELS,
            "help": "participant: prepare and segment each scan; group: train, synthesise, evaluate, report",
        }
    )

    # What to work on
    participant_label: Optional[list[str]] = _option(
        "participants to work on, with or without 'sub-' (default: all)",
        many=True,
        type=_label("sub"),
        metavar="L",
        step="participant",
    )
    session_label: Optional[list[str]] = _option(
        "sessions to work on, with or without 'ses-' (default: all)",
        many=True,
        type=_label("ses"),
        metavar="L",
        step="participant",
    )
    task_id: Optional[list[str]] = _option(
        "tasks of the bold scans to work on (default: all)",
        many=True,
        type=_label("task"),
        metavar="T",
        step="participant",
    )
    suffix: list[str] = _option(
        "kinds of scan to work on (default: bold and T2w)",
        ["bold", "T2w"],
        many=True,
        choices=("bold", "T2w", "T1w", "T2starw"),
        metavar="{bold,T2w,T1w,T2starw}",
        step="participant",
    )
    bids_filter_file: Optional[Path] = _option(
        'JSON file of PyBIDS filters, by suffix: {"bold": {"acquisition": "epi"}}',
        type=Path,
        metavar="FILE",
        step="participant",
    )
    skip_bids_validation: bool = _option("do not run the BIDS validator on the input first", False)

    # How to run
    work_dir: Optional[Path] = _option(
        "folder for intermediate files (default: OUTPUT_DIR/.work)",
        None,
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
    )
    nprocs: Optional[int] = _option(
        "processes at once (default: all cores)",
        type=int,
        metavar="N",
        least=1,
        most=1024,
    )
    omp_nthreads: Optional[int] = _option(
        "threads per process (default: 1 for masks, all cores for training on a CPU)",
        type=int,
        metavar="N",
        least=1,
        most=1024,
    )
    mem_mb: Optional[int] = _option(
        "memory limit for scheduling, MB (default: 90 % of the machine's)",
        type=int,
        least=256,
        most=10**9,
        metavar="MB",
    )
    use_plugin: Optional[Path] = _option(
        "nipype plugin settings (YAML or JSON: plugin, plugin_args)",
        type=Path,
        metavar="FILE",
    )
    stop_on_first_crash: bool = _option(
        "stop at the first scan that fails (default: the others go on)", False
    )
    verbose: int = _option(
        "more log messages on the screen; twice: all of them",
        0,
        "-v",
        "--verbose",
    )
    config: Optional[Path] = _option(
        "TOML file with any of these options; flags win over it",
        type=Path,
        metavar="FILE.toml",
    )

    # Preparation and masks
    grid: int = _option(
        "edge of the cube that scans are brought to, voxels (a power of two)",
        64,
        least=16,
        most=256,
        metavar="N",
        step="participant",
    )
    intensity_percentile: float = _option(
        "percentile of the scan's intensities that becomes 1; brighter voxels are clipped. 100: no clipping",
        100.0,
        least=50,
        most=100,
        metavar="P",
        step="participant",
    )
    template: str = _option(
        "TemplateFlow NAME[:cohort-N], or a folder with a template and its GM, WM, CSF maps",
        "Fischer344",
        metavar="NAME[:cohort-N]|DIR",
        step="participant",
    )
    segmenter: str = _option(
        "how tissue masks are made; auto: spm where SPM is found, else ants",
        "auto",
        choices=("auto", "spm", "ants", "none"),
        step="participant",
    )
    spm_cmd: Optional[str] = _option(
        "command that runs an SPM batch script, e.g. '/opt/spm/bin/spm-octave script'",
        type=str,
        metavar="CMD",
        step="participant",
    )
    quick_masks: bool = _option(
        "coarser, faster registration for the masks",
        False,
        step="participant",
    )

    # Models
    model: list[str] = _option(
        "models to train: the paper's baseline and its two proposals",
        ["sigmarat2"],
        many=True,
        choices=MODEL_NAMES,
        metavar="{" + ",".join(MODEL_NAMES) + "}",
    )
    preset: str = _option(
        "paper: the publication's; fast: half its channels, a tenth of its iterations; demo: for a laptop",
        "paper",
        choices=PRESETS,
    )
    iterations: int = _option(
        "training iterations",
        200_000,
        least=1,
        most=10**9,
        metavar="N",
        step="train",
    )
    batch_size: int = _option(
        "scans per training step",
        4,
        least=1,
        most=4096,
        metavar="N",
        step="train",
    )
    learning_rate: float = _option(
        "step size of the optimisers (the paper's 0.0002)",
        2e-4,
        least=1e-7,
        most=1,
        metavar="R",
        step="train",
    )
    channels: int = _option(
        "channels of the networks' widest grid (the paper's 64)",
        64,
        least=1,
        most=256,
        metavar="N",
        step="train",
    )
    latent_size: Optional[int] = _option(
        "length of the latent vector (default: the model's own, 500 or 1000)",
        type=int,
        least=1,
        most=10**6,
        metavar="N",
        step="train",
    )
    checkpoint_every: int = _option("iterations between checkpoints", 1000, least=1, most=10**9, metavar="N")
    log_every: int = _option(
        "iterations between rows of losses.tsv",
        50,
        least=1,
        most=10**9,
        metavar="N",
        step="train",
    )
    seed: int = _option(
        "random seed of training, synthesis and evaluation",
        0,
        least=0,
        most=2**31 - 1,
        metavar="N",
        step="train",
    )
    device: str = _option(
        "auto: a GPU where there is one",
        "auto",
        choices=("auto", "cpu", "cuda"),
    )
    resume: str = _option(
        "auto: go on from the last checkpoint; never: start again (the old run is kept aside)",
        "auto",
        choices=("auto", "never"),
    )

    # Synthesis and evaluation
    n_synthetic: int = _option(
        "accepted synthetic scans per model", 100, least=1, most=10**6, metavar="N", step="synthesise"
    )
    max_draws: int = _option(
        "draws per synthetic scan before giving it up",
        10,
        least=1,
        most=10**6,
        metavar="N",
        step="synthesise",
    )
    gate_width: float = _option(
        "how far a synthetic scan's quality measures may lie from the real scans' medians, in robust "
        "standard deviations; beyond it, the scan is drawn again",
        5.0,
        least=0.1,
        most=1e12,
        metavar="W",
        step="synthesise",
    )
    pairs_per_scan: int = _option(
        "random real-synthetic pairs per real scan for NCC, MAE and MMD",
        100,
        least=1,
        most=10**6,
        metavar="N",
        step="evaluate",
    )
    msssim_pairs_per_scan: int = _option(
        "random pairs per scan for MS-SSIM, within the real and within the synthetic set",
        10,
        least=1,
        most=10**6,
        metavar="N",
        step="evaluate",
    )
    steps: list[str] = _option(
        "group-level steps to run",
        list(STEPS),
        many=True,
        choices=STEPS,
        metavar="{" + ",".join(STEPS) + "}",
    )

    def checked(self) -> "Config":
        """Return self with absolute paths; raise UserError naming an option whose value is out of bounds."""
        for f in fields(self):
            value = getattr(self, f.name)
            for item in value if isinstance(value, list) else [value]:
                _check_value(f.name, f.metadata, item)
        if self.grid & (self.grid - 1):
            raise UserError(f"--grid {self.grid}: must be a power of two (16, 32, 64, 128, 256).")
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        paths: dict[str, Any] = {n: v.absolute() for n, v in values.items() if isinstance(v, Path)}
        if Path(self.template).is_dir():  # the run record is to work from any folder
            paths["template"] = str(Path(self.template).absolute())
        return replace(self, **paths)

    def settings(self, *steps: str) -> dict[str, Any]:
        """The fields that change the result of `steps`, as JSON-able values."""
        return {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.metadata.get("step") in steps}

    def record(self) -> dict[str, Any]:
        """Every field as a JSON- and TOML-able value; unset ones are left out."""
        values = {f.name: plain(getattr(self, f.name)) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def processes(self) -> int:
        return self.nprocs or len(os.sched_getaffinity(0))

    @property
    def mask_threads(self) -> int:
        return self.omp_nthreads or 1

    @property
    def training_threads(self) -> int:
        return self.omp_nthreads or self.processes

    @property
    def work(self) -> Path:
        return self.work_dir or self.output_dir / ".work"


def plain(value: Any) -> Any:
    """A value as JSON and TOML know it."""
    return str(value) if isinstance(value, Path) else value


def _check_value(name: str, metadata: Mapping[str, Any], value: Any) -> None:
    flag = "--" + name.replace("_", "-")
    least, most, choices = metadata.get("least"), metadata.get("most"), metadata.get("choices")
    if value is None:
        return
    if choices and value not in choices:
        raise UserError(f"{flag} {value}: choose from {', '.join(choices)}.")
    if least is not None and not value >= least:  # so that NaN fails too
        raise UserError(f"{flag} {value}: must be at least {least:g}.")
    if most is not None and not value <= most:
        raise UserError(f"{flag} {value}: must be at most {most:g}.")
