"""Where things are, seen from any test."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"  # real scans; tests skip where they are not there
