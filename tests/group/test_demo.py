"""The demo, smaller: a rat data set goes in, a cohort with masks comes out. By the real commands."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest
from bids import BIDSLayout
from paths import ROOT

from bids_alphagan.bids.names import ScanName
from bids_alphagan.common.files import read_json, read_tsv

FIXED = ("suffix", "extension", "datatype")
# A few iterations make no rat: the limits are opened wide here. What they reject is tested in tests/qc.
SHORT = ("--iterations", "24", "--n-synthetic", "2", "--qc-width", "1e9")
CHANGING = [  # (pattern, what it becomes in the list of files): names that hold times and random ids
    (r"(participant|group)_\d{8}-\d{6}_[0-9a-f]{8}", r"\1_RUN"),
    (r"events\.out\.tfevents\..*", "events.out.tfevents"),
]


def app(*words: object, code: int = 0, **environment: str) -> str:
    """Run the app by its command; what it said. Asserts the exit code."""
    command = [sys.executable, "-m", "bids_alphagan", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def prepared(heads: Path, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the participant level makes of four heads."""
    out = tmp_path_factory.mktemp("demo") / "out"
    app(heads, out, "participant", "--preset", "demo", "--template", template)
    return out


@pytest.fixture(scope="module")
def group(heads: Path, template: Path, prepared: Path) -> list[object]:
    """The words of the group command that made `demo`."""
    words = [heads, prepared, "group", "--preset", "demo", "--template", template]
    return [*words, *SHORT]


@pytest.fixture(scope="module")
def demo(prepared: Path, group: list[object]) -> Path:
    """The whole run's output. Tests leave it as it is."""
    app(*group)
    return prepared


@pytest.fixture
def other(prepared: Path, tmp_path: Path) -> Path:
    """A copy of the participant level's output, for another group run."""
    keep = shutil.ignore_patterns("models", "derivatives", "group*", ".work", "logs")
    shutil.copytree(prepared, tmp_path / "out", ignore=keep)
    return tmp_path / "out"


@pytest.fixture(scope="module")
def cohort(demo: Path) -> Path:
    return demo / "derivatives" / "sigmarat2"


def files(root: Path) -> list[str]:
    """Every file in the output, sorted, without the work folder and with changing names made equal."""
    names = []
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not name.startswith(".work/"):
            for pattern, same in CHANGING:
                name = re.sub(pattern, same, name)
            names.append(name)
    return sorted(names)


def images(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("sub-*/**/*.nii.gz"))


def scans(folder: Path) -> dict[str, bytes]:
    return {path.name: nib.load(path).dataobj.get_unscaled().tobytes() for path in images(folder)}


def test_exact_list_of_files(demo: Path) -> None:
    stored = (ROOT / "tests" / "demo_files.txt").read_text().split()
    assert files(demo) == stored


def test_bids_validator_finds_no_error(heads: Path, demo: Path, cohort: Path) -> None:
    validator = Path(sys.executable).with_name("bids-validator-deno")
    for folder in (heads, demo, cohort):
        answer = subprocess.run([validator, "--json", folder], capture_output=True, text=True)
        found = json.loads(answer.stdout)["issues"]["issues"]
        assert [issue for issue in found if issue["severity"] == "error"] == []
        assert json.loads(answer.stdout)["summary"]["totalFiles"] > 0


def test_pybids_finds_every_image_by_its_entities(demo: Path, cohort: Path) -> None:
    words = {"sub": "subject", "label": "label", "desc": "desc", "task": "task", "ses": "session"}
    for root in (demo, cohort):
        layout = BIDSLayout(root, is_derivative=True, validate=False)
        assert list(images(root))
        for path in images(root):
            name = ScanName.parse(path.name)
            entities = {words[key]: value for key, value in name.entities}
            found = layout.get(**entities, suffix=name.suffix, extension=".nii.gz")
            assert str(path) in [file.path for file in found]
            exact = [file for file in found if set(file.get_entities()) <= {*entities, *FIXED}]
            assert [file.path for file in exact] == [str(path)]


def test_any_bids_app_finds_the_synthetic_scans(cohort: Path) -> None:
    layout = BIDSLayout(cohort)
    assert layout.get_subjects() == ["synth0001", "synth0002"]
    found = layout.get(suffix="bold", extension=".nii.gz")
    assert len(found) == 2
    assert found[0].get_metadata()["RepetitionTime"] == nib.load(found[0].path).header["pixdim"][4]


def resolved(uri: str, root: Path) -> Path:
    """The file that a BIDS URI in data set `root` means."""
    name, path = re.fullmatch(r"bids:([^:]*):(.*)", uri).groups()
    if not name:
        return root / unquote(path)
    link = read_json(root / "dataset_description.json")["DatasetLinks"][name]
    base = Path(unquote(link.removeprefix("file://"))) if link.startswith("file:") else root / link
    return base / unquote(path)


def test_sources_exist(demo: Path, cohort: Path) -> None:
    for root in (demo, cohort):
        sidecars = sorted(root.glob("sub-*/**/*.json"))
        assert len(sidecars) == len(list(images(root)))
        for sidecar in sidecars:
            facts = read_json(sidecar)
            assert facts["Description"]
            for uri in [*facts["Sources"], *filter(None, [facts.get("SpatialReference")])]:
                assert resolved(uri, root).is_file(), (sidecar, uri)


def test_masks_are_probabilities_on_the_scans_grid(demo: Path, cohort: Path) -> None:
    for root, scan in ((demo, "desc-reference_bold"), (cohort, "task-rest_bold")):
        found = list(root.glob(f"sub-*/func/*{scan}.nii.gz"))
        assert len(found) == (4 if root == demo else 2)
        for path in found:
            image = nib.load(path)
            folder = path.parent
            maps = [nib.load(next(folder.glob(f"*label-{t}*probseg.nii.gz"))) for t in ("GM", "WM", "CSF")]
            dseg = nib.load(next(folder.glob("*dseg.nii.gz")))
            brain = nib.load(next(folder.glob("*desc-brain_mask.nii.gz")))
            for mask in (*maps, dseg, brain):
                assert mask.shape == image.shape[:3]
                np.testing.assert_array_equal(mask.affine, image.affine)
            values = np.stack([mask.get_fdata() for mask in maps])
            assert values.min() >= 0
            assert values.max() > 0.5
            assert values.sum(axis=0).max() <= 1 + 1e-6
            labels, inside = np.asarray(dseg.dataobj), np.asarray(brain.dataobj) > 0
            assert set(np.unique(labels)) == {0, 1, 2, 3}
            np.testing.assert_array_equal(labels[inside], values.argmax(axis=0)[inside] + 1)
            assert not labels[~inside].any()


def test_synthetic_headers_are_those_of_the_real_scan_named(cohort: Path) -> None:
    for path in cohort.glob("sub-*/func/*_bold.nii.gz"):
        facts = read_json(Path(str(path).replace(".nii.gz", ".json")))
        assert facts["Sources"] == [facts["GeometryFrom"]]
        synthetic, real = nib.load(path), nib.load(resolved(facts["GeometryFrom"], cohort))
        assert synthetic.shape == real.shape
        np.testing.assert_array_equal(synthetic.affine, real.affine)
        for key in set(real.header) - {"scl_slope", "scl_inter"}:
            np.testing.assert_array_equal(synthetic.header[key], real.header[key], err_msg=key)
        # drawn, not copied
        assert not np.array_equal(np.asarray(synthetic.dataobj), np.asarray(real.dataobj))


def test_cohort_tells_seed_and_quality(cohort: Path) -> None:
    rows = read_tsv(cohort / "participants.tsv")
    described = read_json(cohort / "participants.json")
    assert [row["participant_id"] for row in rows] == ["sub-synth0001", "sub-synth0002"]
    assert set(rows[0]) == set(described)
    for row in rows:
        facts = read_json(next((cohort / row["participant_id"]).glob("func/*_bold.json")))
        assert facts["RandomSeed"] == int(row["seed"])
        assert facts["QualityControl"]["Measures"]["brain_volume"] == float(row["brain_volume"])
        assert facts["Model"] == "sigmarat2"


def test_metrics_table(demo: Path) -> None:
    rows = read_tsv(demo / "group_metrics.tsv")
    head = ["model", "metric", "against", "value", "low", "high", "sd", "sd_passes", "n", "unit", "direction"]
    assert list(rows[0]) == head
    assert {row["metric"] for row in rows} == {"MS-SSIM", "NCC", "MAE", "RMSE", "PSNR", "MMD"}
    assert {row["model"] for row in rows} == {"real", "real+noise", "sigmarat2"}
    assert {row["against"] for row in rows} == {"itself", "held-out"}


def test_one_of_four_animals_is_seen_by_no_model(demo: Path) -> None:
    sides = {row["participant_id"]: row["split"] for row in read_tsv(demo / "group_split.tsv")}
    assert sorted(sides.values()) == ["held-out", "training", "training", "training"]
    (held,) = (animal for animal, side in sides.items() if side == "held-out")
    synthesis = read_json(demo / "models" / "sigmarat2" / "synthesis.json")["record"]
    seen = {name.split("_")[0] for name in synthesis["scans"]}
    assert seen == set(sides) - {held}
    assert read_json(demo / "models" / "sigmarat2" / "config.json")["data"]["scans"] == 3


def test_same_seed_same_scans_other_seed_others(heads: Path, cohort: Path, other: Path) -> None:
    words = [heads, other, "group", "--preset", "demo", "--segmenter", "none", *SHORT]
    app(*words, "--steps", "train", "synthesise")
    known = {name: data for name, data in scans(cohort).items() if name.endswith("_bold.nii.gz")}
    assert scans(other / "derivatives" / "sigmarat2") == known
    app(*words, "--steps", "train", "synthesise", "--seed", "1")
    again = scans(other / "derivatives" / "sigmarat2")
    assert again.keys() == known.keys()
    assert all(again[name] != known[name] for name in known)
    # What was trained before is kept.
    assert len(list((other / "models").glob("sigmarat2*"))) == 2
    # A report tells of nothing that was made from other networks.
    assert "made with other seed" in app(*words, "--steps", "report", code=2)
    more = [*words, "--seed", "1", "--iterations", "26"]
    assert "made with other generator" in app(*more, "--steps", "train", "report", code=2)


def test_finished_steps_are_kept_until_something_changes(demo: Path, group: list[object]) -> None:
    kept = ["models/sigmarat2/generator.safetensors", "models/sigmarat2/losses.tsv", "group_metrics.tsv"]
    kept += [path.relative_to(demo).as_posix() for path in images(demo / "derivatives" / "sigmarat2")]
    before = {name: (demo / name).stat().st_mtime_ns for name in kept}
    said = app(*group)
    assert said.count("nothing has changed") == 6  # training, synthesis, evaluation, three statistics
    assert {name: (demo / name).stat().st_mtime_ns for name in kept} == before
    said = app(*group, "--pairs-per-scan", "1", "--steps", "evaluate")
    assert read_json(demo / "models" / "evaluation.json")["record"]["more"]["pairs_per_scan"] == 1
    assert "pairs: nothing has changed" not in said
    assert said.count("nothing has changed") == 3  # the statistics know no pairs
    app(*group, "--steps", "evaluate")  # and back again


def test_all_models_without_masks_where_nipype_and_pybids_are_missing(heads: Path, other: Path) -> None:
    words = [heads, other, "group", "--preset", "demo", "--segmenter", "none", *SHORT]
    words += ["--model", "adni", "sigmarat1", "sigmarat2", "--iterations", "2", "--channels", "2"]
    blocked = "import sys; sys.modules.update(dict.fromkeys(['nipype', 'bids', 'ants', 'templateflow']));"
    code = f"{blocked} from bids_alphagan.cli.main import main; sys.exit(main(sys.argv[1:]))"
    steps = ["--steps", "train", "synthesise"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, [*words, *steps])], stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    app(*words, "--steps", "evaluate", "report")
    table = read_tsv(other / "group_metrics.tsv")
    assert {row["model"] for row in table} == {"real", "real+noise", "adni", "sigmarat1", "sigmarat2"}
    page = (other / "group.html").read_text()
    assert all(title in page for title in ("α-WGAN-ADNI", "α-WGAN-SigmaRat1", "α-WGAN-SigmaRat2"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_stopped_and_resumed_is_the_same(
    heads: Path, demo: Path, other: Path, number: signal.Signals
) -> None:
    words = [heads, other, "group", "--preset", "demo", "--segmenter", "none", *SHORT, "--steps", "train"]
    words += ["--log-every", "1"]
    command = [sys.executable, "-m", "bids_alphagan", *map(str, words)]
    losses = other / "models" / "sigmarat2" / "losses.tsv"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (losses.is_file() and len(losses.read_text().split("\n")) > 4):
            time.sleep(0.02)
        process.send_signal(number)
        said = process.communicate()[1]
    assert process.returncode == 128 + number, said[-3000:]
    assert "The same command resumes from here" in said
    app(*words)
    generator = Path("models") / "sigmarat2" / "generator.safetensors"
    assert (other / generator).read_bytes() == (demo / generator).read_bytes()
