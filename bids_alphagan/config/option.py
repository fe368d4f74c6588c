"""An option is a dataclass field that is a flag, a TOML key and a line of the run record."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import Field, field
from pathlib import Path
from typing import Any

from bids_alphagan.common.errors import UserError


class Names(Collection[str]):
    """Choices: the current keys of a dict, with further names before and after them."""

    def __init__(self, before: Iterable[str], of: Mapping[str, Any], after: Iterable[str] = ()) -> None:
        self._before, self._of, self._after = tuple(before), of, tuple(after)

    def __iter__(self) -> Iterator[str]:
        return iter((*self._before, *self._of, *self._after))

    def __contains__(self, name: object) -> bool:
        return name in self._before or name in self._of or name in self._after

    def __len__(self) -> int:
        return len(self._before) + len(self._of) + len(self._after)


def option(
    help: str,
    default: Any = None,
    *flags: str,
    choices: Collection[str] | None = None,
    many: bool | int | str = False,
    type: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    least: float | None = None,
    most: float | None = None,
    step: str | None = None,
) -> Any:
    """Declare a field. `least` and `most` bound numbers (inclusive); `step` names the step whose result it changes.

    many: True for one or more values, a number for exactly that many, "*" for any number including none. With several
    values, the help text shows the choices once.
    """
    # argparse expands % in help texts
    metadata: dict[str, Any] = {"help": help.replace("%", "%%"), "least": least, "most": most, "step": step}
    optional = {"choices": choices, "type": type, "metavar": metavar, "args": list(flags) or None}
    metadata |= {key: value for key, value in optional.items() if value is not None}
    if many and choices and not metavar:
        metadata["metavar"] = "{" + ",".join(choices) + "}"
    if many:
        metadata |= {"nargs": "+" if many is True else many, "type": type or str}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def names_of(f: "Field[Any]") -> list[str]:
    """An option's name, and its other names (long flags with underscores)."""
    flags = [flag for flag in f.metadata.get("args", []) if flag.startswith("--")]
    return list(dict.fromkeys([f.name, *(flag.lstrip("-").replace("-", "_") for flag in flags)]))


def plain(value: Any) -> Any:
    """A value in a form that JSON and TOML can hold."""
    return str(value) if isinstance(value, Path) else value


def check_value(name: str, metadata: Mapping[str, Any], value: Any) -> None:
    """Raise UserError if `value` is not among the choices, or out of bounds, of the option `name`."""
    flag = next(
        (flag for flag in metadata.get("args", []) if flag.startswith("--")), "--" + name.replace("_", "-")
    )
    least, most, choices = metadata.get("least"), metadata.get("most"), metadata.get("choices")
    if value is None:
        return
    if choices and value not in choices:
        raise UserError(f"{flag} {value}: choose from {', '.join(choices)}.")
    if least is not None and not value >= least:  # so that NaN fails too
        raise UserError(f"{flag} {value}: must be at least {least:g}.")
    if most is not None and not value <= most:
        raise UserError(f"{flag} {value}: must be at most {most:g}.")
