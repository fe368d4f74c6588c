"""The Slurm jobs of a whole run: their resources, and their scripts from the templates in this folder."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bids_alphagan.common.errors import UserError

DEFAULTS: dict[str, dict[str, str]] = {
    "participant": {"time": "2:00:00", "mem": "4G", "cpus": "1"},
    "train": {"time": "24:00:00", "mem": "16G", "cpus": "4", "gpus": "1"},
    "synthesise": {"time": "8:00:00", "mem": "16G", "cpus": "8"},
    "evaluate": {"time": "8:00:00", "mem": "16G", "cpus": "4"},
    "downstream": {"time": "24:00:00", "mem": "16G", "cpus": "4", "gpus": "1"},
    "report": {"time": "1:00:00", "mem": "8G", "cpus": "4"},
}
STAGES = tuple(DEFAULTS)
REQUEUED = ("train", "synthesise", "downstream")  # they resume where they were stopped
MOST_REQUEUES = 100
# The values that Slurm accepts for an option: a pattern, and its description for a message.
FORMS = {
    "time": (r"(\d+-)?\d+(:\d\d?){0,2}", "a time such as 30 (minutes), 8:00:00 or 2-00:00:00"),
    "mem": (r"\d+[KMGT]?", "a size such as 16G"),
    "cpus": (r"[1-9]\d*", "a number of at least 1"),
    "gpus": (r"\d+", "a number of at least 0"),
    "partition": (r"[\w.,-]+", "a name"),
    "account": (r"[\w.,-]+", "a name"),
    "sbatch": (r"[a-z][\w-]*(=\S+)?", "an option of sbatch without its dashes, such as qos=long"),
}
_TASKS = r"(\d+)(?:-(\d+)(?::[1-9]\d*)?)?"  # one task, or a range with an optional step


@dataclass(frozen=True)
class Stage:
    """One job: its step, and its resources in the syntax of the script's #SBATCH lines."""

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


def stages(names: Sequence[str], asked_for: Mapping[str, Sequence[str]], warn: int) -> list[Stage]:
    """The jobs of these names, in the order of the run.

    asked_for: for each key of FORMS, values for all stages or STAGE=VALUE for one. warn: seconds before the time
    limit. Raises UserError for values that Slurm would refuse.
    """
    jobs = []
    for name in (stage for stage in STAGES if stage in names):
        asked = {key: _asked(name, key, asked_for[key]) for key in FORMS}
        facts: dict[str, Any] = DEFAULTS[name] | {key: values[-1] for key, values in asked.items() if values}
        stage = Stage(name, **facts | {"sbatch": tuple(asked["sbatch"])})
        if stage.requeued and _seconds(stage.time) <= warn:
            raise UserError(
                f"--time {stage.time} of {name}: must be longer than --warn {warn} s. "
                "Give more time or a smaller --warn."
            )
        jobs.append(stage)
    return jobs


def _asked(name: str, key: str, words: Sequence[str]) -> list[str]:
    """The values of --`key` for a stage: first the values for all stages, then its own."""
    form, description = FORMS[key]
    common, own = [], []
    for word in words:
        stage, _, value = word.partition("=")
        value = value if stage in STAGES else word
        if not re.fullmatch(form, value):
            raise UserError(
                f"--{key} {word}: must be {description}. Put STAGE= before it for a single stage."
            )
        if stage == name:
            own.append(value)
        elif stage not in STAGES and (
            key != "gpus" or key in DEFAULTS[name]
        ):  # GPUs for all stages means the stages that train
            common.append(value)
    return common + own


def _seconds(time: str) -> int:
    """Seconds of a time in Slurm's formats: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = time.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    units = (3600, 60, 1) if dash or len(numbers) == 3 else (60, 1)
    return int(days or 0) * 86400 + sum(n * unit for n, unit in zip(numbers, units, strict=False))


def tasks_of(array: str, count: int) -> tuple[str, str]:
    """Split --array into its tasks and its limit of tasks at once; "" for a part that is not given.

    Raises UserError for a format that sbatch does not know, and for a task outside 1 to `count`.
    """
    tasks, percent, limit = array.partition("%")
    parts = [re.fullmatch(_TASKS, part, re.ASCII) for part in tasks.split(",")] if tasks else []
    if not all(parts) or (percent and not re.fullmatch("[1-9][0-9]*", limit)):
        raise UserError(f"--array {array}: give tasks, the number at once, or both: 1-24, 7,9, %8, 1-24%8.")
    for part in filter(None, parts):
        first, last = int(part[1]), int(part[2] or part[1])
        if not 1 <= first <= last <= count:
            raise UserError(f"--array {array}: {part[0]} is not among the tasks, which are 1 to {count}.")
    return tasks, percent + limit


def scripts(**facts: Any) -> dict[str, str]:
    """The scripts by file name. facts: the variables of the templates."""
    facts["most"] = MOST_REQUEUES
    loader = PackageLoader("bids_alphagan", "slurm")
    jinja = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    jinja.filters["quote"] = shlex.quote
    texts = {name: jinja.get_template(f"{name}.j2").render(facts) for name in ("settings.sh", "submit.sh")}
    for stage in facts["stages"]:
        kind = "participant" if stage.name == "participant" else "group"
        texts[f"{stage.name}.sbatch"] = jinja.get_template(f"{kind}.sbatch.j2").render(facts, stage=stage)
    return texts
