"""Names, selection and metadata of raw scans; what the group level finds of the participant level."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tiny
from users import as_user, folder_for_all

from bids_alphagan.bids import derivatives, raw
from bids_alphagan.bids.names import ScanName, sidecar, uri
from bids_alphagan.bids.prepared import PreparedScan, prepared_scans, synthetic_scans
from bids_alphagan.cli import main as cli
from bids_alphagan.common.errors import UserError


@pytest.mark.parametrize(
    ("path", "subject", "session"),
    [
        ("sub-01/func/sub-01_task-rest_bold.nii.gz", "01", None),
        ("sub-rat+7/ses-w8/anat/sub-rat+7_ses-w8_acq-rare_run-02_T2w.nii.gz", "rat+7", "w8"),
        ("sub-A/ses-1/func/sub-A_ses-1_task-rest_acq-x_dir-AP_run-1_echo-2_part-mag_bold.nii.gz", "A", "1"),
        ("sub-01/anat/sub-01_T2starw.nii.gz", "01", None),
    ],
)
def test_a_name_is_read_and_written_back(path: str, subject: str, session: str | None) -> None:
    name = ScanName.parse(Path(path).name)
    assert name.image() == Path(path)
    assert (name.subject, name.session) == (subject, session)
    assert ScanName.parse(Path(path).name.removesuffix(".gz")) == name
    assert hash(name) == hash(ScanName.parse(Path(path).name))


@pytest.mark.parametrize(
    "filename",
    [
        "bold.nii.gz",
        "notes.txt",
        "sub-01_rest_bold.nii.gz",
        "ses-1_sub-01_bold.nii.gz",
        ".writing-x-sub-01_T2w.nii.gz",
    ],
)
def test_other_names_are_refused(filename: str) -> None:
    with pytest.raises(ValueError, match=filename.replace(".", r"\.")):
        ScanName.parse(filename)


def test_derived_names_keep_entities_and_the_order_of_bids() -> None:
    name = ScanName.parse("sub-01_ses-a_task-rest_run-1_bold.nii.gz")
    folder, stem = Path("sub-01/ses-a/func"), "sub-01_ses-a_task-rest_run-1"
    assert name.image("preproc") == folder / f"{stem}_desc-preproc_bold.nii.gz"
    derived = name.derived("probseg", ".json", desc="x", label="GM", res="2", space="T1w")
    assert derived == folder / f"{stem}_space-T1w_res-2_label-GM_desc-x_probseg.json"
    assert name.without("run", "ses").stem == "sub-01_task-rest"


@pytest.mark.parametrize(
    ("suffix", "space"), [("T2w", ""), ("T1w", "_space-T1w"), ("T2starw", "_space-T2starw")]
)
@pytest.mark.parametrize("desc", [None, "synthetic"])
def test_masks_of_two_contrasts_have_different_names(suffix: str, space: str, desc: str | None) -> None:
    mark = f"_desc-{desc}" if desc else ""
    assert ScanName.parse(f"sub-01_{suffix}.nii").masks(desc) == {
        "GM": Path(f"sub-01/anat/sub-01{space}_label-GM{mark}_probseg.nii.gz"),
        "WM": Path(f"sub-01/anat/sub-01{space}_label-WM{mark}_probseg.nii.gz"),
        "CSF": Path(f"sub-01/anat/sub-01{space}_label-CSF{mark}_probseg.nii.gz"),
        "dseg": Path(f"sub-01/anat/sub-01{space}{mark}_dseg.nii.gz"),
        "brain": Path(f"sub-01/anat/sub-01{space}_desc-brain_mask.nii.gz"),
    }


def test_sidecar_and_uri() -> None:
    assert (
        sidecar(Path("a/sub-01_T2w.nii.gz")) == sidecar(Path("a/sub-01_T2w.nii")) == Path("a/sub-01_T2w.json")
    )
    assert uri(Path("sub-01/anat/sub-01_T2w.nii.gz"), "raw") == "bids:raw:sub-01/anat/sub-01_T2w.nii.gz"
    assert uri(Path("sub-a+b/x y.nii")) == "bids::sub-a%2Bb/x%20y.nii"


FUNC_A, ANAT_A = "sub-01/ses-a/func/sub-01_ses-a_task-", "sub-01/ses-a/anat/sub-01_ses-a_"
SCANS = [
    FUNC_A + "rest_acq-hi_bold.nii.gz",
    FUNC_A + "rest_run-1_part-mag_bold.nii.gz",
    FUNC_A + "rest_run-2_bold.nii",
    FUNC_A + "whisker_bold.nii.gz",
    ANAT_A + "T2w.nii.gz",
    "sub-01/ses-b/func/sub-01_ses-b_task-rest_bold.nii.gz",
    "sub-02/anat/sub-02_T2w.nii.gz",
]
OTHER_CONTRAST = ANAT_A + "T1w.nii.gz"
# None of these is a scan to work on.
DECOYS = [
    FUNC_A + "rest_run-1_part-phase_bold.nii.gz",
    FUNC_A + "rest_sbref.nii.gz",
    ANAT_A + "desc-brain_T2w.nii.gz",
    ANAT_A + "space-SIGMA_T2w.nii.gz",
    "sub-01/ses-a/anat/sub-01_ses-a_old_T2w.nii.gz",
    "sub-01/ses-a/anat/sub-02_ses-a_T2w.nii.gz",
    "results/sub-01/anat/sub-01_desc-preproc_T2w.nii.gz",
    "derivatives/other/sub-01/anat/sub-01_T2w.nii.gz",
    "sourcedata/sub-01/anat/sub-01_T2w.nii.gz",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny.dataset(tmp_path_factory.mktemp("layout") / "data")
    for path in (*SCANS, OTHER_CONTRAST, *DECOYS):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    facts = {
        "task-rest_bold.json": {
            "TaskName": "rest",
            "RepetitionTime": 2.0,
            "EchoTime": 0.0175,
            "From": "root",
        },
        "sub-01/ses-a/sub-01_ses-a_task-rest_bold.json": {"RepetitionTime": 1.5, "From": "session"},
        FUNC_A + "rest_run-2_bold.json": {"From": "scan"},
    }
    for path, content in facts.items():
        (root / path).write_text(json.dumps(content))
    return root


def find(data: Path, *words: object) -> list[raw.RawScan]:
    """The scans that these options select."""
    config = cli.parse([str(word) for word in (data, "out", "participant", *words)])
    return raw.find_scans(config.bids_dir, config.selection)


def found(data: Path, *words: object) -> list[str]:
    return [scan.path.relative_to(data).as_posix() for scan in find(data, *words)]


def test_finds_sessions_runs_and_magnitudes_and_nothing_else(
    data: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("bids_alphagan"), "propagate", True)
    assert found(data) == sorted(SCANS)
    told = [path for path in DECOYS if str(data / path) in caplog.text]
    assert told == DECOYS[2:7]  # what looks like a scan, and is none, is told of


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--participant-label", "sub-02"], SCANS[6:]),
        (["--participant-label", "01", "02"], SCANS),
        (["--session-label", "ses-b"], SCANS[5:6]),
        (["--session-label", "a", "--suffix", "bold"], SCANS[:4]),
        (["--task-id", "whisker"], [SCANS[3], SCANS[4], SCANS[6]]),  # anatomical scans have no task
        (["--task-id", "task-whisker", "--suffix", "bold"], SCANS[3:4]),
        (["--suffix", "T1w"], [OTHER_CONTRAST]),
        (["--suffix", "T1w", "T2w", "--session-label", "a"], [OTHER_CONTRAST, SCANS[4]]),
    ],
)
def test_labels_and_suffixes_select(data: Path, words: list[str], wanted: list[str]) -> None:
    assert found(data, *words) == sorted(wanted)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"bold": {"acquisition": "hi"}}, [SCANS[0], SCANS[4], SCANS[6]]),
        (
            {"bold": {"acquisition": None, "task": "rest", "session": "a"}, "T2w": {"session": "b"}},
            SCANS[1:3],
        ),
        ({"bold": {"run": [2]}, "T2w": {"subject": "01"}}, [SCANS[2], SCANS[4]]),
        (
            {"bold": {"datatype": "func", "suffix": "bold", "extension": ".nii"}},
            [SCANS[2], SCANS[4], SCANS[6]],
        ),
    ],
)
def test_filter_file(data: Path, tmp_path: Path, filters: dict, wanted: list[str]) -> None:
    path = tmp_path / "filters.json"
    path.write_text(json.dumps(filters))
    assert found(data, "--bids-filter-file", path) == sorted(wanted)


def test_filters_narrow_what_the_labels_select(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "filters.json"
    path.write_text(json.dumps({"bold": {"session": "a"}}))
    words = ("--suffix", "bold", "--bids-filter-file", path)
    assert found(data, *words)
    assert all("ses-a" in name for name in found(data, *words))
    with pytest.raises(UserError, match="no bold scan matches the selection"):
        found(data, *words, "--session-label", "b")


def test_metadata_is_inherited_the_nearer_wins(data: Path) -> None:
    scans = find(data, "--suffix", "bold")
    metadata = {scan.path.relative_to(data).as_posix(): scan.metadata for scan in scans}
    common = {"TaskName": "rest", "EchoTime": 0.0175}
    assert metadata[SCANS[2]] == common | {"RepetitionTime": 1.5, "From": "scan"}
    assert metadata[SCANS[1]] == common | {"RepetitionTime": 1.5, "From": "session"}
    assert metadata[SCANS[5]] == common | {"RepetitionTime": 2.0, "From": "root"}
    assert metadata[SCANS[3]] == {}


def test_data_set_behind_a_link_and_dots(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    assert found(tmp_path / "link") == sorted(SCANS)
    assert found(data / ".." / data.name) == sorted(SCANS)


@pytest.mark.parametrize(
    ("table", "wanted"),
    [
        (None, {}),
        ("participant_id\tsex\nsub-01\tF\n", {}),
        (
            "participant_id\tspecies\nsub-01\tRattus Norvegicus \nsub-02\tn/a\nsub-03\nsub-04\tmus musculus",
            {"01": "rattus norvegicus", "04": "mus musculus"},
        ),
        ("\ufeffparticipant_id\tspecies\r\nsub-01\tMus musculus\r\n", {"01": "mus musculus"}),
    ],
)
def test_species(tmp_path: Path, table: str | None, wanted: dict[str, str]) -> None:
    if table is not None:
        (tmp_path / "participants.tsv").write_bytes(table.encode())
    assert raw.species(tmp_path) == wanted


def prepare(out: Path, filename: str, grid: int = 64, masks: bool = False) -> ScanName:
    """Write what the participant level leaves of a scan; the group level's selection reads no voxels."""
    name = ScanName.parse(filename)
    paths = {name.image("preproc"): {"Preparation": {"PaddedGrid": [grid] * 3}}, name.image("reference"): {}}
    if masks:
        paths |= {path: {"Quality": {"brain_mm3": 1800.0}} for path in name.masks().values()}
    for path, facts in paths.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).touch()
        sidecar(out / path).write_text(json.dumps(facts))
    return name


def prepared(out: Path, *words: str) -> list[PreparedScan]:
    config = cli.parse(["in", str(out), "group", *words])
    return prepared_scans(config.bids_dir, config.output_dir, config.selection, config.grid)


def test_prepared_scans_are_found_with_masks_and_selected(tmp_path: Path) -> None:
    first = prepare(tmp_path, "sub-01_ses-a_task-rest_bold.nii.gz", masks=True)
    second = prepare(tmp_path, "sub-01_ses-b_task-rest_run-1_bold.nii.gz")
    third = prepare(tmp_path, "sub-02_task-whisker_bold.nii.gz")
    # What a run that was killed, or still runs, leaves beside them; and a cohort of the group level.
    (tmp_path / third.folder / ".writing-abc-sub-02_task-whisker_desc-preproc_bold.nii.gz").touch()
    prepare(tmp_path / "derivatives" / "adni", "sub-synth0001_task-rest_bold.nii.gz")

    scans = prepared(tmp_path)
    assert [scan.name for scan in scans] == [first, second, third]
    assert scans[0].preproc == tmp_path / first.image("preproc")
    assert scans[0].reference == tmp_path / first.image("reference")
    assert scans[0].masks == {key: tmp_path / path for key, path in first.masks().items()}
    assert scans[0].quality == {"brain_mm3": 1800.0}
    assert (scans[1].masks, scans[1].quality) == ({}, {})
    for words, wanted in (
        (["--participant-label", "02"], [third]),
        (["--session-label", "a", "b"], [first, second]),
        (["--task-id", "rest"], [first, second]),
        (["--participant-label", "01", "--session-label", "b"], [second]),
    ):
        assert [scan.name for scan in prepared(tmp_path, *words)] == wanted


def _nothing(out: Path) -> None:
    pass


def _two_kinds(out: Path) -> None:
    prepare(out, "sub-01_T2w.nii.gz")
    prepare(out, "sub-01_task-rest_bold.nii.gz")


def _two_grids(out: Path) -> None:
    prepare(out, "sub-01_T2w.nii.gz")
    prepare(out, "sub-02_T2w.nii.gz", grid=32)


def _foreign(out: Path) -> None:
    sidecar(out / prepare(out, "sub-01_T2w.nii.gz").image("preproc")).write_text('{"SkullStripped": false}')


def _no_sidecar(out: Path) -> None:
    sidecar(out / prepare(out, "sub-01_T2w.nii.gz").image("preproc")).unlink()


def _damaged_mask_sidecar(out: Path) -> None:
    name = prepare(out, "sub-01_T2w.nii.gz", masks=True)
    sidecar(out / name.masks()["dseg"]).write_text("{")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_nothing, r"no participant outputs.*bids-alphagan .*in .* participant$"),
        (_two_kinds, r"several kinds \(T2w, bold\).*--suffix T2w"),
        (_two_grids, r"sub-02.*grid of 32 voxels, not 64.*--grid"),
        (_foreign, r"sub-01_desc-preproc_T2w.*'Preparation'.*run participant again"),
        (_no_sidecar, r"sub-01_desc-preproc_T2w.*FileNotFoundError.*run participant again"),
        (_damaged_mask_sidecar, r"sub-01_desc-preproc_T2w.*JSONDecodeError.*run participant again"),
    ],
)
def test_outputs_that_the_group_level_cannot_use(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path)
    with pytest.raises(UserError, match=message):
        prepared(tmp_path)


def test_a_suffix_chooses_among_kinds(tmp_path: Path) -> None:
    _two_kinds(tmp_path)
    assert [scan.name.suffix for scan in prepared(tmp_path, "--suffix", "T2w")] == ["T2w"]


def test_bold_is_4d_and_anatomical_scans_are_3d_whatever_the_raw_file_is(tmp_path: Path) -> None:
    data = tiny.values().astype(np.float32)
    cube = nib.Nifti1Image(np.zeros((16, 16, 16), np.float32), tiny.AFFINE)
    for suffix, shape in (("bold", (7, 8, 9, 1)), ("T2w", (7, 8, 9))):
        for volumes in (None, 1, 3):
            name = ScanName.parse(f"sub-01_task-rest_{suffix}.nii.gz")
            like = nib.load(tiny.scan(tmp_path / "raw.nii.gz", tiny.values(volumes=volumes)))
            derivatives.write_prepared(tmp_path, name, like, "bids:raw:x", data, cube, {}, {})
            image = nib.load(tmp_path / name.image("reference"))
            assert image.shape == shape
            np.testing.assert_array_equal(np.squeeze(image.get_fdata()), data)
            preproc = nib.load(tmp_path / name.image("preproc"))
            assert preproc.shape == (16, 16, 16, 1)[: len(shape)]


@pytest.mark.parametrize(
    ("unit", "stored", "metadata", "wanted"),
    [
        ("sec", 2.0, {}, 2.0),
        ("msec", 2000.0, {}, 2.0),
        ("sec", 0.0, {"RepetitionTime": 1.5}, 1.5),
        ("sec", 1.0, {"RepetitionTime": 1.5}, 1.5),
        ("sec", 0.0, {}, None),
    ],
)
def test_repetition_time_is_in_seconds_and_one_in_header_and_sidecar(
    tmp_path: Path, unit: str, stored: float, metadata: dict, wanted: float | None
) -> None:
    name = ScanName.parse("sub-01_task-rest_bold.nii.gz")
    raw_scan = nib.load(tiny.scan(tmp_path / "raw.nii.gz", tiny.values(volumes=2)))
    raw_scan.header.set_xyzt_units("mm", unit)
    raw_scan.header["pixdim"][4] = stored
    cube = nib.Nifti1Image(np.zeros((16, 16, 16), np.float32), tiny.AFFINE)
    data = tiny.values().astype(np.float32)
    derivatives.write_prepared(tmp_path, name, raw_scan, "bids:raw:x", data, cube, {}, metadata)
    facts = json.loads(sidecar(tmp_path / name.image("preproc")).read_text())
    assert facts.get("RepetitionTime") == wanted
    if wanted:
        header = nib.load(tmp_path / name.image("preproc")).header
        assert header["pixdim"][4] == pytest.approx(wanted)
        assert header.get_xyzt_units() == ("mm", "sec")


def test_synthetic_names(tmp_path: Path) -> None:
    like = ScanName.parse("sub-01_ses-a_task-rest_acq-hi_run-1_bold.nii.gz")
    name = derivatives.synthetic_name(7, like)
    assert name.image() == Path("sub-synth0007/func/sub-synth0007_task-rest_acq-hi_bold.nii.gz")
    for path in (name.image(), *name.masks("synthetic").values()):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / name.folder / f".writing-abc-{name.image().name}").touch()
    assert synthetic_scans(tmp_path) == [tmp_path / name.image()]


def test_descriptions_name_maker_and_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDS_ALPHAGAN_CONTAINER", "docker:bids-alphagan:0.1")
    source = tmp_path / "my data"
    derivatives.describe_output(tmp_path / "out", source)
    derivatives.describe_cohort(tmp_path / "out" / "derivatives" / "adni", "adni", source)
    for folder, links in (("out", {"raw"}), ("out/derivatives/adni", {"raw", "alphagan"})):
        content = json.loads((tmp_path / folder / "dataset_description.json").read_text())
        assert content["DatasetType"] == "derivative"
        assert set(content["DatasetLinks"]) == links
        assert content["DatasetLinks"]["raw"] == source.as_uri()
        assert content["SourceDatasets"] == [{"URL": url} for url in content["DatasetLinks"].values()]
        maker = content["GeneratedBy"][0]
        assert maker["Name"] == "bids-alphagan"
        assert maker["Container"] == {"Type": "docker", "Tag": "bids-alphagan:0.1"}
        assert (tmp_path / folder / "dseg.tsv").read_text().splitlines()[1:] == [
            "1\tGray Matter\tGM",
            "2\tWhite Matter\tWM",
            "3\tCerebrospinal Fluid\tCSF",
        ]


def test_other_animals_folders_are_not_looked_at(tmp_path: Path) -> None:
    root = tiny.dataset(tmp_path / "data")
    for label in ("1", "01", "010", "a+1"):
        tiny.scan(root / f"sub-{label}/func/sub-{label}_task-rest_bold.nii.gz", tiny.values(volumes=2))
    (root / "task-rest_bold.json").write_text('{"EchoTime": 0.5}')
    (root / "sub-010/func/sub-010_task-rest_bold.json").write_text("{")
    (root / "code").mkdir()
    (root / "code" / "sub-01_bold.json").write_text("{")
    for wanted in (["01"], ["01", "1"], ["a+1"]):
        scans = find(root, "--participant-label", *wanted)
        assert [scan.name.subject for scan in scans] == wanted
        assert all(scan.metadata["EchoTime"] == 0.5 for scan in scans)
    with pytest.raises(UserError, match="pybids cannot read"):
        find(root)


def test_animals_by_their_names_alone(data: Path) -> None:
    def labels(*words: str) -> list[str]:
        config = cli.parse([str(data), "out", "participant", *words])
        return raw.animals(config.bids_dir, config.selection)

    known = {scan.name.subject for scan in find(data)}
    assert set(labels()) == known
    first = min(known)
    assert labels("--participant-label", f"sub-{first}") == [first]
    with pytest.raises(UserError, match="unknown participant label nobody"):
        labels("--participant-label", "nobody")
    with pytest.raises(UserError, match="no participant has a T2starw scan"):
        labels("--suffix", "T2starw")


@pytest.mark.parametrize(("mode", "below"), [(0o000, ""), (0o711, ""), (0o000, "data")])
def test_a_data_set_that_may_not_be_read_is_one_clear_error(mode: int, below: str) -> None:
    with folder_for_all() as place:
        (place / "closed").chmod(0o700)
        tiny.scan(place / "closed" / below / "sub-01/anat/sub-01_T2w.nii.gz", tiny.values())
        tiny.dataset(place / "closed" / below)
        (place / "closed").chmod(mode)
        with pytest.raises(UserError, match=r"closed\S*: cannot be read \(Permission denied\)"):
            as_user(lambda: raw.check_dataset(place / "closed" / below))


def test_an_animal_that_may_not_be_read_is_named_and_can_be_left_out() -> None:
    import bids.layout  # noqa: F401 # its own files may be for root alone

    with folder_for_all() as place:
        data = tiny.dataset(place / "home" / "data")
        for label in ("01", "02"):
            tiny.scan(data / f"sub-{label}/anat/sub-{label}_T2w.nii.gz", tiny.values())
        for path in (data, *data.rglob("*")):
            path.chmod(0o755)
        (data / "sub-02").chmod(0)
        with pytest.raises(UserError, match=r"data/sub-02: cannot be read .*--participant-label"):
            as_user(lambda: find(data))
        rest = as_user(lambda: find(data, "--participant-label", "01"))
        assert [scan.name.subject for scan in rest] == ["01"]
        (data / "sub-02").chmod(0o700)
