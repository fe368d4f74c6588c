"""Options in TOML files: read and checked, the presets, and written for the run record."""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

import tomli_w

from bids_alphagan.common.errors import UserError
from bids_alphagan.config import Config


def read_toml(path: Path) -> dict[str, Any]:
    """Read options from a TOML file; keys are field names, dashes or underscores.

    Raises
    ------
    UserError: unreadable or not TOML; an unknown key (the nearest known one is named); a value of the
        wrong type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read as TOML ({error}).") from error
    known = {f.name: f for f in fields(Config)}
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UserError(f"{path}: unknown option '{key}'. Did you mean '{near}'?")
        values[name] = _typed(path, known[name], value)
    return values


def _typed(path: Path, f: Any, value: Any) -> Any:
    """Convert a TOML value to the field's type: what the command line's text would have become."""
    many = "nargs" in f.metadata
    wanted = f.metadata.get("type", f.type)
    items = value if many and isinstance(value, list) else [value]
    converted = []
    for item in items:
        good = isinstance(item, str) if wanted not in (int, float, bool) else isinstance(item, wanted)
        good |= wanted is float and isinstance(item, int)
        if not good or (wanted is int and isinstance(item, bool)):
            kind = wanted.__name__ if wanted in (int, float, bool) else "text"
            raise UserError(f"{path}: '{f.name}' must be {kind}, not {item!r}.")
        converted.append(wanted(item))
    return converted if many else converted[0]


def preset_values(name: str) -> dict[str, Any]:
    """The values of a preset (config/presets/NAME.toml)."""
    with resources.as_file(resources.files("bids_alphagan.config") / "presets" / f"{name}.toml") as path:
        return read_toml(path)


def to_toml(values: Mapping[str, Any]) -> str:
    """Write a flat mapping of text, numbers, booleans and lists of them as TOML."""
    return tomli_w.dumps(values)
