"""What an option is: a dataclass field that is a flag, a TOML key and a line of the run record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from bids_alphagan.common.errors import UserError


def option(
    help: str,
    default: Any = None,
    *flags: str,
    choices: Sequence[str] | None = None,
    many: bool | int | str = False,
    type: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    least: float | None = None,
    most: float | None = None,
    step: str | None = None,
) -> Any:
    """Declare a field. `least` and `most` bound numbers (inclusive); `step` names what it changes.

    many: True for one value or more, a number for as many, "*" for any number and none.
    """
    # argparse expands % in help texts
    metadata: dict[str, Any] = {"help": help.replace("%", "%%"), "least": least, "most": most, "step": step}
    optional = {"choices": choices, "type": type, "metavar": metavar, "args": list(flags) or None}
    metadata |= {key: value for key, value in optional.items() if value is not None}
    if many:
        metadata |= {"nargs": "+" if many is True else many, "type": type or str}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def plain(value: Any) -> Any:
    """A value as JSON and TOML know it."""
    return str(value) if isinstance(value, Path) else value


def check_value(name: str, metadata: Mapping[str, Any], value: Any) -> None:
    """Raise UserError where `value` is not among the choices or out of bounds of the option `name`."""
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
