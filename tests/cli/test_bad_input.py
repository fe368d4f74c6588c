"""Bad input through the real command: exit code 2, one clear error and nothing written."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny

from bids_alphagan.cli.main import main
from bids_alphagan.common.errors import ScanError

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


def _work_is_raw_data(place: Place) -> list[object]:
    data = _copy(place, "data")
    return [data, place.out, "participant", *QUICK, "--work-dir", data]


def _output_is_another_data_set(place: Place) -> list[object]:
    return [place.data, _copy(place, "other"), "participant", *QUICK]


def _output_is_of_another_app(place: Place) -> list[object]:
    content = {"Name": "x", "BIDSVersion": "1.10.0", "GeneratedBy": [{"Name": "other-app"}]}
    place.out.mkdir()
    (place.out / "dataset_description.json").write_text(json.dumps(content))
    return [place.data, place.out, "participant", *QUICK]


def _output_with_description(text: str) -> Callable[[Place], list[object]]:
    def make(place: Place) -> list[object]:
        place.out.mkdir()
        (place.out / "dataset_description.json").write_text(text)
        return [place.data, place.out, "participant", *QUICK]

    return make


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
    "work is raw data": (_work_is_raw_data, ["data is inside the raw data", "another folder"]),
    "work in raw data": (_work_in_raw_data, ["sub-01 is inside the raw data", "another folder"]),
    "output is a data set": (_output_is_another_data_set, ["free/other holds another data set"]),
    "output's description empty": (
        _output_with_description(""),
        ["free/out/dataset_description.json", "empty or damaged", "Remove it"],
    ),
    "output's description cut": (
        _output_with_description('{"Name": "bids-alphagan deriv'),
        ["free/out/dataset_description.json", "empty or damaged", "Remove it"],
    ),
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
    "grid of no size": (_participant("--grid", "50"), ["--grid 50", "power of two"]),
    "gate without end": (_participant("--gate-width", "inf"), ["--qc-width inf", "at most 1e+12"]),
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
    "SPM not found": (
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
    "group, report of nothing": (_group("--steps", "report"), ["sigmarat2 do not exist", "--steps train"]),
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


def test_errors_of_a_scan_at_the_group_level_are_one_line(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: object) -> int:
        raise ScanError("scan.nii.gz: all voxels are the same")

    monkeypatch.setattr("bids_alphagan.group.run", fail)
    assert main([str(word) for word in place.group()]) == 2
    assert capsys.readouterr().err == "bids-alphagan: error: scan.nii.gz: all voxels are the same\n"
