"""``bids-alphagan-slurm``: write, and optionally submit, the Slurm jobs of a whole run."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from bids_alphagan.bids import raw
from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import write_text
from bids_alphagan.config import DEFAULT_STEPS, Config
from bids_alphagan.config.files import read_toml
from bids_alphagan.config.option import names_of
from bids_alphagan.config.run import check_output, check_outside
from bids_alphagan.models import check_batch
from bids_alphagan.qc.limits import read_limits
from bids_alphagan.segmenters import NONE
from bids_alphagan.slurm import DEFAULTS, FORMS, STAGES, Stage, scripts, stages, tasks_of
from bids_alphagan.templates import check_spec
from bids_alphagan.training.settings import check_shares

TEMPLATES = "TEMPLATEFLOW_HOME"
PLACES = ("bids_dir", "output_dir")
# Other names of options, such as --qc-limits, and the field's own.
OTHER_NAMES = {
    f"--{name.replace('_', '-')}": f"--{f.name.replace('_', '-')}"
    for f in fields(Config)
    for name in names_of(f)
}
LIMITS = ("nprocs", "mem_mb", "devices")  # set by settings.sh and train.sbatch from Slurm's variables

EPILOG = """\
VALUE applies to every stage, STAGE=VALUE to one: --time 4:00:00 train=24:00:00 --partition cpu train=gpu

examples:
  bids-alphagan-slurm BIDS_DIR OUTPUT_DIR --image bids-alphagan.sif --array %20 -- --template SIGMA_DIR
  bids-alphagan-slurm BIDS_DIR OUTPUT_DIR --gpus train=2 --sbatch qos=long --submit -- --template SIGMA_DIR

exit codes: 0 all done; 2 the call could not be carried out, and a line says why
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``bids-alphagan-slurm``, without the part after ``--``."""
    argument_parser = argparse.ArgumentParser(
        prog="bids-alphagan-slurm",
        usage="%(prog)s BIDS_DIR OUTPUT_DIR [options] [-- options of bids-alphagan]",
        description="Write the Slurm jobs of a whole run: animals as an array, then the group level's steps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = argument_parser.add_argument
    add("bids_dir", type=Path, help="the raw BIDS data set")
    add("output_dir", type=Path, help="output folder for the derivatives, on a disk that all nodes share")
    add(
        "--image",
        type=Path,
        metavar="X.sif",
        help="run the app in this image with apptainer (default: the installed app)",
    )
    add("--submit", action="store_true", help="also submit the jobs")
    add("--scripts", type=Path, metavar="DIR", help="folder for the scripts (default: OUTPUT_DIR/code/slurm)")
    add("--overwrite", action="store_true", help="overwrite existing scripts that differ")
    add(
        "--stages",
        nargs="+",
        choices=STAGES,
        metavar="STAGE",
        help=f"stages to run, of {', '.join(STAGES)} (default: all but downstream)",
    )
    add(
        "--array",
        default="",
        metavar="[TASKS][%N]",
        help="array tasks to run, and how many at once: 7,9 or %%20",
    )
    add(
        "--animals-per-task",
        type=_positive,
        default=1,
        metavar="N",
        help="animals per array task, for more than 1000 animals",
    )
    add(
        "--strict",
        action="store_true",
        help="skip the group level if an animal failed (default: run it without that animal)",
    )
    for name, text in (
        ("time", "time limit"),
        ("mem", "memory"),
        ("cpus", "processor cores"),
        ("gpus", "GPUs"),
        ("partition", "partition"),
        ("account", "account"),
        ("sbatch", "further sbatch options, without their dashes: qos=long train=constraint=a100"),
    ):
        own = ", ".join(f"{stage} {DEFAULTS[stage][name]}" for stage in STAGES if name in DEFAULTS[stage])
        default = f" (default: {own})" if own else ""
        add(f"--{name}", nargs="+", default=[], metavar="[STAGE=]VALUE", help=text + default)
    add(
        "--warn",
        type=_positive,
        default=300,
        metavar="S",
        help="seconds before the time limit at which a job saves and is requeued (default: 300)",
    )
    add(
        "--setup",
        nargs="+",
        default=[],
        metavar="LINE",
        help="shell lines that each job runs first: 'module load apptainer'",
    )
    return argument_parser


def _positive(text: str) -> int:
    number = int(text)  # argparse reports a ValueError
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code (see `EPILOG`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[:cut])
    try:
        folder = write(options, words[cut + 1 :])
        print(f"written to {folder}: settings.sh, a script for each stage, submit.sh, participants.txt")
        if options.submit:
            _submit(folder)
        else:
            print(f"next: {shlex.quote(str(folder / 'submit.sh'))}")
    except (UserError, OSError) as error:
        print(f"bids-alphagan-slurm: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bids-alphagan-slurm: interrupted", file=sys.stderr)
        return 130
    return 0


def write(options: argparse.Namespace, words: Sequence[str]) -> Path:
    """Write the scripts and return their folder. `words`: options of bids-alphagan for both levels.

    Raises UserError for options that the app or Slurm would refuse; then nothing is written.
    """
    run = _Run(options, words)
    config = run.config
    run.check_folders()
    if run.image:
        run.check_image(run.image)
    stage_names = options.stages or ["participant", *DEFAULT_STEPS]
    jobs = stages(stage_names, {key: getattr(options, key) for key in FORMS}, options.warn)
    run.check_options(jobs)
    animals = raw.animals(config.bids_dir, config.selection)
    tasks, throttle = tasks_of(options.array, -(-len(animals) // options.animals_per_task))
    files = scripts(
        stages=jobs,
        bids_dir=str(config.bids_dir),
        output_dir=str(config.output_dir),
        image=str(run.image or ""),
        app=[sys.executable, "-m", "bids_alphagan"],
        options=list(run.words_for_jobs()),
        work_dir=str(config.work_dir or ""),
        templateflow_home=str(run.templates or ""),
        tasks=tasks,
        throttle=throttle,
        per_task=options.animals_per_task,
        strict=options.strict,
        warn=options.warn,
        setup=options.setup,
    )
    files["participants.txt"] = "".join(f"{animal}\n" for animal in animals)
    for name, text in files.items():
        path = run.folder / name
        if path.exists() and not options.overwrite and path.read_text(encoding="utf-8") != text:
            raise UserError(f"{path} exists and differs. Give --overwrite, or another folder with --scripts.")
    for name, text in files.items():
        write_text(run.folder / name, text)
    (run.folder / "submit.sh").chmod(0o755)
    return run.folder


class _Run:
    """The run that the jobs are for: its options, as words and as a Config, and its folders."""

    def __init__(self, options: argparse.Namespace, words: Sequence[str]) -> None:
        """Raises UserError for options that a script cannot hold."""
        self.words = list(words)
        own = [word for word in words if word.partition("=")[0] in ("--steps", "--version", "--help", "-h")]
        if own:
            raise UserError(f"{own[0]}: cannot be used here; choose the steps with --stages.")
        home = os.environ.get(TEMPLATES)
        given = (options.bids_dir, options.output_dir, options.scripts, options.image, home)
        if any(not text.isprintable() for text in (*words, *map(str, given))):
            raise UserError("paths and options must not contain line breaks or other control characters.")
        call = [str(options.bids_dir), str(options.output_dir)]
        cli.parse([*call, "group", *words])
        self.config = cli.parse([*call, "participant", *words])
        self.folder = (options.scripts or self.config.output_dir / "code" / "slurm").absolute()
        self.image: Path | None = options.image and options.image.absolute()
        self.templates = Path(home).absolute() if home else None

    def paths(self) -> dict[str, str]:
        """The absolute paths of the files and folders among the options, by flag."""
        values = {
            _flag(f.name): getattr(self.config, f.name) for f in fields(self.config) if f.name not in PLACES
        }
        values["--template"] = Path(self.config.template) if Path(self.config.template).is_dir() else None
        return {flag: str(value) for flag, value in values.items() if isinstance(value, Path)}

    def words_for_jobs(self) -> Iterator[str]:
        """The words, and the paths and LIMITS of a --config file as flags. All paths are absolute.

        Jobs run in a folder of their own, and Slurm's limits, passed as flags, would win over the file.
        """
        config = self.config
        values = self.paths() | ({"--spm-cmd": config.spm_cmd} if config.spm_cmd else {})
        given, before = set(), ""
        for word in self.words:
            flag = _flag(word) if word.startswith("-") else ""
            if before in values:
                yield values[before]
            elif flag in values and "=" in word:
                yield f"{flag}={values[flag]}"
            else:
                yield word
            given.add(flag)
            before = "" if "=" in word else flag
        for name in read_toml(config.config) if config.config else {}:
            if name in LIMITS:
                values[_flag(name)] = str(getattr(config, name))
        yield from (f"{flag}={value}" for flag, value in values.items() if flag not in given)

    def check_folders(self) -> None:
        """Raises UserError for a wrong input, or if outputs, scripts or logs cannot be written to their folders."""
        config = self.config
        raw.check_dataset(config.bids_dir)
        check_output(config.bids_dir, config.output_dir, config.work)
        check_outside(config.bids_dir, self.folder)
        for path in (self.folder, self.folder.resolve()):
            if "%" in str(path) or "\\" in str(path):
                raise UserError(
                    f"{path}: Slurm reads % and \\ in the path of its logs as patterns. Give another "
                    "OUTPUT_DIR, or another folder for scripts and logs with --scripts."
                )

    def check_image(self, image: Path) -> None:
        """Raises UserError for a file that is not an image, and for paths that apptainer cannot bind."""
        if not image.exists():
            raise UserError(f"--image {image}: does not exist.")
        if image.is_file():
            with image.open("rb") as stream:
                is_image = stream.read(64)[32:].startswith(b"SIF_MAGIC")  # after a shebang line
        else:
            is_image = (image / ".singularity.d").is_dir()
        if not is_image:
            raise UserError(f"--image {image}: is not an apptainer image (a SIF file or a sandbox).")
        if self.templates and not self.templates.is_dir():
            raise UserError(
                f"{TEMPLATES}={self.templates}: no such folder, but jobs with an image need it. "
                "Create it or unset the variable."
            )
        bound = (self.config.bids_dir, self.config.output_dir, self.templates, *self.paths().values())
        for path in map(str, filter(None, bound)):
            if ":" in path or "," in path:
                raise UserError(f"{path}: apptainer cannot bind a path with a colon or a comma.")

    def check_options(self, jobs: Sequence[Stage]) -> None:
        """Raises UserError for options that the app would refuse in a job, after hours in the queue."""
        config = self.config
        raw.read_filters(config.bids_filter_file)
        if config.gate_limits:
            read_limits(config.gate_limits)
        if config.segmenter != NONE:
            check_spec(config.template)
        if config.use_plugin:
            from bids_alphagan.participant.workflow import read_plugin

            read_plugin(config.use_plugin)
        group = [job for job in jobs if job.name != "participant"]
        without = [job.name for job in group if not int(job.gpus) and "gpu" not in str(job.sbatch)]
        if config.device == "cuda" and without:
            raise UserError(
                f"--device cuda: no GPU is requested for {', '.join(without)}. Request one with "
                "--gpus, or leave out --device cuda: a job uses a GPU if it has one."
            )
        words = list(self.words_for_jobs())
        for gpus in (int(job.gpus) for job in group if job.name == "train"):
            devices = config.devices if "--devices" in map(_flag, words) else max(1, gpus)
            visible = 0 if config.device == "cpu" else gpus
            check_shares(devices, config.num_nodes, config.batch_size, None, visible)
            for model in config.model:
                check_batch(model, config.batch_size)


def _flag(word: str) -> str:
    """The flag for a field's name or a word of the command line."""
    flag = word.partition("=")[0].replace("_", "-")
    flag = "--work-dir" if flag == "-w" else flag if flag.startswith("-") else f"--{flag}"
    return OTHER_NAMES.get(flag, flag)


def _submit(folder: Path) -> None:
    try:
        done = subprocess.run(
            ["bash", str(folder / "submit.sh")], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise UserError(f"{folder / 'submit.sh'} cannot be run ({error}).") from error
    print(done.stdout, end="")
    if done.returncode:
        raise UserError(f"the jobs could not be submitted: {done.stderr.strip() or done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
