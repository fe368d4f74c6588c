"""The Boutiques descriptor says what the app's own options say."""

import json
import runpy

from paths import ROOT

FOLDER = ROOT / "boutiques"


def test_the_descriptor_is_that_of_the_options() -> None:
    made = runpy.run_path(str(FOLDER / "describe.py"))["descriptor"]()
    assert json.loads((FOLDER / "bids-alphagan.json").read_text()) == made, "make descriptor"
