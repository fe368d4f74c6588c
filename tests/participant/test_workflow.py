"""The participant level on small real files: what is written, what a second run does, two runs at once."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import nipype
import numpy as np
import pytest
import tiny
from bids import BIDSLayout
from nipype.interfaces.base import BaseInterface
from paths import SHARED
from validator import issues

from bids_alphagan.bids import raw
from bids_alphagan.bids.names import TISSUES, ScanName, sidecar
from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import ScanError
from bids_alphagan.common.files import read_json
from bids_alphagan.participant import workflow

NO_MASKS = ("--segmenter", "none", "--preset", "demo", "--skip-bids-validation", "--nprocs", "1")
REAL = SHARED / "real-bids"


def app(*words: object) -> int:
    return cli.main([str(word) for word in words])


def oblique(degrees: float) -> np.ndarray:
    """`tiny.AFFINE` turned about the third axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.eye(4)
    turn[:2, :2] = [[c, -s], [s, c]]
    return turn @ tiny.AFFINE


def reoriented(image: nib.Nifti1Image, axcodes: str) -> nib.Nifti1Image:
    to = nib.orientations.axcodes2ornt(axcodes)
    moved = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), to))
    moved.set_qform(moved.affine, code=1)
    moved.set_sform(moved.affine, code=1)
    return moved


def _variety(root: Path) -> Path:
    data = tiny.dataset(root)
    rest = {"TaskName": "rest", "RepetitionTime": 2.0, "EchoTime": 0.0175}

    def path(name: str) -> Path:
        return data / ScanName.parse(name).image()

    # Two sessions; in one of them two runs, a second task and a 3D anatomical scan.
    tiny.scan(path("sub-01_ses-a_task-rest_run-1_bold"), tiny.values(1, 4), **rest)
    tiny.scan(path("sub-01_ses-a_task-rest_run-2_bold"), tiny.values(2, 4).astype(np.float32) / 7, **rest)
    tiny.scan(path("sub-01_ses-a_T2w"), tiny.values(3).astype(np.uint16), EchoTime=0.05)
    tiny.scan(path("sub-01_ses-b_task-rest_bold"), tiny.values(4, 1), oblique(20), **rest)
    # Complex data; integers with slope and intercept; permuted and flipped axes; big-endian; not packed.
    wave = tiny.values(5, 3) * np.exp(0.3j)
    tiny.scan(path("sub-02_task-rest_part-mag_bold"), wave.astype(np.complex64), **rest)
    scaled = nib.load(tiny.scan(path("sub-03_task-rest_bold"), tiny.values(6, 3), **rest))
    stored = nib.Nifti1Image(tiny.values(6, 3), scaled.affine, scaled.header)
    stored.header.set_slope_inter(0.25, 10.0)
    nib.save(reoriented(stored, "PSL"), path("sub-03_task-rest_bold"))
    swapped = nib.Nifti1Header(endianness=">")
    swapped.set_data_dtype(">i2")
    image = nib.Nifti1Image(tiny.values(7), tiny.AFFINE, swapped)
    image.header.set_xyzt_units("mm", "sec")
    target = path("sub-04_T2w")
    target.parent.mkdir(parents=True)
    nib.save(image, target.with_name("sub-04_T2w.nii"))
    return data


@pytest.fixture(scope="module")
def variety(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Scans of many kinds, and what the participant level made of them."""
    root = tmp_path_factory.mktemp("variety")
    data, out = _variety(root / "data"), root / "out"
    assert app(data, out, "participant", *NO_MASKS) == 0
    return data, out


def raw_scans(data: Path) -> list[Path]:
    return sorted(path for path in data.glob("sub-*/**/*.nii*"))


def test_exactly_these_files(variety: tuple[Path, Path]) -> None:
    data, out = variety
    scans = raw_scans(data)
    assert len(scans) == 7
    images = [ScanName.parse(p.name).image(desc) for p in scans for desc in ("reference", "preproc")]
    expected = {*images, *map(sidecar, images)}
    expected |= {Path(f"sub-0{n}.html") for n in (1, 2, 3, 4)}
    expected |= {Path(name) for name in ("dataset_description.json", "README", "dseg.tsv", ".bidsignore")}
    written = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert {path for path in written if path.parts[0] not in (".work", "logs")} == expected
    assert {p.suffix for p in written if p.parts[0] == "logs"} == {".log", ".toml"}


def test_validator_and_pybids_accept_the_output(variety: tuple[Path, Path]) -> None:
    data, out = variety
    assert issues(data) == []
    assert issues(out) == []
    layout = BIDSLayout(out, is_derivative=True)
    for desc in ("reference", "preproc"):
        found = layout.get(desc=desc, extension=".nii.gz", return_type="filename")
        names = [ScanName.parse(path.name).image(desc) for path in raw_scans(data)]
        assert sorted(found) == sorted(str(out / name) for name in names)
    assert layout.get_sessions() == ["a", "b"]


def test_sidecars_say_what_and_from_where(variety: tuple[Path, Path]) -> None:
    data, out = variety
    links = read_json(out / "dataset_description.json")["DatasetLinks"]
    assert Path(unquote(links["raw"].removeprefix("file://"))) == data
    for path in raw_scans(data):
        for desc in ("reference", "preproc"):
            facts = read_json(sidecar(out / ScanName.parse(path.name).image(desc)))
            assert facts["SkullStripped"] is False
            assert len(facts["Description"]) > 20
            (source,) = facts["Sources"]
            assert data / unquote(source.removeprefix("bids:raw:")) == path
    facts = read_json(out / "sub-01/ses-a/anat/sub-01_ses-a_desc-reference_T2w.json")
    assert facts["EchoTime"] == 0.05
    facts = read_json(out / "sub-02/func/sub-02_task-rest_part-mag_desc-preproc_bold.json")
    assert (facts["TaskName"], facts["RepetitionTime"]) == ("rest", 2.0)
    assert facts["Preparation"]["ComplexMagnitudeTaken"] is True
    assert facts["Preparation"]["NumberOfVolumes"] == 3


def test_reference_has_the_raw_scans_geometry_and_type(variety: tuple[Path, Path]) -> None:
    data, out = variety
    for path in raw_scans(data):
        before, name = nib.load(path), ScanName.parse(path.name)
        after = nib.load(out / name.image("reference"))
        assert after.shape == (*before.shape[:3], 1)[: before.ndim]
        np.testing.assert_array_equal(after.affine, before.affine)
        kept = [
            "pixdim",
            "xyzt_units",
            "qform_code",
            "sform_code",
            "srow_x",
            "quatern_b",
            "scl_slope",
            "intent_code",
        ]
        is_complex = before.get_data_dtype().kind == "c"
        if not is_complex:
            assert after.get_data_dtype() == before.get_data_dtype()
        for key in kept:
            np.testing.assert_array_equal(after.header[key], before.header[key], err_msg=f"{path.name} {key}")
        values = np.abs(np.asanyarray(before.dataobj)).astype(np.float64)
        mean = values.mean(axis=3, keepdims=True) if before.ndim == 4 else values
        # Rounding to the stored integers is all that may differ; noise volumes are all alike to the mean.
        step = before.dataobj.slope if before.get_data_dtype().kind in "iu" else 1e-3
        averaged = read_json(sidecar(out / name.image("preproc")))["Preparation"].get("VolumesAveraged")
        assert averaged == (before.shape[3] if before.ndim == 4 else None)
        np.testing.assert_allclose(np.asanyarray(after.dataobj), mean, atol=0.501 * step, rtol=1e-5)


def test_preproc_is_the_reference_in_ras_and_in_place(variety: tuple[Path, Path]) -> None:
    data, out = variety
    for path in raw_scans(data):
        name = ScanName.parse(path.name)
        cube, reference = nib.load(out / name.image("preproc")), nib.load(out / name.image("reference"))
        values = np.squeeze(cube.get_fdata())
        assert values.shape == (32, 32, 32)
        assert cube.get_data_dtype() == np.float32
        assert nib.aff2axcodes(cube.affine) == ("R", "A", "S")
        assert (values.min(), values.max()) == (-1, 1)
        low, high = read_json(sidecar(out / name.image("preproc")))["Preparation"]["IntensityRange"]
        there = np.squeeze(reference.get_fdata())
        # Every voxel of the scan is found at its own millimetre in the cube.
        index = np.indices(there.shape).reshape(3, -1).T
        mm = nib.affines.apply_affine(reference.affine, index)
        at = np.rint(nib.affines.apply_affine(np.linalg.inv(cube.affine), mm)).astype(int)
        inside = (values[tuple(at.T)] + 1) / 2 * (high - low) + low
        step = reference.dataobj.slope if reference.get_data_dtype().kind in "iu" else 0
        np.testing.assert_allclose(inside, there.ravel(), atol=0.501 * step + 1e-2)


def work_files(out: Path, *nodes: str) -> dict[Path, int]:
    """When the results of `nodes` were written, by path in the work folder."""
    found = [path for node in nodes for path in (out / ".work").glob(f"participant/*/{node}/*.nii.gz")]
    return {path.relative_to(out): path.stat().st_mtime_ns for path in found}


def test_a_second_run_computes_nothing_and_a_changed_scan_is_done_again(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    scans = [data / ScanName.parse(f"sub-0{n}_T2w").image() for n in (1, 2)]
    for seed, path in enumerate(scans):
        tiny.scan(path, tiny.values(seed))
    assert app(data, out, "participant", *NO_MASKS) == 0
    first = work_files(out, "read", "conform")
    assert len(first) == 4
    os.utime(scans[0])  # a new time alone is no change
    lost = out / "sub-02/anat/sub-02_desc-preproc_T2w.nii.gz"
    lost.unlink()
    assert app(data, out, "participant", *NO_MASKS) == 0
    assert work_files(out, "read", "conform") == first
    assert lost.is_file()  # made again from the kept results

    tiny.scan(scans[1], tiny.values(9))
    assert app(data, out, "participant", *NO_MASKS) == 0
    changed = {path for path, at in work_files(out, "read", "conform").items() if first[path] != at}
    assert changed == {path for path in first if "sub02" in str(path)}
    reference = nib.load(out / "sub-02/anat/sub-02_desc-reference_T2w.nii.gz")
    np.testing.assert_array_equal(reference.get_fdata(), tiny.values(9))

    assert app(data, out, "participant", *NO_MASKS, "--grid", "16") == 0
    now = work_files(out, "read", "conform")
    assert {path.parts[-2] for path, at in now.items() if at > first[path] and "sub01" in str(path)} == {
        "conform"
    }
    assert nib.load(lost).shape == (16, 16, 16)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ('{"plugin": "MultiProc", "plugin_args": {"n_procs": 2}}', "MultiProc"),
        ("plugin: LegacyMultiProc\nplugin_args: {n_procs: 2}", "LegacyMultiProc"),
        ("plugin: Linear", "Running serially"),
    ],
)
def test_plugin_file_is_used(tmp_path: Path, settings: str, expected: str) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    tiny.scan(data / "sub-01/anat/sub-01_T2w.nii.gz", tiny.values())
    plugin = tmp_path / "plugin.yml"
    plugin.write_text(settings)
    assert app(data, out, "participant", *NO_MASKS, "--use-plugin", plugin) == 0
    (record,) = (out / "logs").glob("participant_*.log")
    assert expected in record.read_text()
    assert (out / "sub-01/anat/sub-01_desc-preproc_T2w.nii.gz").is_file()


@pytest.mark.parametrize("name", ["SLURMGraph", "SGEGraph", "CondorDAGMan"])
def test_a_plugin_that_does_not_wait_is_refused(tmp_path: Path, name: str, capsys) -> None:
    data, plugin = tiny.dataset(tmp_path / "data"), tmp_path / "plugin.yml"
    tiny.scan(data / "sub-01/anat/sub-01_T2w.nii.gz", tiny.values())
    plugin.write_text(f"plugin: {name}\n")
    assert app(data, tmp_path / "out", "participant", *NO_MASKS, "--use-plugin", plugin) == 2
    assert f"{name} submits its jobs and ends" in capsys.readouterr().err


def test_report_shows_the_scans_of_every_run(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    for session in ("a", "b"):
        tiny.scan(data / ScanName.parse(f"sub-01_ses-{session}_T2w").image(), tiny.values())
    for session in ("a", "b"):
        assert app(data, out, "participant", *NO_MASKS, "--session-label", session) == 0
    page = (out / "sub-01.html").read_text()
    assert "sub-01_ses-a_T2w" in page
    assert "sub-01_ses-b_T2w" in page
    assert "This scan was prepared by another run" in page


def test_any_sidecar_key_will_do(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    odd = {"path": "x", "root": 1, "image": 2, "Model": "BioSpec", "EchoTime": float("nan")}
    tiny.scan(data / "sub-01/anat/sub-01_T2w.nii.gz", tiny.values())
    (data / "sub-01/anat/sub-01_T2w.json").write_text(json.dumps(odd))
    assert app(data, out, "participant", *NO_MASKS) == 0
    kept = json.loads((out / "sub-01/anat/sub-01_desc-reference_T2w.json").read_text())
    assert {key: kept.get(key) for key in odd} == {**odd, "EchoTime": None}


def test_two_participants_at_once_on_one_output(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    for n in (1, 2):
        tiny.scan(data / ScanName.parse(f"sub-0{n}_T2w").image(), tiny.values(n))
    command = [sys.executable, "-m", "bids_alphagan", str(data), str(out), "participant", *NO_MASKS]
    runs = [
        subprocess.Popen([*command, "--participant-label", label], stderr=subprocess.PIPE, text=True)
        for label in ("01", "02")
    ]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    for label in ("01", "02"):
        image = nib.load(out / f"sub-{label}/anat/sub-{label}_desc-reference_T2w.nii.gz")
        np.testing.assert_array_equal(image.get_fdata(), tiny.values(int(label)))
        assert (out / f"sub-{label}.html").is_file()
    assert issues(out) == []
    assert len(list((out / "logs").glob("participant_*.toml"))) == 2


def test_masks_of_an_earlier_run_go_when_there_are_to_be_none(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    name = ScanName.parse("sub-01_T2w")
    tiny.scan(data / name.image(), tiny.values())
    for path in name.masks().values():
        tiny.scan(out / path, tiny.values(), Description="of an earlier run")
    assert app(data, out, "participant", *NO_MASKS) == 0
    assert sorted(path.name for path in (out / name.folder).iterdir()) == sorted(
        path.name
        for desc in ("reference", "preproc")
        for path in (name.image(desc), sidecar(name.image(desc)))
    )


@dataclass(frozen=True)
class Killed:
    """A segmenter that meets the fate of a process that wants too much memory."""

    victim: str

    def __call__(self, scan: Path, scratch: Path) -> None:
        if self.victim in str(scratch):
            os.kill(os.getpid(), signal.SIGKILL)
        raise ScanError("no brain in it")


def test_a_killed_process_fails_its_scan_and_does_not_hang(tmp_path: Path) -> None:
    data, out = tiny.dataset(tmp_path / "data"), tmp_path / "out"
    labels = ["00", "01", "02", "03", "04"]
    for n, label in enumerate(labels):
        tiny.scan(data / ScanName.parse(f"sub-{label}_T2w").image(), tiny.values(n))
    config = cli.parse([str(word) for word in (data, out, "participant", *NO_MASKS, "--nprocs", "2")])
    victim = Killed("sub00")
    segmenters = dict.fromkeys(labels) | {"00": victim, "04": victim}
    scans = raw.find_scans(config.bids_dir, config.selection)
    results = workflow.run(workflow.Settings.of(config), scans, segmenters)
    errors = {result.scan.name.subject: result.error for result in results}
    assert "killed" in errors.pop("00")
    # The one that shared the pool may have died with it; the others have a new one.
    died = [label for label, error in errors.items() if error and "killed" in error]
    assert len(died) <= 1
    wanted = {"01": None, "02": None, "03": None, "04": "no brain in it"}
    assert {k: v for k, v in errors.items() if k not in died} == {
        k: v for k, v in wanted.items() if k not in died
    }


def test_nothing_is_asked_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nipype would ask for its newest version when the first interface is made."""
    asked = []
    monkeypatch.setattr("nipype.check_latest_version", lambda *words, **more: asked.append(words))
    monkeypatch.setattr(BaseInterface, "_etelemetry_version_data", None)
    monkeypatch.delenv("NIPYPE_NO_ET", raising=False)
    nipype.config.set("execution", "check_version", "true")  # its default
    data = tiny.dataset(tmp_path / "data")
    tiny.scan(data / ScanName.parse("sub-01_T2w").image(), tiny.values())
    assert app(data, tmp_path / "out", "participant", *NO_MASKS) == 0
    assert asked == []


needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"the two real scans are not there: {REAL}")
RAT, MOUSE = ScanName.parse("sub-rat15_T2w"), ScanName.parse("sub-mouse01_task-rest_bold")


@needs_real
def test_real_scans_without_masks(tmp_path: Path) -> None:
    assert app(REAL, tmp_path / "out", "participant", *NO_MASKS) == 0
    assert issues(tmp_path / "out") == []
    for name in (RAT, MOUSE):
        raw, after = (nib.load(p) for p in (REAL / name.image(), tmp_path / "out" / name.image("reference")))
        assert after.shape[:3] == raw.shape[:3]
        np.testing.assert_array_equal(after.affine, raw.affine)
        cube = nib.load(tmp_path / "out" / name.image("preproc"))
        assert np.squeeze(cube.get_fdata()).shape == (32, 32, 32)
        # The centre of the scan's field of view is where it was, resampled or not.
        record = read_json(sidecar(tmp_path / "out" / name.image("preproc")))["Preparation"]
        assert record["ResampledGrid"] is not None
        before, shape = np.array(record["PaddingBefore"]), np.array(record["ResampledGrid"])
        centre = nib.affines.apply_affine(raw.affine, (np.array(raw.shape[:3]) - 1) / 2)
        np.testing.assert_allclose(
            nib.affines.apply_affine(cube.affine, before + (shape - 1) / 2), centre, atol=1e-3
        )
        assert "No masks: --segmenter none" in (tmp_path / "out" / f"sub-{name.subject}.html").read_text()


@pytest.mark.slow
@needs_real
def test_real_scans_with_a_template_of_one_species(tmp_path: Path, template: Path) -> None:
    out = tmp_path / "out"
    words = ["--preset", "demo", "--segmenter", "ants", "--quick-masks", "--template", template]
    assert app(REAL, out, "participant", *words, "--skip-bids-validation", "--nprocs", "1") == 0
    assert issues(out) == []
    note = "No masks: the animal is mus musculus, the template RatPhantom is rattus norvegicus"
    assert note in (out / "sub-mouse01.html").read_text()
    (log,) = (out / "logs").glob("*.log")
    assert f"sub-mouse01: {note}" in log.read_text()
    assert not any((out / path).exists() for path in MOUSE.masks().values())
    rat = (out / "sub-rat15.html").read_text()
    assert note not in rat
    assert "orientation other than the header" not in rat

    reference = nib.load(out / RAT.image("reference"))
    images = {key: nib.load(out / path) for key, path in RAT.masks().items()}
    for key, image in images.items():
        assert image.shape == reference.shape
        np.testing.assert_array_equal(image.affine, reference.affine)
        facts = read_json(sidecar(out / RAT.masks()[key]))
        reference_uri = f"bids::{RAT.image('reference').as_posix()}"
        assert facts["Sources"] == [reference_uri]
        assert facts["SpatialReference"] == reference_uri
        assert (out / facts["Sources"][0].removeprefix("bids::")).is_file()
    maps = np.stack([images[tissue].get_fdata() for tissue in TISSUES])
    assert maps.min() >= 0
    assert maps.max() <= 1
    assert maps.sum(axis=0).max() <= 1 + 1e-6
    assert set(np.unique(images["dseg"].get_fdata())) == {0, 1, 2, 3}
    assert set(np.unique(images["brain"].get_fdata())) == {0, 1}
