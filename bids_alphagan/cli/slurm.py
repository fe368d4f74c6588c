"""``bids-alphagan-slurm``: write, and submit, the Slurm jobs of a whole run."""

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
from bids_alphagan.config import Config
from bids_alphagan.config.choices import DEFAULT_STEPS
from bids_alphagan.config.files import read_toml
from bids_alphagan.config.run import check_output, check_outside
from bids_alphagan.config.training import check_shares
from bids_alphagan.models import MODELS
from bids_alphagan.qc import limits as gate
from bids_alphagan.slurm import DEFAULTS, FORMS, STAGES, Stage, scripts, stages, tasks_of
from bids_alphagan.templates import check_spec

TEMPLATES = "TEMPLATEFLOW_HOME"
PLACES = ("bids_dir", "output_dir")
LIMITS = ("nprocs", "mem_mb", "devices")  # what settings.sh and train.sbatch fill in from Slurm

EPILOG = """\
VALUE is for every stage, STAGE=VALUE for one: --time 4:00:00 train=24:00:00 --partition cpu train=gpu

examples:
  bids-alphagan-slurm BIDS_DIR OUTPUT_DIR --image bids-alphagan.sif --array %20 -- --template SIGMA_DIR
  bids-alphagan-slurm BIDS_DIR OUTPUT_DIR --gpus train=2 --sbatch qos=long --submit -- --template SIGMA_DIR

exit codes: 0 all done; 2 nothing could be done, and a line says why
"""


def parser() -> argparse.ArgumentParser:
    """The command line of ``bids-alphagan-slurm``, without what follows ``--``."""
    made = argparse.ArgumentParser(
        prog="bids-alphagan-slurm",
        usage="%(prog)s BIDS_DIR OUTPUT_DIR [options] [-- options of bids-alphagan]",
        description="Write the Slurm jobs of a whole run: animals as an array, then the group level's steps.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("bids_dir", type=Path, help="the raw BIDS data set")
    add("output_dir", type=Path, help="where the derivatives go, on a disk that all nodes see")
    add(
        "--image",
        type=Path,
        metavar="X.sif",
        help="run it by apptainer (default: the app that is called here)",
    )
    add("--submit", action="store_true", help="submit the jobs, too")
    add("--scripts", type=Path, metavar="DIR", help="where they are written (default: OUTPUT_DIR/code/slurm)")
    add("--overwrite", action="store_true", help="write over scripts that are there and differ")
    add(
        "--stages",
        nargs="+",
        choices=STAGES,
        metavar="STAGE",
        help=f"of {', '.join(STAGES)} (default: all but downstream)",
    )
    add("--array", default="", metavar="[TASKS][%N]", help="which tasks, and how many at once: 7,9 or %%20")
    add("--animals-per-task", type=_positive, default=1, metavar="N", help="for more than 1000 animals")
    add(
        "--strict",
        action="store_true",
        help="no group level where an animal failed (default: without that animal)",
    )
    for name, text in (
        ("time", "time limit"),
        ("mem", "memory"),
        ("cpus", "processor cores"),
        ("gpus", "GPUs"),
        ("partition", "partition"),
        ("account", "account"),
        ("sbatch", "more options of sbatch, without their dashes: qos=long train=constraint=a100"),
    ):
        own = ", ".join(f"{stage} {DEFAULTS[stage][name]}" for stage in STAGES if name in DEFAULTS[stage])
        default = f" (default: {own})" if own else ""
        add(f"--{name}", nargs="+", default=[], metavar="[STAGE=]VALUE", help=text + default)
    add(
        "--warn",
        type=_positive,
        default=300,
        metavar="S",
        help="seconds before the time limit to save and go on (default: 300)",
    )
    add(
        "--setup",
        nargs="+",
        default=[],
        metavar="LINE",
        help="shell lines to begin with: 'module load apptainer'",
    )
    return made


def _positive(text: str) -> int:
    number = int(text)  # argparse tells of a ValueError
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
    """Write the scripts and return their folder; `words`: options of bids-alphagan for both levels.

    Raises UserError for what the app or Slurm would not take; then nothing was written.
    """
    config = _config(options, words)
    folder = (options.scripts or config.output_dir / "code" / "slurm").absolute()
    image = options.image and options.image.absolute()
    home = Path(os.environ[TEMPLATES]).absolute() if os.environ.get(TEMPLATES) else None
    _check_places(config, folder)
    if image:
        _check_image(image, home, config)
    words = list(_for_jobs(config, words))
    wanted = options.stages or ["participant", *DEFAULT_STEPS]
    jobs = stages(wanted, {key: getattr(options, key) for key in FORMS}, options.warn)
    _check_options(config, jobs, words)
    animals = raw.animals(config)
    tasks, throttle = tasks_of(options.array, -(-len(animals) // options.animals_per_task))
    made = scripts(
        stages=jobs,
        bids_dir=str(config.bids_dir),
        output_dir=str(config.output_dir),
        image=str(image or ""),
        app=[sys.executable, "-m", "bids_alphagan"],
        options=words,
        work_dir=str(config.work_dir or ""),
        templateflow_home=str(home or ""),
        tasks=tasks,
        throttle=throttle,
        per_task=options.animals_per_task,
        strict=options.strict,
        warn=options.warn,
        setup=options.setup,
    )
    made["participants.txt"] = "".join(f"{animal}\n" for animal in animals)
    for name, text in made.items():
        path = folder / name
        if path.exists() and not options.overwrite and path.read_text(encoding="utf-8") != text:
            raise UserError(f"{path} is there and differs: --overwrite, or another folder with --scripts.")
    for name, text in made.items():
        write_text(folder / name, text)
    (folder / "submit.sh").chmod(0o755)
    return folder


def _config(options: argparse.Namespace, words: Sequence[str]) -> Config:
    """The options as the app understands them; UserError for what cannot stand in a script."""
    own = [word for word in words if word.partition("=")[0] in ("--steps", "--version", "--help", "-h")]
    if own:
        raise UserError(f"{own[0]}: not here; --stages says what is to be done.")
    given = (options.bids_dir, options.output_dir, options.scripts, options.image, os.environ.get(TEMPLATES))
    if any(not text.isprintable() for text in (*words, *map(str, given))):
        raise UserError("paths and options with line breaks and the like cannot stand in a script.")
    call = [str(options.bids_dir), str(options.output_dir)]
    cli.parse([*call, "group", *words])
    return cli.parse([*call, "participant", *words])


def _paths(config: Config) -> dict[str, str]:
    """The files and folders that the options name, absolute, by flag."""
    values = {_flag(f.name): getattr(config, f.name) for f in fields(config) if f.name not in PLACES}
    values["--template"] = Path(config.template) if Path(config.template).is_dir() else None
    return {flag: str(value) for flag, value in values.items() if isinstance(value, Path)}


def _flag(word: str) -> str:
    """The flag that a field's name, or a word of the command line, stands for."""
    flag = word.partition("=")[0].replace("_", "-")
    return "--work-dir" if flag == "-w" else flag if flag.startswith("-") else f"--{flag}"


def _for_jobs(config: Config, words: Sequence[str]) -> Iterator[str]:
    """The words, and as flags what a --config file says of paths and LIMITS. All paths are absolute.

    Jobs run in a folder of their own, and what they are told of Slurm's limits would win over the file.
    """
    told = _paths(config) | ({"--spm-cmd": config.spm_cmd} if config.spm_cmd else {})
    given, before = set(), ""
    for word in words:
        flag = _flag(word) if word.startswith("-") else ""
        if before in told:
            yield told[before]
        elif flag in told and "=" in word:
            yield f"{flag}={told[flag]}"
        else:
            yield word
        given.add(flag)
        before = "" if "=" in word else flag
    for name in read_toml(config.config) if config.config else {}:
        if name in LIMITS:
            told[_flag(name)] = str(getattr(config, name))
    yield from (f"{flag}={value}" for flag, value in told.items() if flag not in given)


def _check_places(config: Config, folder: Path) -> None:
    """UserError for a wrong input, or where outputs, or scripts and logs in `folder`, cannot be."""
    raw.check_dataset(config.bids_dir)
    check_output(config)
    check_outside(config.bids_dir, folder)
    for path in (folder, folder.resolve()):
        if "%" in str(path) or "\\" in str(path):
            raise UserError(
                f"{path}: Slurm takes % and \\ in the place of its logs for patterns. Give another "
                "OUTPUT_DIR, or another folder for scripts and logs with --scripts."
            )


def _check_image(image: Path, home: Path | None, config: Config) -> None:
    """UserError for what is no image, and for what apptainer cannot bind."""
    if not image.exists():
        raise UserError(f"--image {image}: is not there.")
    if image.is_file():
        with image.open("rb") as stream:
            is_image = stream.read(64)[32:].startswith(b"SIF_MAGIC")  # after a line for the shell
    else:
        is_image = (image / ".singularity.d").is_dir()
    if not is_image:
        raise UserError(f"--image {image}: is not an image of apptainer, a SIF file or a sandbox.")
    if home and not home.is_dir():
        raise UserError(
            f"{TEMPLATES}={home}: no such folder, which jobs with an image need. Make or unset it."
        )
    for path in map(str, filter(None, (config.bids_dir, config.output_dir, home, *_paths(config).values()))):
        if ":" in path or "," in path:
            raise UserError(f"{path}: apptainer cannot bind a path with a colon or a comma.")


def _check_options(config: Config, jobs: Sequence[Stage], words: Sequence[str]) -> None:
    """UserError for options that the app would refuse in a job, after hours in the queue."""
    raw.read_filters(config)
    if config.gate_limits:
        gate.read_limits(config.gate_limits)
    if config.segmenter != "none":
        check_spec(config.template)
    if config.use_plugin:
        from bids_alphagan.participant.workflow import read_plugin

        read_plugin(config.use_plugin)
    group = [job for job in jobs if job.name != "participant"]
    without = [job.name for job in group if not int(job.gpus) and "gpu" not in str(job.sbatch)]
    if config.device == "cuda" and without:
        raise UserError(
            f"--device cuda: no GPU is asked for {', '.join(without)}. Leave it out: "
            "a job takes a GPU where it has one."
        )
    for gpus in (int(job.gpus) for job in group if job.name == "train"):
        devices = config.devices if "--devices" in map(_flag, words) else max(1, gpus)
        seen = 0 if config.device == "cpu" else gpus
        check_shares(devices, config.num_nodes, config.batch_size, None, seen)
        for model in config.model:
            MODELS[model].check_batch(config.batch_size)


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
