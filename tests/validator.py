"""The BIDS validator, asked about a folder."""

import json
import subprocess
import sys
from pathlib import Path


def issues(folder: Path) -> list[str]:
    """The errors that the BIDS validator finds."""
    program = Path(sys.executable).with_name("bids-validator-deno")
    done = subprocess.run([program, "--json", str(folder)], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["issues"]["issues"]
    return [f"{i['code']} {i.get('location')}" for i in found if i["severity"] == "error"]
