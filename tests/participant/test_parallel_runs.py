"""Several participant runs at once on one OUTPUT_DIR, as in parallel shells or in the tasks of an array."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from validator import issues

from bids_alphagan.bids.names import ScanName, sidecar
from bids_alphagan.common.files import read_json, read_tsv

LABELS = ("01", "02", "03", "04")


def command(data: Path, out: Path, template: Path, *words: str) -> list[str]:
    app = [sys.executable, "-m", "bids_alphagan", str(data), str(out), "participant"]
    return [*app, "--preset", "demo", "--template", str(template), "--nprocs", "1", *words]


@pytest.mark.slow
def test_they_make_what_one_run_makes(heads: Path, template: Path, tmp_path: Path) -> None:
    """On a new folder, so that all of them write what is shared, and each its animal with masks."""
    out, alone = tmp_path / "new" / "out", tmp_path / "alone"
    runs = [
        subprocess.Popen(
            command(heads, out, template, "--participant-label", label), stderr=subprocess.PIPE, text=True
        )
        for label in LABELS
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0, 0], said
    subprocess.run(command(heads, alone, template), check=True, capture_output=True)

    def made(folder: Path) -> set[str]:
        paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return {path.as_posix() for path in paths if path.parts[0] not in (".work", "logs")}

    assert made(out) == made(alone)
    assert len(list((out / "logs").glob("*.toml"))) == len(LABELS)
    for name in ("dataset_description.json", ".bidsignore", "README", "dseg.tsv"):
        assert (out / name).read_text() == (alone / name).read_text()
    assert len(read_tsv(out / "dseg.tsv")) == 3
    for path in alone.glob("sub-*/**/*.nii.gz"):
        mine = nib.load(out / path.relative_to(alone))
        np.testing.assert_array_equal(np.asarray(mine.dataobj), np.asarray(nib.load(path).dataobj))
        assert read_json(sidecar(out / path.relative_to(alone))) == read_json(sidecar(path))
    assert {ScanName.parse(path.name).subject for path in out.glob("sub-*/**/*_dseg.nii.gz")} == set(LABELS)
    assert issues(out) == []
