"""A section without a template of its own, and what a report imports."""

import subprocess
import sys

from pages import EVIL, read_section

from bids_alphagan.report.html import Section


def test_a_section_without_a_template_of_its_own_shows_notes_reason_and_tables() -> None:
    """As a new question has it until someone draws charts for it."""
    rows = [{"model": EVIL, "value": 0.123456, "low": None, "n": 3}]
    view = {"notes": ["Only four animals."], "reason": None, "tables": {"sharpness": rows, "empty": []}}
    page = read_section(Section("sharpness", EVIL, view))
    assert page.words == (f"{EVIL} Note Only four animals. sharpness model value low n {EVIL} 0.1235 n/a 3")
    assert EVIL not in page.text
    left_out = {"notes": [], "reason": "Too few.", "tables": {}}
    assert read_section(Section("sharpness", "Sharpness", left_out)).words == "Sharpness Left out Too few."


def test_reports_need_neither_torch_nor_the_pipeline() -> None:
    modules = ("html", "methods", "figures", "charts", "scroll", "references", "numbers")
    imports = ", ".join(f"bids_alphagan.report.{name}" for name in modules)
    code = f"import sys, {imports}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "nipype", "bids", "ants", "bids_alphagan.evaluation.pairs.table"} & set(loaded)
