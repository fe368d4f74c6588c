"""``bids-alphagan-slurm``: write, and submit, the Slurm jobs of a whole run."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from bids_alphagan import cli
from bids_alphagan.choices import DEFAULT_STEPS
from bids_alphagan.config import Config
from bids_alphagan.errors import UserError
from bids_alphagan.files import write_text
from bids_alphagan.layout import raw
from bids_alphagan.runs import check_output
from bids_alphagan.slurm import DEFAULTS, FORMS, STAGES, scripts, stages

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
    animals = raw.animals(config)
    folder = (options.scripts or config.output_dir / "code" / "slurm").absolute()
    image = options.image and options.image.absolute()
    if image and not image.exists():
        raise UserError(f"--image {image}: is not there.")
    words = list(_absolute(words))
    wanted = options.stages or ["participant", *DEFAULT_STEPS]
    made = scripts(
        stages=stages(wanted, {key: getattr(options, key) for key in FORMS}, options.warn),
        bids_dir=str(config.bids_dir),
        output_dir=str(config.output_dir),
        image=image and str(image),
        app=[sys.executable, "-m", "bids_alphagan"],
        options=words,
        binds=_binds(config, words) if image else [],
        work_dir=str(config.work_dir or ""),
        templateflow_home=os.environ.get("TEMPLATEFLOW_HOME", ""),
        array=options.array,
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
    """The options as the app understands them; UserError for what it, or a script, would not take."""
    own = [word for word in words if word.partition("=")[0] in ("--steps", "--version", "--help", "-h")]
    if own:
        raise UserError(f"{own[0]}: not here; --stages says what is to be done.")
    if any(not text.isprintable() for text in (*words, *map(str, (options.bids_dir, options.output_dir)))):
        raise UserError("paths and options with line breaks and the like cannot stand in a script.")
    call = [str(options.bids_dir), str(options.output_dir)]
    cli.parse([*call, "group", *words])
    config = cli.parse([*call, "participant", *words])
    raw.check_dataset(config.bids_dir)
    check_output(config)
    return config


def _path_flags() -> set[str]:
    named = {f"--{f.name.replace('_', '-')}" for f in fields(Config) if f.metadata.get("type") is Path}
    return named | {"--template", "-w"}


def _absolute(words: Sequence[str]) -> Iterator[str]:
    """The words with absolute paths: jobs run in a folder of their own."""
    before, flags = "", _path_flags()
    for word in words:
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        if equals and flag in flags:
            yield f"{flag}={_path(flag, value)}"
        else:
            yield _path(before, word) if before in flags else word
        before = word.replace("_", "-")


def _path(flag: str, value: str) -> str:
    is_name = flag == "--template" and not Path(value).is_dir()
    return value if is_name else str(Path(value).absolute())


def _binds(config: Config, words: Sequence[str]) -> list[str]:
    """What an image has to see besides input, output and the paths among `words`: those in a --config file.

    Raises UserError for what apptainer would split.
    """
    given = [getattr(config, f.name) for f in fields(config) if f.name not in ("bids_dir", "output_dir")]
    paths = [str(path) for path in given if isinstance(path, Path)]
    paths += [config.template] if Path(config.template).is_dir() else []
    paths += [home] if (home := os.environ.get("TEMPLATEFLOW_HOME")) else []
    for path in (str(config.bids_dir), str(config.output_dir), *paths):
        if ":" in path or "," in path:
            raise UserError(f"{path}: apptainer cannot bind a path with a colon or a comma.")
    named = {word.partition("=")[2] or word for word in words}
    return [path for path in paths if path not in named]


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
