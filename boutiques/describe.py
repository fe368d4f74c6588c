"""Print the Boutiques descriptor, from the app's own options: `make descriptor` writes it."""

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from bids_alphagan import __version__
from bids_alphagan.cli.main import parser
from bids_alphagan.config import Config

METADATA = {field.name: field.metadata for field in fields(Config)}
KINDS = {int: "Number", float: "Number", Path: "File"}
TEMPLATE = "a TemplateFlow name, such as Fischer344 or RESILIENT:cohort-1, in place of a folder"
CODES = {
    1: "some scans failed, listed at the end of the log; the others are ready",
    2: "nothing could be done with this call; the log's last line says why",
    129: "interrupted by SIGHUP: the same call resumes from the last checkpoint",
    130: "interrupted by SIGINT: the same call resumes from the last checkpoint",
    138: "interrupted by SIGUSR1: the same call resumes from the last checkpoint",
    143: "interrupted by SIGTERM: the same call resumes from the last checkpoint",
}


def descriptor() -> dict[str, Any]:
    """The app in Boutiques' terms. No defaults are given: they would override a preset or --config."""
    arguments = parser()
    actions = [action for action in arguments._actions if action.dest in METADATA]
    inputs = sorted(
        map(_input, actions), key=lambda option: "command-line-flag" in option
    )  # positional ones first
    inputs.append(
        _input(arguments._option_string_actions["--template"]) | _named("template_name", TEMPLATE, "String")
    )
    return {
        "name": arguments.prog,
        "description": arguments.description,
        "author": "The bids-alphagan developers",
        "tool-version": __version__,
        "schema-version": "0.5",
        "tags": {"domain": ["neuroinformatics", "mri"], "toolType": ["BIDS App"]},
        "container-image": {"type": "docker", "image": f"bids-alphagan:{__version__}"},
        "command-line": " ".join([arguments.prog, *(option["value-key"] for option in inputs)]),
        "inputs": inputs,
        "groups": [
            {
                "id": "one_template",
                "name": "the template, as a folder or by name",
                "members": ["template", "template_name"],
                "mutually-exclusive": True,
            }
        ],
        "output-files": [
            {
                "id": "derivatives",
                "name": "derivatives",
                "description": "a BIDS derivative data set with reports",
                "path-template": "[OUTPUT_DIR]",
            }
        ],
        "error-codes": [{"code": code, "description": text} for code, text in CODES.items()],
    }


def _input(action: argparse.Action) -> dict[str, Any]:
    metadata = METADATA[action.dest]
    kind = "String" if action.dest == "output_dir" else KINDS.get(action.type, "String")  # type: ignore[arg-type]
    kind = "File" if action.dest == "template" else "Flag" if action.nargs == 0 else kind
    option = _named(action.dest, (action.help or "").replace("%%", "%"), kind)
    option["optional"] = not action.required
    if action.option_strings:
        flag = next(flag for flag in action.option_strings if flag.startswith("--"))
        option |= {"command-line-flag": flag, "name": flag.strip("-").replace("-", " ")}
    if action.choices:
        option["value-choices"] = list(action.choices)
    if kind == "Number":
        bounds = {"minimum": metadata["least"], "maximum": metadata["most"]}
        option |= {"integer": action.type is int}
        option |= {bound: value for bound, value in bounds.items() if value is not None}
    if action.nargs:
        option["list"] = True
        if isinstance(action.nargs, int):
            option |= {"min-list-entries": action.nargs, "max-list-entries": action.nargs}
        elif action.nargs == "+":
            option["min-list-entries"] = 1
    return option


def _named(name: str, description: str, kind: str) -> dict[str, Any]:
    return {
        "id": name,
        "name": name.replace("_", " "),
        "description": description,
        "type": kind,
        "value-key": f"[{name.upper()}]",
    }


if __name__ == "__main__":
    print(json.dumps(descriptor(), indent=2, ensure_ascii=False))
