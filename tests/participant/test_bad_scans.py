"""Damaged scans: each fails with its reason, the others finish, and the exit code is 1. By the command."""

import gzip
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny

from bids_alphagan.cli.main import main

QUICK = ("--segmenter", "none", "--preset", "demo", "--skip-bids-validation", "--nprocs", "1")


def _text(path: Path) -> None:
    path.write_text("This is not a scan.\n")


def _truncated(path: Path) -> None:
    packed = tiny.scan(path, tiny.values(volumes=9)).read_bytes()
    path.write_bytes(packed[: len(packed) // 2])


def _with_value(value: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = tiny.values(volumes=3).astype(np.float32)
        data[2, 3, 4, 1] = value
        tiny.scan(path, data)

    return make


def _affine(*srow_y: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        header = bytearray(gzip.decompress(tiny.scan(path, tiny.values(volumes=3)).read_bytes()))
        struct.pack_into("<3f", header, 296, *srow_y)  # srow_y: nibabel itself refuses to write this
        path.write_bytes(gzip.compress(header))

    return make


def _dangling(path: Path) -> None:
    path.symlink_to("../../../.git/annex/objects/none")


# Label of the animal: how its scan is broken, and words of the reason.
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (_truncated, r"cannot be read|not a readable NIfTI"),
    "zero": (lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
    "text": (_text, r"not a readable NIfTI"),
    "flat": (lambda path: tiny.scan(path, tiny.values()[:, :, 0]), r"shape \(7, 8\).*3D"),
    "five": (
        lambda path: tiny.scan(path, tiny.values(volumes=4).reshape(7, 8, 9, 2, 2)),
        r"shape \(7, 8, 9, 2, 2\)",
    ),
    "slice": (lambda path: tiny.scan(path, tiny.values()[:, :, :1]), r"fewer than 4 voxels"),
    "nan": (_with_value(np.nan), r"1 voxels are NaN or infinite"),
    "inf": (_with_value(-np.inf), r"1 voxels are NaN or infinite"),
    "constant": (lambda path: tiny.scan(path, np.full((7, 8, 9, 3), 5, np.int16)), r"every voxel is 5"),
    "singular": (_affine(0, 0, 0), r"affine is broken"),
    "metres": (
        lambda path: tiny.scan(path, tiny.values(), np.diag([1e-3, 1e-3, 1e-3, 1])),
        r"may be in metres: write them in mm",
    ),
    "nanaffine": (_affine(np.nan, 0, 0), r"affine is broken"),
    "dangling": (_dangling, r"no such file"),
}


@dataclass(frozen=True)
class Run:
    data: Path
    out: Path
    code: int
    said: str

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in (self.out / "logs").glob("participant_*.log"))


def bold(data: Path, label: str) -> Path:
    return data / f"sub-{label}" / "func" / f"sub-{label}_task-rest_bold.nii.gz"


def run(data: Path, out: Path, *words: str) -> Run:
    command = [sys.executable, "-m", "bids_alphagan", str(data), str(out), "participant", *QUICK, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    return Run(data, out, done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run over an animal of each kind of broken scan, and two good ones at both ends."""
    root = tmp_path_factory.mktemp("mixed")
    data = tiny.dataset(root / "data")
    for label in ("aaa", "zzz"):
        tiny.scan(bold(data, label), tiny.values(volumes=3))
    for label, (make, _) in BROKEN.items():
        bold(data, label).parent.mkdir(parents=True)
        make(bold(data, label))
    return run(data, root / "out")


def test_exit_code_1_with_the_list_at_the_end(mixed: Run) -> None:
    assert mixed.code == 1
    end = [line for line in mixed.said.splitlines() if line][-len(BROKEN) - 1 :]
    assert "2 of 15 scans are ready" in end[0]
    assert [re.search(r"ERROR FAILED (\S+):", line)[1] for line in end[1:]] == sorted(
        bold(Path(), label).as_posix() for label in BROKEN
    )
    assert "Traceback" not in mixed.said
    assert "15/15" in mixed.said  # the progress bar counts each scan once


@pytest.mark.parametrize("label", BROKEN)
def test_failed_scan_gives_its_reason_everywhere_and_leaves_no_image(mixed: Run, label: str) -> None:
    reason = BROKEN[label][1]
    name = bold(Path(), label).as_posix()
    for text in (mixed.said, mixed.log):
        line = next(line for line in text.splitlines() if f"FAILED {name}:" in line)
        assert re.search(reason, line)
    report = (mixed.out / f"sub-{label}.html").read_text()
    assert re.search(reason, report.replace("&#39;", "'"))
    assert "<svg" not in report.split("Methods")[0]
    assert list(mixed.out.glob(f"sub-{label}/**/*")) == []
    assert list(mixed.out.rglob(".writing-*")) == []


@pytest.mark.parametrize("label", ["aaa", "zzz"])
def test_good_scans_among_bad_ones_are_ready(mixed: Run, label: str) -> None:
    folder = mixed.out / f"sub-{label}" / "func"
    stem = f"sub-{label}_task-rest"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{stem}_desc-{kind}_bold.{extension}"
        for kind in ("preproc", "reference")
        for extension in ("json", "nii.gz")
    ]
    data = nib.load(folder / f"{stem}_desc-preproc_bold.nii.gz").get_fdata()
    assert (data.min(), data.max()) == (-1, 1)


def test_repaired_scan_becomes_ready(mixed: Run, tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "data")
    tiny.scan(bold(data, "good"), tiny.values(volumes=3))
    for label in ("nan", "zero"):
        bold(data, label).parent.mkdir(parents=True)
        BROKEN[label][0](bold(data, label))
    words = [str(word) for word in (data, tmp_path / "out", "participant", *QUICK)]
    outputs = [tmp_path / "out" / f"sub-{label}" / "func" for label in ("good", "nan", "zero")]
    assert main(words) == 1
    assert [folder.is_dir() for folder in outputs] == [True, False, False]
    tiny.scan(bold(data, "nan"), tiny.values(1, volumes=3))
    assert main(words) == 1
    assert [folder.is_dir() for folder in outputs] == [True, True, False]
    assert "are NaN" not in (tmp_path / "out" / "sub-nan.html").read_text()
    tiny.scan(bold(data, "zero"), tiny.values(2, volumes=3))
    assert main(words) == 0
    assert [folder.is_dir() for folder in outputs] == [True, True, True]
    logs = [path.read_text() for path in (tmp_path / "out" / "logs").glob("participant_*.log")]
    assert sorted(re.findall(r"(\d) of 3 scans are ready", " ".join(logs))) == ["1", "2", "3"]


def test_damaged_scan_is_forgotten(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "data")
    for label in ("good", "zero"):
        tiny.scan(bold(data, label), tiny.values(volumes=3))
    words = [str(word) for word in (data, tmp_path / "out", "participant", *QUICK)]
    assert main(words) == 0
    BROKEN["zero"][0](bold(data, "zero"))
    assert main(words) == 1
    left = [path.name for path in (tmp_path / "out").glob("sub-*/func/*")]
    assert left
    assert all("sub-good" in name for name in left)


def test_stop_on_first_crash_says_what_was_not_done(tmp_path: Path) -> None:
    data = tiny.dataset(tmp_path / "data")
    bold(data, "a").parent.mkdir(parents=True)
    _text(bold(data, "a"))
    tiny.scan(bold(data, "b"), tiny.values(volumes=3))
    done = run(data, tmp_path / "out", "--stop-on-first-crash")
    assert done.code == 1
    assert re.search(r"FAILED sub-a/\S+: .*not a readable NIfTI", done.said)
    assert re.search(r"FAILED sub-b/\S+: not finished", done.said)
    assert not (tmp_path / "out" / "sub-b").exists()
