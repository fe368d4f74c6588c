"""What each command loads: help at once, masks without torch, and a GPU node without nipype, pybids and ants."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

HEAVY = {"torch", "monai", "nibabel", "nipype", "bids", "ants", "numpy", "scipy", "matplotlib"}
CALL = """\
import json, pathlib, sys
from bids_alphagan.__main__ import main
try:
    code = main()
except SystemExit as stop:
    code = stop.code
pathlib.Path({note!r}).write_text(json.dumps([code, sorted(sys.modules)]))
"""
SMALL = ("--preset", "demo", "--grid", "16", "--nprocs", "1", "--segmenter", "none", "--device", "cpu")
SHORT = (
    "--iterations",
    "1",
    "--channels",
    "2",
    "--latent-size",
    "4",
    "--batch-size",
    "2",
    "--n-synthetic",
    "1",
)


def loaded(folder: Path, *words: object) -> set[str]:
    """The top-level modules that a call of the app has loaded in its end; it must succeed."""
    note = folder / "loaded.json"
    command = [sys.executable, "-c", CALL.format(note=str(note)), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert note.is_file(), done.stderr
    exit_code, modules = json.loads(note.read_text())
    assert exit_code == 0, done.stderr
    return {name.partition(".")[0] for name in modules}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, set[str]]:
    """A data set of two animals, its participant outputs, and what was loaded to make them."""
    root = tmp_path_factory.mktemp("imports")
    data, out = tiny.dataset(root / "data"), root / "out"
    for n in (1, 2):
        tiny.scan(data / f"sub-0{n}/anat/sub-0{n}_T2w.nii.gz", tiny.values(n))
    return data, out, loaded(root, data, out, "participant", *SMALL)


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bids_alphagan", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 1  # about 0.2 s


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded(tmp_path, "--help") & HEAVY == set()


def test_participants_are_prepared_without_torch(prepared: tuple[Path, Path, set[str]]) -> None:
    modules = prepared[2]
    assert modules & {"torch", "monai"} == set()
    assert {"nipype", "bids"} <= modules  # so that the list is known to tell


def test_training_and_drawing_do_without_what_a_gpu_node_lacks(
    prepared: tuple[Path, Path, set[str]], tmp_path: Path
) -> None:
    data, out, _ = prepared
    for step in ("train", "synthesise"):
        modules = loaded(tmp_path, data, out, "group", *SMALL, *SHORT, "--steps", step)
        assert "torch" in modules
        assert modules & {"nipype", "bids", "ants"} == set(), step
