"""The phantom: a valid, deterministic data set whose truth is plausible and whose template is usable."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from validator import issues

from bids_alphagan.cli.phantom import main
from bids_alphagan.common.errors import UserError
from bids_alphagan.common.files import read_tsv
from bids_alphagan.phantom import acquisition, dataset
from bids_alphagan.phantom.acquisition import acquire, coil_profile, echo_planar, scan_affine
from bids_alphagan.phantom.anatomy import CSF, GM, WM, head
from bids_alphagan.phantom.animal import WARP_STEP, Animal, Pose, draw_animal, draw_pose
from bids_alphagan.phantom.dataset import segment
from bids_alphagan.phantom.options import PhantomOptions, check

SMALL = ["--shape", "32", "32", "20", "--zooms", "0.75", "0.75", "1.0"]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "raw"
    assert main([str(out), "--n-subjects", "3", *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "sessions"
    assert main([str(out), "--n_subjects", "2", "--n_sessions", "2", "--volumes", "1", *SMALL]) == 0
    return out


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def data(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def test_file_list(phantom):
    scans = [f"sub-{n:02d}/func/sub-{n:02d}_task-rest" for n in (1, 2, 3)]
    truth, template = "derivatives/truth", "derivatives/templateflow/tpl-RatPhantom"
    expected = {
        "README",
        "dataset_description.json",
        "participants.json",
        "participants.tsv",
        "task-rest_bold.json",
        f"{truth}/dataset_description.json",
        f"{truth}/dseg.tsv",
        f"{template}/template_description.json",
        *(f"{scan}_bold.nii.gz" for scan in scans),
        *(
            f"{truth}/{scan}_{kind}.{extension}"
            for scan in scans
            for kind in ("dseg", "desc-brain_mask")
            for extension in ("nii.gz", "json")
        ),
        *(
            f"{template}/tpl-RatPhantom_res-1_{part}.nii.gz"
            for part in ("T2w", "desc-brain_mask", *(f"label-{t}_probseg" for t in ("GM", "WM", "CSF")))
        ),
    }
    assert set(files(phantom)) == expected


@pytest.mark.parametrize("folder", [".", "derivatives/truth"])
def test_valid_bids(phantom, sessions, folder):
    assert issues(phantom / folder) == []
    assert issues(sessions / folder) == []


def test_header(phantom):
    image = nib.load(phantom / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    sidecar = json.loads((phantom / "task-rest_bold.json").read_text())
    assert image.shape == (32, 32, 20, 3)
    assert image.get_data_dtype() == np.int16
    assert image.header.get_zooms() == (0.75, 0.75, 1.0, sidecar["RepetitionTime"])
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    np.testing.assert_allclose(image.affine @ [15.5, 15.5, 9.5, 1], [0, 0, 0, 1], atol=1e-6)
    for kind in ("dseg", "desc-brain_mask"):
        truth = nib.load(phantom / f"derivatives/truth/sub-01/func/sub-01_task-rest_{kind}.nii.gz")
        assert truth.shape == image.shape[:3]
        np.testing.assert_array_equal(truth.affine, image.affine)


def test_truth_sources_exist(sessions):
    for path in (sessions / "derivatives/truth").rglob("*_*.json"):
        if path.name != "dataset_description.json":
            (source,) = json.loads(path.read_text())["Sources"]
            assert (sessions / source.removeprefix("bids:raw:")).is_file()


def test_participants_match_folders(phantom):
    rows = read_tsv(phantom / "participants.tsv")
    described = json.loads((phantom / "participants.json").read_text())
    assert [row["participant_id"] for row in rows] == sorted(p.name for p in phantom.glob("sub-*"))
    assert set(rows[0]) == set(described)
    for row in rows:
        assert (row["species"], row["strain"]) == ("rattus norvegicus", "Wistar")
        assert row["sex"] in "MF"
        assert 6 <= float(row["age"]) <= 30
        assert 180 < float(row["weight"]) < 600


def test_brain_is_a_rats(phantom):
    for n in (1, 2, 3):
        path = phantom / f"derivatives/truth/sub-0{n}/func/sub-0{n}_task-rest_dseg.nii.gz"
        labels = data(path)
        counts = np.bincount(labels.ravel(), minlength=4)
        assert counts.size == 4
        brain = counts[1:].sum()
        assert 1.3 < brain * 0.75 * 0.75 / 1000 < 2.5  # mL
        gray, white, fluid = counts[1:] / brain
        assert 0.6 < gray < 0.85
        assert 0.05 < white < 0.25
        assert 0.05 < fluid < 0.25
        mask = data(path.with_name(path.name.replace("dseg", "desc-brain_mask")))
        assert np.mean((labels > 0) == (mask > 0)) > 0.97
        # Centred: no more of the brain at the sides of the field of view than a partial one may have.
        assert not labels[0].any()
        assert not labels[-1].any()
        assert not labels[:, :, -1].any()


def scan(seed: int = 3, volumes: int = 1):
    rng = np.random.default_rng(seed)
    animal = draw_animal(rng)
    return acquire(head(), animal, draw_pose(rng, animal), rng, (48, 50, 36), (0.5, 0.48, 0.5), volumes)


def test_contrast_order():
    result = scan()
    image = result.series[..., 0].astype(float)
    grid = np.indices(image.shape, dtype=np.float32).reshape(3, -1)
    affine = scan_affine(image.shape, (0.5, 0.48, 0.5)).astype(np.float32)
    points = (affine[:3, :3] @ grid + affine[:3, 3:]).reshape(3, *image.shape)
    flat = image / coil_profile(points, np.random.default_rng(0))
    gray, white, fluid = (flat[fraction > 0.85].mean() for fraction in result.fractions)
    outside = flat[(result.fractions.sum(0) == 0) & (points[2] > -6)].mean()
    assert fluid > 1.1 * gray
    assert gray > 1.1 * white
    assert white > outside


def test_signal_falls_away_from_the_coil():
    result = scan()
    gray = result.fractions[0] > 0.9
    heights = np.nonzero(gray)[2]
    low, high = np.percentile(heights, (15, 85)).astype(int)
    image = result.series[..., 0]
    top, bottom = image[..., high:][gray[..., high:]].mean(), image[..., :low][gray[..., :low]].mean()
    assert top > 1.5 * bottom


def test_noise_level():
    result = scan(volumes=2)
    gray = result.fractions[0] > 0.9
    first, second = (result.series[..., t][gray].astype(float) for t in (0, 1))
    noise = np.std(first - second * first.mean() / second.mean()) / np.sqrt(2)
    assert first.mean() / noise == pytest.approx(20, rel=0.2)
    # Air holds the Rayleigh noise of a magnitude image, never zeros throughout.
    corner = result.series[:6, :6, -3:, 0]
    assert corner.mean() == pytest.approx(noise * np.sqrt(np.pi / 2), rel=0.25)


def test_fractions_are_fractions():
    fractions = scan().fractions
    assert fractions.min() >= 0
    assert fractions.sum(0).max() <= 1 + 1e-6
    assert ((fractions > 0.05) & (fractions < 0.95)).mean() > 0.01


def test_labels_of_thin_layers_do_not_depend_on_the_sampling(monkeypatch):
    """With two samples along each axis of a small voxel, the Dice of white matter was 0.86 here."""

    def white():
        rng = np.random.default_rng(3)
        animal = draw_animal(rng)
        made = acquire(head(), animal, draw_pose(rng, animal), rng, (40, 16, 26), (0.375, 0.375, 0.5), 1)
        return segment(made.fractions)[0] == 2

    usual = white()
    monkeypatch.setattr(acquisition, "FINEST", 0.0625)
    finer = white()
    assert 2 * (usual & finer).sum() / (usual.sum() + finer.sum()) > 0.9


def test_echo_planar_keeps_place_and_level():
    fine = np.zeros((8 * 2, 9 * 3, 4 * 2), np.float32)
    fine[3 * 2 : 4 * 2, 5 * 3 : 6 * 3, 2 * 2 : 3 * 2] = 1  # exactly voxel (3, 5, 2)
    image = np.abs(echo_planar(fine, (2, 3, 2)))
    assert image.shape == (8, 9, 4)
    assert np.unravel_index(image.argmax(), image.shape) == (3, 5, 2)
    np.testing.assert_allclose(image[2, :, 2], image[4, :, 2], atol=1e-4)
    flat = np.abs(echo_planar(np.full((16, 27, 8), 2, np.float32), (2, 3, 2)))
    np.testing.assert_allclose(flat, 2, rtol=1e-4)


def test_deformations_are_diffeomorphic_and_differ():
    animals = [draw_animal(np.random.default_rng([0, n])) for n in range(1, 7)]
    for animal in animals:
        slopes = np.stack([np.stack(np.gradient(c, WARP_STEP)) for c in animal.displacement], axis=1)
        jacobian = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3))
        assert jacobian.min() > 0.1
        assert 0.3 < np.linalg.norm(animal.displacement, axis=0).mean() < 2.5
        assert np.abs(animal.size - 1).max() <= 0.085
    assert not np.allclose(animals[0].displacement, animals[1].displacement, atol=0.3)


def test_undeformed_animal_is_the_template():
    still = Animal(np.zeros((3, 25, 25, 21), np.float32), np.ones(3), 0.0)
    rng = np.random.default_rng(0)
    result = acquire(head(), still, Pose(np.eye(3), np.zeros(3)), rng, (30, 30, 20), (0.8, 0.8, 0.9), 1)
    whole = np.isin(head().tissue, (GM, WM, CSF))
    x, y, z = (n / 2 * s for n, s in ((30, 0.8), (30, 0.8), (20, 0.9)))
    grid = [head().affine[a, 3] + head().affine[a, a] * np.arange(whole.shape[a]) for a in range(3)]
    inside = whole[np.ix_(*(np.abs(g) < edge for g, edge in zip(grid, (x, y, z), strict=True)))]
    assert result.fractions.sum() * 0.8 * 0.8 * 0.9 == pytest.approx(inside.sum() * 0.125**3, rel=0.03)


def test_template(phantom):
    folder = phantom / "derivatives/templateflow/tpl-RatPhantom"
    probsegs = [data(folder / f"tpl-RatPhantom_res-1_label-{t}_probseg.nii.gz") for t in ("GM", "WM", "CSF")]
    t2w = nib.load(folder / "tpl-RatPhantom_res-1_T2w.nii.gz")
    mask = data(folder / "tpl-RatPhantom_res-1_desc-brain_mask.nii.gz")
    total = sum(probsegs)
    assert t2w.header.get_zooms() == (0.25, 0.25, 0.25)
    assert nib.aff2axcodes(t2w.affine) == ("R", "A", "S")
    assert min(p.min() for p in probsegs) >= 0
    assert total.max() <= 1 + 1e-6
    np.testing.assert_array_equal(mask > 0, total > 0.5)
    assert 1.7 < mask.sum() * 0.25**3 / 1000 < 2.1  # mL
    level = [float(np.average(t2w.get_fdata(), weights=p**4)) for p in probsegs]
    assert level[2] > level[0] > level[1]
    assert (t2w.get_fdata()[mask == 0] > 100).sum() > mask.sum()  # a whole head, not a brain
    assert json.loads((folder / "template_description.json").read_text())["Species"] == "Rattus norvegicus"


def test_templateflow_client_finds_it_offline(phantom):
    home = phantom / "derivatives/templateflow"
    before = files(home)
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise OSError('no network in this test')\n"
        "socket.socket.connect = refuse\n"
        "from templateflow import api\n"
        "paths = api.get('RatPhantom', suffix='probseg', raise_empty=True)\n"
        "print(len(paths), api.get('RatPhantom', suffix='T2w', resolution=1).name)\n"
        "print(api.get_metadata('RatPhantom')['Species'])\n"
    )
    environment = {**os.environ, "TEMPLATEFLOW_HOME": str(home)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split("\n")[:2] == ["3 tpl-RatPhantom_res-1_T2w.nii.gz", "Rattus norvegicus"]
    assert files(home) == before


def test_sessions_share_the_animal_not_the_scan(sessions):
    name = "func/sub-0{0}_ses-{1}_task-rest_bold.nii.gz"
    first, second = (data(sessions / f"sub-01/ses-{s}" / name.format(1, s)) for s in (1, 2))
    assert first.shape == second.shape
    assert not np.array_equal(first, second)
    assert len(read_tsv(sessions / "participants.tsv")) == 2


def test_same_seed_same_bytes_and_subjects_do_not_depend_on_their_number(phantom, tmp_path):
    assert main([str(tmp_path / "again"), "--n-subjects", "1", *SMALL]) == 0
    again = files(tmp_path / "again")
    original = files(phantom)
    shared = {name: digest for name, digest in original.items() if "sub-0" not in name or "sub-01" in name}
    del shared["participants.tsv"], again["participants.tsv"]
    assert again == shared


def test_another_seed_gives_other_animals(phantom, tmp_path):
    assert main([str(tmp_path / "other"), "--n-subjects", "1", "--seed", "1", *SMALL]) == 0
    name = "sub-01/func/sub-01_task-rest_bold.nii.gz"
    assert not np.array_equal(data(phantom / name), data(tmp_path / "other" / name))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--n-subjects", "0"], "--n-subjects"),
        (["--n-sessions", "-1"], "--n-sessions"),
        (["--volumes", "0"], "--volumes"),
        (["--seed", "-3"], "--seed"),
        (["--shape", "64", "7", "40"], "--shape"),
        (["--shape", "64", "64", "4000"], "--shape"),
        (["--zooms", "0.375", "0", "0.5"], "--zooms"),
        (["--zooms", "nan", "0.375", "0.5"], "--zooms"),
        (["--zooms", "0.1", "0.375", "0.5"], "field of view"),
        (["--zooms", "5", "0.375", "0.5"], "field of view"),
    ],
)
def test_absurd_numbers(tmp_path, capsys, arguments, said):
    assert main([str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_folder_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine")
    assert main([str(tmp_path), *SMALL]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert main([str(tmp_path / "kept.txt"), *SMALL]) == 2
    assert main([str(tmp_path / "kept.txt" / "below"), *SMALL]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("exists", [False, True])
def test_interruption_leaves_nothing(tmp_path, monkeypatch, exists):
    out = tmp_path / "out"
    if exists:
        out.mkdir()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "write_scan", interrupt)
    assert main([str(out), *SMALL]) == 130
    assert out.exists() == exists
    assert not exists or not any(out.iterdir())


def test_options_are_checked_before_anything_heavy():
    with pytest.raises(UserError, match="at least 1"):
        check(PhantomOptions(Path("x"), n_subjects=0))
    check(PhantomOptions(Path("x")))


def test_help_is_light(tmp_path):
    command = shutil.which("bids-alphagan-phantom", path=str(Path(sys.executable).parent))
    run = subprocess.run(
        [sys.executable, "-X", "importtime", command, "--help"], capture_output=True, text=True, check=True
    )
    for option in ("n-subjects", "n-sessions", "volumes", "shape", "zooms", "seed"):
        assert f"--{option}" in run.stdout
    assert "(default: 24)" in run.stdout
    assert not any(name in run.stderr for name in ("numpy", "nibabel", "scipy", "torch"))


def test_stopped_phantom_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [Path(sys.executable).with_name("bids-alphagan-phantom"), out, "--n-subjects", "50"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(out.glob(".building-*/*")):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    assert not out.exists() or not list(out.iterdir())
