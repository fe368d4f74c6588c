"""Real and synthetic scans are measured by masks of one kind: else quality control compares methods, not scans."""

import json
from collections.abc import Mapping
from typing import Any

from bids_alphagan.common.errors import UserError
from bids_alphagan.segmenters.base import Segmenter

DECISIVE = ("Name", "Template", "Parameters", "RegistrationParameters")  # of what a sidecar says of its masks


def check_alike(made: Mapping[str, Mapping[str, Any]], segmenter: Segmenter) -> None:
    """Raise UserError where masks of real scans were made otherwise than `segmenter` would make them.

    made: by scan, `Segmenter.describe` of then, as its sidecar has it; empty where it says nothing.
    """
    about = segmenter.describe()
    now = _decisive(about)
    others = [name for name, facts in made.items() if facts and _decisive(facts) != now]
    if not others:
        return
    then = made[others[0]]
    was = f"{then.get('Name')} with the template {then.get('Template')}"
    same = all(then.get(key) == about.get(key) for key in ("Name", "Template"))
    to_be = "other settings (--quick-masks, --preset, or another version)" if same else about["Name"]
    to_be += "" if same else f" with the template {about.get('Template')}"
    note = f" {about['Note']}" if about.get("Note") else ""
    raise UserError(
        f"{others[0]} (and {len(others) - 1} more of {len(made)} real scans): their masks were made by "
        f"{was}, and those of synthetic scans would be by {to_be}; quality control could not compare them.{note} "
        "Give both levels the same --segmenter, --template and --quick-masks, on machines that both have SPM "
        "or both have none; or run participant again."
    )


def _decisive(facts: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: facts[key] for key in DECISIVE if key in facts}
    return dict(json.loads(json.dumps(kept)))  # as a sidecar has them
