"""Options in TOML files: reading and checking, presets, and writing for the run record."""

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
from bids_alphagan.config.option import names_of


def read_toml(path: Path) -> dict[str, Any]:
    """Read options from a TOML file. Keys are field names, with dashes or underscores.

    Raises
    ------
    UserError: the file is unreadable or not TOML; a key is unknown (the nearest known one is named); a value has
        the wrong type.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {path}: cannot be read as TOML ({error}).") from error
    options = {name: f for f in fields(Config) for name in names_of(f)}
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.0)[0]
            raise UserError(f"{path}: unknown option '{key}'. Did you mean '{near}'?")
        if options[name].name in values:
            raise UserError(
                f"{path}: '{key}' gives an option a second time, under another name. Remove one of them."
            )
        values[options[name].name] = _typed(path, key, options[name], value)
    return values


def _typed(path: Path, key: str, f: Any, value: Any) -> Any:
    """Convert a TOML value to the field's type, as the command line would convert its text."""
    many = "nargs" in f.metadata
    item_type = f.metadata.get("type", f.type)
    items = value if many and isinstance(value, list) else [value]
    converted = []
    for item in items:
        good = isinstance(item, str) if item_type not in (int, float, bool) else isinstance(item, item_type)
        good |= item_type is float and isinstance(item, int)
        if not good or (item_type is int and isinstance(item, bool)):
            kind = item_type.__name__ if item_type in (int, float, bool) else "text"
            raise UserError(f"{path}: '{key}' must be {kind}, not {item!r}.")
        converted.append(item_type(item))
    return converted if many else converted[0]


def preset_values(name: str) -> dict[str, Any]:
    """The values of a preset (config/presets/NAME.toml)."""
    with resources.as_file(resources.files("bids_alphagan.config") / "presets" / f"{name}.toml") as path:
        return read_toml(path)


def to_toml(values: Mapping[str, Any]) -> str:
    """Write a flat mapping of strings, numbers, booleans and lists of them as TOML."""
    return tomli_w.dumps(values)
