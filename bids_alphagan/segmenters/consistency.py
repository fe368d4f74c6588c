"""Masks of real and synthetic scans must be of one kind, or quality control would compare methods, not scans."""

import json
from collections.abc import Mapping
from typing import Any

from bids_alphagan.common.errors import UserError
from bids_alphagan.segmenters.base import Segmenter

# The keys of a sidecar's Segmentation that must agree.
DECISIVE = ("Name", "Template", "Parameters", "RegistrationParameters")


def check_alike(descriptions: Mapping[str, Mapping[str, Any]], segmenter: Segmenter) -> None:
    """Raise UserError if masks of real scans were made in another way than `segmenter` makes them.

    descriptions: by scan, the `Segmenter.describe` in its sidecar; empty if the sidecar has none.
    """
    about = segmenter.describe()
    current = _decisive(about)
    differing = [name for name, facts in descriptions.items() if facts and _decisive(facts) != current]
    if not differing:
        return
    earlier = descriptions[differing[0]]
    before = f"{earlier.get('Name')} with the template {earlier.get('Template')}"
    same = all(earlier.get(key) == about.get(key) for key in ("Name", "Template"))
    to_be = "other settings (--quick-masks, --preset, or another version)" if same else about["Name"]
    to_be += "" if same else f" with the template {about.get('Template')}"
    note = f" {about['Note']}" if about.get("Note") else ""
    raise UserError(
        f"{differing[0]} (and {len(differing) - 1} more of {len(descriptions)} real scans): their masks were "
        f"made by {before}, but those of synthetic scans would be made by {to_be}, so that quality control "
        f"could not compare them.{note} Give both levels the same --segmenter, --template and --quick-masks, "
        "on machines that both have SPM or both lack it; or run participant again."
    )


def _decisive(facts: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: facts[key] for key in DECISIVE if key in facts}
    return dict(json.loads(json.dumps(kept)))  # as in a sidecar
