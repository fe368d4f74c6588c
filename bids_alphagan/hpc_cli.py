"""``bids-alphagan-slurm``: write, and submit, the Slurm jobs of a whole run."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bids_alphagan import cli
from bids_alphagan.choices import DEFAULT_STEPS, STEPS
from bids_alphagan.config import Config
from bids_alphagan.errors import UserError
from bids_alphagan.files import write_text
from bids_alphagan.layout import raw
from bids_alphagan.runs import check_output

STAGES = ("participant", *STEPS)
DEFAULTS: dict[str, dict[str, str]] = {
    "participant": {"time": "2:00:00", "mem": "4G", "cpus": "1"},
    "train": {"time": "24:00:00", "mem": "16G", "cpus": "4", "gpus": "1"},
    "synthesise": {"time": "8:00:00", "mem": "16G", "cpus": "8"},
    "evaluate": {"time": "8:00:00", "mem": "16G", "cpus": "4"},
    "downstream": {"time": "24:00:00", "mem": "16G", "cpus": "4", "gpus": "1"},
    "report": {"time": "1:00:00", "mem": "8G", "cpus": "4"},
}
REQUEUED = ("train", "synthesise", "downstream")  # they go on where they were stopped
MOST_REQUEUES = 100
# What Slurm takes for an option, and how a user is told.
FORMS = {
    "time": (r"(\d+-)?\d+(:\d\d?){0,2}", "a time such as 30 (minutes), 8:00:00 or 2-00:00:00"),
    "mem": (r"\d+[KMGT]?", "a size such as 16G"),
    "cpus": (r"[1-9]\d*", "a number from 1"),
    "gpus": (r"\d+", "a number from 0"),
    "partition": (r"[\w.,-]+", "a name"),
    "account": (r"[\w.,-]+", "a name"),
    "sbatch": (r"[a-z][\w-]*(=\S+)?", "an option of sbatch without its dashes, such as qos=long"),
}
_ARRAY = r"(?P<tasks>\d[\d,:-]*)?(?P<throttle>%[1-9]\d*)?"
EPILOG = """\
VALUE is for every stage, STAGE=VALUE for one: --time 4:00:00 train=24:00:00 --partition cpu train=gpu

examples:
  bids-alphagan-slurm BIDS_DIR OUTPUT_DIR --image bids-alphagan.sif --array %20 -- --template SIGMA_DIR
  bids-alphagan-slurm BIDS_DIR OUTPUT_DIR --gpus train=2 --sbatch qos=long --submit -- --template SIGMA_DIR

exit codes: 0 all done; 2 nothing could be done, and a line says why
"""


@dataclass(frozen=True)
class Stage:
    """One job: what it runs, and what it asks of Slurm in the words of its script's #SBATCH lines."""

    name: str
    time: str
    mem: str
    cpus: str
    gpus: str = "0"
    partition: str = ""
    account: str = ""
    sbatch: tuple[str, ...] = ()

    @property
    def requeued(self) -> bool:
        return self.name in REQUEUED


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
    add("--stages", nargs="+", choices=STAGES, metavar="STAGE", help=f"of {', '.join(STAGES)}")
    add("--array", default="", metavar="[TASKS][%N]", help="which tasks, and how many at once: 7,9 or %%20")
    add("--animals-per-task", type=_positive, default=1, metavar="N", help="for more than 1000 animals")
    add("--strict", action="store_true", help="no group level where an animal failed (default: without it)")
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
    add("--warn", type=_positive, default=300, metavar="S", help="before the time limit, to save and go on")
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
    made = scripts(
        stages=stages(options),
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


def scripts(array: str, **facts: Any) -> dict[str, str]:
    """The scripts by name; facts: what the templates in ``bids_alphagan/slurm`` ask for."""
    chosen = re.fullmatch(_ARRAY, array)
    if not chosen:
        raise UserError(f"--array {array}: give tasks, how many at once, or both: 1-24, 7,9, %8, 1-24%8.")
    facts |= {"tasks": chosen["tasks"], "throttle": chosen["throttle"] or "", "most": MOST_REQUEUES}
    loader = PackageLoader("bids_alphagan", "slurm")
    jinja = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    jinja.filters["quote"] = shlex.quote
    made = {name: jinja.get_template(f"{name}.j2").render(facts) for name in ("settings.sh", "submit.sh")}
    for stage in facts["stages"]:
        kind = "participant" if stage.name == "participant" else "group"
        made[f"{stage.name}.sbatch"] = jinja.get_template(f"{kind}.sbatch.j2").render(facts, stage=stage)
    return made


def stages(options: argparse.Namespace) -> list[Stage]:
    """The jobs that are asked for, in their order. Raises UserError for what Slurm would not take."""
    wanted = options.stages or ["participant", *DEFAULT_STEPS]
    made = []
    for name in (stage for stage in STAGES if stage in wanted):
        asked: dict[str, Any] = {**DEFAULTS[name]}
        for key, (form, told) in FORMS.items():
            mine = []
            for word in getattr(options, key):
                stage, equals, value = word.partition("=")
                for_one = equals and stage in STAGES
                value = value if for_one else word
                if not re.fullmatch(form, value):
                    raise UserError(f"--{key} {word}: must be {told}, for one stage with STAGE= before it.")
                if not for_one or stage == name:
                    mine.append(value)
            if mine:  # the last one wins
                asked[key] = tuple(mine) if key == "sbatch" else mine[-1]
        stage_made = Stage(name, **asked)
        if stage_made.requeued and _seconds(stage_made.time) <= options.warn:
            raise UserError(
                f"--time {stage_made.time} of {name}: must be longer than --warn {options.warn} s."
            )
        made.append(stage_made)
    return made


def _seconds(time: str) -> int:
    """Of a time in Slurm's forms: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = time.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    units = (3600, 60, 1) if dash or len(numbers) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))


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
