"""Bad input through the real command: one clear error and nothing written, or a failed scan among others."""

import gzip
import json
import os
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

from bids_alphagan.cli import main
from bids_alphagan.errors import ScanError

QUICK = ("--segmenter", "none", "--preset", "demo", "--skip-bids-validation", "--nprocs", "1")


@dataclass(frozen=True)
class Place:
    """What a case may use: a good data set, outputs prepared from it on a grid of 32, a free folder."""

    data: Path
    prepared: Path
    free: Path

    @property
    def out(self) -> Path:
        return self.free / "out"

    def participant(self, *words: object) -> list[object]:
        return [self.data, self.out, "participant", *QUICK, *words]

    def group(self, *words: object) -> list[object]:
        return [self.data, self.prepared, "group", *QUICK, *words]

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.free / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A good data set of one animal, and its participant outputs."""
    root = tmp_path_factory.mktemp("good")
    data, out = tiny.dataset(root / "data"), root / "out"
    name = "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz"
    tiny.scan(data / name, tiny.values(volumes=3), TaskName="rest", RepetitionTime=2.0)
    assert main([str(word) for word in (data, out, "participant", *QUICK)]) == 0
    return data, out


@pytest.fixture
def place(prepared: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # No network, no SPM, no GPU: what the messages below are about.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path / "templateflow"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name in ("SPM_HOME", "SPMMCRCMD"):
        monkeypatch.delenv(name, raising=False)
    free = tmp_path / "free"
    free.mkdir()
    return Place(*prepared, free)


def _no_description(place: Place) -> list[object]:
    (place.free / "data" / "sub-01").mkdir(parents=True)
    return [place.free / "data", place.out, "participant"]


def _description(text: str) -> Callable[[Place], list[object]]:
    def make(place: Place) -> list[object]:
        data = tiny.dataset(place.free / "data")
        (data / "dataset_description.json").write_text(text)
        return [data, place.out, "participant"]

    return make


def _empty(place: Place) -> list[object]:
    return [tiny.dataset(place.free / "data"), place.out, "participant"]


def _no_scans(place: Place) -> list[object]:
    data = tiny.dataset(place.free / "data")
    tiny.scan(data / "sub-01" / "dwi" / "sub-01_dwi.nii.gz", tiny.values(volumes=2))
    return [data, place.out, "participant"]


def _both_packed_and_not(place: Place) -> list[object]:
    data = tiny.dataset(place.free / "data")
    for extension in ("nii", "nii.gz"):
        tiny.scan(data / "sub-01" / "anat" / f"sub-01_T2w.{extension}", tiny.values())
    return [data, place.out, "participant", *QUICK]


def _broken_sidecar(place: Place) -> list[object]:
    data = tiny.dataset(place.free / "data")
    tiny.scan(data / "sub-01" / "anat" / "sub-01_T2w.nii.gz", tiny.values())
    (data / "sub-01" / "anat" / "sub-01_T2w.json").write_text('{"EchoTime": ')
    return [data, place.out, "participant", *QUICK]


def _broken_participants(place: Place) -> list[object]:
    data = tiny.dataset(place.free / "data")
    tiny.scan(data / "sub-01" / "anat" / "sub-01_T2w.nii.gz", tiny.values())
    (data / "participants.tsv").write_bytes(b"participant_id\tspecies\nsub-01\t\xff\xfe\n")
    return [data, place.out, "participant", *QUICK]


def _copy(place: Place, *at: str) -> Path:
    data = tiny.dataset(place.free.joinpath(*at))
    tiny.scan(data / "sub-01" / "anat" / "sub-01_T2w.nii.gz", tiny.values())
    return data


def _output_is_input(place: Place) -> list[object]:
    data = _copy(place, "data")
    return [data, place.free / "x" / ".." / "data", "participant"]


def _output_is_input_by_link(place: Place) -> list[object]:
    data = _copy(place, "data")
    (place.free / "link").symlink_to(data)
    return [data, place.free / "link", "participant"]


def _output_above_input(place: Place) -> list[object]:
    return [_copy(place, "above", "data"), place.free / "above", "participant"]


def _output_above_input_by_link(place: Place) -> list[object]:
    data = _copy(place, "above", "deep", "data")
    (place.free / "link").symlink_to(data)
    return [place.free / "link", place.free / "above", "participant"]


def _output_in_raw_data(place: Place) -> list[object]:
    data = _copy(place, "data")
    return [data, data / "sub-01" / "out", "participant", *QUICK]


def _work_in_raw_data(place: Place) -> list[object]:
    data = _copy(place, "data")
    return [data, place.out, "participant", *QUICK, "--work-dir", data / "sub-01"]


def _output_is_another_data_set(place: Place) -> list[object]:
    return [place.data, _copy(place, "other"), "participant", *QUICK]


def _output_is_of_another_app(place: Place) -> list[object]:
    content = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "other-app"}]}
    place.out.mkdir()
    (place.out / "dataset_description.json").write_text(json.dumps(content))
    return [place.data, place.out, "participant", *QUICK]


def _output_is_a_file(place: Place) -> list[object]:
    return [place.data, place.file("out", "mine"), "participant", *QUICK]


def _output_under_a_file(place: Place) -> list[object]:
    return [place.data, place.file("file", "mine") / "a" / "out", "participant", *QUICK]


def _output_read_only(place: Place) -> list[object]:
    # A system folder that refuses everybody, the super-user too.
    return [place.data, Path("/proc/bids-alphagan/out"), "participant", *QUICK]


def _work_under_a_file(place: Place) -> list[object]:
    return place.participant("--work-dir", place.file("file", "mine") / "work")


def _template_without_gm(place: Place) -> list[object]:
    tiny.scan(place.free / "template" / "tpl-Mine_T2w.nii.gz", tiny.values())
    return place.participant("--segmenter", "ants", "--template", place.free / "template")


def _option_file(flag: str, name: str, content: str | bytes) -> Callable[[Place], list[object]]:
    return lambda place: place.participant(flag, place.file(name, content))


def _participant(*words: str) -> Callable[[Place], list[object]]:
    return lambda place: place.participant(*words)


def _group(*words: str) -> Callable[[Place], list[object]]:
    return lambda place: place.group(*words)


# Case: how to call, and what the one error line says: where, what, and what to do.
CASES: dict[str, tuple[Callable[[Place], list[object]], list[str]]] = {
    "no such folder": (lambda p: [p.free / "none", p.out, "participant"], ["free/none", "no such folder"]),
    "no description": (_no_description, ["free/data", "dataset_description.json is missing", "add one"]),
    "description not JSON": (_description("{"), ["dataset_description.json", "cannot be read as JSON"]),
    "description a list": (_description("[]"), ["dataset_description.json", "Name and BIDSVersion"]),
    "empty": (_empty, ["free/data", "empty", "sub-"]),
    "no scans": (_no_scans, ["free/data", "no bold or T2w scan", "--suffix"]),
    "both .nii and .nii.gz": (_both_packed_and_not, ["sub-01/anat/sub-01_T2w", "Keep one"]),
    "broken sidecar": (_broken_sidecar, ["sub-01_T2w.json"]),
    "broken participants.tsv": (_broken_participants, ["participants.tsv", "UTF-8"]),
    "unknown participant": (
        _participant("--participant-label", "sub-07", "01"),
        ["unknown participant label 07", "has: 01"],
    ),
    "unknown session": (_participant("--session-label", "b"), ["unknown session label b", "has: a"]),
    "unknown task": (_participant("--task-id", "nap"), ["unknown task label nap", "has: rest"]),
    "labels without a scan": (_participant("--suffix", "T2w"), ["no T2w scan", "--suffix"]),
    "output is input": (_output_is_input, ["is the input itself", "another OUTPUT_DIR"]),
    "output is input by link": (_output_is_input_by_link, ["is the input itself", "another OUTPUT_DIR"]),
    "output above input": (_output_above_input, ["a folder above the input", "another OUTPUT_DIR"]),
    "above, by link": (_output_above_input_by_link, ["a folder above the input", "another OUTPUT_DIR"]),
    "output in raw data": (_output_in_raw_data, ["sub-01/out is inside the raw data", "another folder"]),
    "work in raw data": (_work_in_raw_data, ["sub-01 is inside the raw data", "another folder"]),
    "output is a data set": (_output_is_another_data_set, ["free/other holds another data set"]),
    "output of another app": (_output_is_of_another_app, ["free/out holds another data set", "OUTPUT_DIR"]),
    "output is a file": (_output_is_a_file, ["free/out: cannot be written", "another folder"]),
    "output under a file": (_output_under_a_file, ["file/a/out: cannot be written", "another folder"]),
    "output read-only": (_output_read_only, ["/proc/bids-alphagan", "cannot be written", "another folder"]),
    "work under a file": (_work_under_a_file, ["file/work: cannot be written", "another folder"]),
    "filter absent": (
        _participant("--bids-filter-file", "/none.json"),
        ["--bids-filter-file /none.json", "cannot be read"],
    ),
    "filter not JSON": (
        _option_file("--bids-filter-file", "f.json", "{bold:"),
        ["--bids-filter-file", "f.json", "cannot be read as JSON"],
    ),
    "filter binary": (
        _option_file("--bids-filter-file", "f.json", b"\xff\xfe"),
        ["--bids-filter-file", "f.json", "cannot be read as JSON"],
    ),
    "filter a list": (_option_file("--bids-filter-file", "f.json", "[1]"), ["f.json", "must be an object"]),
    "filter unknown suffix": (
        _option_file("--bids-filter-file", "f.json", '{"bolt": {}}'),
        ["f.json", "by suffix (bold, T2w"],
    ),
    "filter unknown entity": (
        _option_file("--bids-filter-file", "f.json", '{"bold": {"acquisitoin": "epi"}}'),
        ["f.json", "acquisitoin"],
    ),
    "TOML absent": (_participant("--config", "/none.toml"), ["--config /none.toml", "cannot be read"]),
    "TOML broken": (_option_file("--config", "c.toml", "seed = = 1"), ["c.toml", "cannot be read as TOML"]),
    "TOML unknown key": (
        _option_file("--config", "c.toml", "n_synthetics = 3\n"),
        ["c.toml", "'n_synthetics'", "'n_synthetic'"],
    ),
    "unknown template": (
        _participant("--segmenter", "ants", "--template", "NoSuchRat"),
        ["NoSuchRat", "TEMPLATEFLOW_HOME", "--template DIR", "--segmenter none"],
    ),
    "template no name": (
        _participant("--segmenter", "ants", "--template", "/no/such/rat"),
        ["/no/such/rat", "neither a folder nor a name"],
    ),
    "template without maps": (_template_without_gm, ["free/template", "GM map"]),
    "negative iterations": (_participant("--iterations", "-5"), ["--iterations -5", "at least 1"]),
    "seed below zero": (_participant("--seed", "-1"), ["--seed -1", "at least 0"]),
    "no processes": (_participant("--nprocs", "0"), ["--nprocs 0", "at least 1"]),
    "little memory": (_participant("--mem-mb", "1"), ["--mem-mb 1", "at least 256"]),
    "absurd grid": (_participant("--grid", "4096"), ["--grid 4096", "at most 256"]),
    "grid no power of two": (_participant("--grid", "48"), ["--grid 48", "power of two"]),
    "gate without end": (_participant("--gate-width", "inf"), ["--gate-width inf", "at most 1e+12"]),
    "absurd latent": (_participant("--latent-size", "100000000000"), ["--latent-size", "at most 1e+06"]),
    "absurd batch": (_participant("--batch-size", "100000000000"), ["--batch-size", "at most 4096"]),
    "blank command": (
        lambda p: p.participant("--segmenter", "spm", "--template", p.free.parent / "rat", "--spm-cmd", " "),
        ["--spm-cmd", "blank is not a program"],
    ),
    "percentile not a number": (_participant("--intensity-percentile", "nan"), ["nan", "at least 50"]),
    "more processes than anywhere": (_participant("--nprocs", "5000"), ["--nprocs 5000", "at most 1024"]),
    "open quote": (
        lambda p: p.participant(
            "--segmenter", "spm", "--template", p.free.parent / "rat", "--spm-cmd", "spm 'x"
        ),
        ["--spm-cmd", "quot"],
    ),
    "percentile": (_participant("--intensity-percentile", "150"), ["150", "at most 100"]),
    "not a number": (_participant("--iterations", "many"), ["--iterations", "'many'", "--help"]),
    "half a scan": (_participant("--n-synthetic", "1.5"), ["--n-synthetic", "'1.5'", "--help"]),
    "unknown model": (_participant("--model", "dcgan"), ["--model", "'dcgan'", "sigmarat2", "--help"]),
    "unknown level": (lambda p: [p.data, p.out, "subject"], ["analysis_level", "'subject'", "--help"]),
    "unknown option": (_participant("--no-such"), ["--no-such", "--help"]),
    "option without value": (_participant("--seed"), ["--seed", "expected one argument", "--help"]),
    "plugin absent": (
        _participant("--use-plugin", "/no.yml"),
        ["--use-plugin /no.yml", "cannot be read"],
    ),
    "plugin not YAML": (
        _option_file("--use-plugin", "p.yml", "plugin: [Multi\n"),
        ["--use-plugin", "p.yml", "cannot be read as YAML or JSON"],
    ),
    "plugin a list": (_option_file("--use-plugin", "p.yml", "- Linear\n"), ["p.yml", "must hold 'plugin'"]),
    "plugin unknown": (
        _option_file("--use-plugin", "p.json", '{"plugin": "Multiproc"}'),
        ["p.json", "MultiProc"],
    ),
    "SPM is not there": (
        lambda p: p.participant("--segmenter", "spm", "--template", p.free.parent / "rat"),
        ["SPM was not found", "--spm-cmd", "--segmenter ants"],
    ),
    "SPM command": (
        lambda p: p.participant(
            "--segmenter", "spm", "--template", p.free.parent / "rat", "--spm-cmd", "/opt/none"
        ),
        ["--spm-cmd", "/opt/none", "is not a program"],
    ),
    "group before participant": (
        lambda p: [p.data, p.out, "group", *QUICK],
        ["no participant outputs", "bids-alphagan", "data", "out participant"],
    ),
    "group on another grid": (_group("--grid", "64"), ["grid of 32 voxels, not 64", "--grid"]),
    "group, unknown label": (
        _group("--participant-label", "01", "07"),
        ["unknown participant label 07", "has: 01"],
    ),
    "group, unknown session": (_group("--session-label", "b"), ["unknown session label b"]),
    "group, filter not JSON": (
        lambda p: p.group("--bids-filter-file", p.file("f.json", "{")),
        ["f.json", "cannot be read as JSON"],
    ),
    "group, report of nothing": (_group("--steps", "report"), ["sigmarat2 are not there", "--steps train"]),
    "group without GPU": (_group("--device", "cuda"), ["--device cuda", "no GPU", "--device cpu"]),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_error_and_nothing_written(
    case: str, place: Place, template: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, said = CASES[case]
    (place.free.parent / "rat").symlink_to(template)
    words = [str(word) for word in make(place)]
    before = tiny.snapshot(place.free), tiny.snapshot(place.prepared), tiny.snapshot(place.data)
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as stop:  # how argparse ends
        code = stop.code
    heard = capsys.readouterr()
    assert code == 2, heard.err
    *rest, error = heard.err.strip().splitlines()
    assert error.startswith("bids-alphagan: error: ")
    assert not any("error" in line.lower() or "traceback" in line.lower() for line in rest), heard.err
    assert [part for part in said if part not in error] == [], error
    assert heard.out == ""
    assert (tiny.snapshot(place.free), tiny.snapshot(place.prepared), tiny.snapshot(place.data)) == before


def test_read_only_folder(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    locked = place.free / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("the super-user may write into a read-only folder")
    assert main([str(word) for word in [place.data, locked / "out", "participant", *QUICK]]) == 2
    assert "locked/out: cannot be written" in capsys.readouterr().err


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


def _affine(value: float) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        header = bytearray(gzip.decompress(tiny.scan(path, tiny.values(volumes=3)).read_bytes()))
        struct.pack_into("<3f", header, 296, *3 * [value])  # srow_y: nibabel itself refuses to write this
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
    "singular": (_affine(0), r"affine is broken"),
    "nanaffine": (_affine(np.nan), r"affine is broken"),
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
    assert "2 of 14 scans are ready" in end[0]
    assert [re.search(r"ERROR FAILED (\S+):", line)[1] for line in end[1:]] == sorted(
        bold(Path(), label).as_posix() for label in BROKEN
    )
    assert "Traceback" not in mixed.said
    assert "14/14" in mixed.said  # the progress bar counts each scan once


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


def test_errors_of_a_scan_at_the_group_level_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: object) -> int:
        raise ScanError("scan.nii.gz: all voxels are the same")

    monkeypatch.setattr("bids_alphagan.app.run", fail)
    assert main(["in", "out", "group"]) == 2
    assert capsys.readouterr().err == "bids-alphagan: error: scan.nii.gz: all voxels are the same\n"


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


def test_plugin_file_is_used(prepared: tuple[Path, Path], tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.json"
    plugin.write_text(json.dumps({"plugin": "MultiProc", "plugin_args": {"n_procs": 2}}))
    done = run(prepared[0], tmp_path / "out", "--use-plugin", str(plugin))
    assert done.code == 0, done.said
    assert "MultiProc" in done.log
