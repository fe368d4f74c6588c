"""Templates are found offline, by TemplateFlow's names and SIGMA's, and checked."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bids_alphagan.errors import UserError
from bids_alphagan.templates import find_template

SHAPE = (7, 8, 9)


def image(path: Path, data: np.ndarray | float = 0.3, zoom: float = 0.25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.broadcast_to(np.asarray(data, dtype=np.float32), SHAPE)
    nib.save(nib.Nifti1Image(np.array(values), np.diag([zoom, zoom, zoom, 1])), path)
    return path


def flow(
    home: Path, name: str, entities: str = "", tissue: str = "label", suffix: str = "T2w", zoom: float = 0.25
) -> Path:
    """A template under TemplateFlow's names."""
    folder = home / f"tpl-{name}"
    if "cohort" in entities:
        folder /= entities.strip("_")
    stem = f"tpl-{name}{entities}"
    image(folder / f"{stem}_{suffix}.nii.gz", 100, zoom)
    image(folder / f"{stem}_desc-brain_mask.nii.gz", 1, zoom)
    for part in ("GM", "WM", "CSF"):
        image(folder / f"{stem}_{tissue}-{part}_probseg.nii.gz", 0.3, zoom)
    return folder


def test_label_and_desc_and_cohort(tmp_path: Path) -> None:
    flow(tmp_path, "Fischer344")
    folder = flow(tmp_path, "RESILIENT", "_cohort-2", tissue="desc", suffix="T1w")
    image(folder / "tpl-RESILIENT_cohort-2_desc-brain_T1w.nii.gz", 50)
    fischer = find_template("Fischer344", tmp_path, download=False)
    assert fischer.gm.name == "tpl-Fischer344_label-GM_probseg.nii.gz"
    assert fischer.species == "rattus norvegicus"
    assert "10.1038/s41598-020-63965-x" in fischer.citation
    resilient = find_template("RESILIENT:cohort-2", tmp_path, download=False)
    assert resilient.name == "RESILIENT:cohort-2"
    assert resilient.t2w.name == "tpl-RESILIENT_cohort-2_T1w.nii.gz"
    assert resilient.csf.name == "tpl-RESILIENT_cohort-2_desc-CSF_probseg.nii.gz"
    with pytest.raises(UserError, match="cohort-3"):
        find_template("RESILIENT:cohort-3", tmp_path, download=False)


def test_templateflow_home_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow(tmp_path, "Lab")
    monkeypatch.setenv("TEMPLATEFLOW_HOME", str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    found = find_template("Lab")
    assert found.t2w.parent == tmp_path / "tpl-Lab"
    assert found.species is None
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("zooms", "chosen"), [((0.05, 0.1, 0.25, 0.4), "res-3"), ((0.5, 0.4), "res-2"), ((0.3, 0.2), "res-1")]
)
def test_coarsest_resolution_that_is_fine_enough(
    tmp_path: Path, zooms: tuple[float, ...], chosen: str
) -> None:
    for index, zoom in enumerate(zooms, start=1):
        flow(tmp_path, "Many", f"_res-{index}", zoom=zoom)
    found = find_template("Many", tmp_path, download=False)
    assert {chosen in path.name for path in (found.t2w, found.brain_mask, found.gm, found.wm, found.csf)} == {
        True
    }


def test_other_masks_and_contrasts_are_passed_over(tmp_path: Path) -> None:
    folder = flow(tmp_path, "Fischer344")
    for extra in (
        "hemi-L_desc-brain_mask",
        "desc-BrainCerebellumExtraction_mask",
        "label-other_probseg",
        "T1w",
    ):
        image(folder / f"tpl-Fischer344_{extra}.nii.gz", 0.9)
    found = find_template("Fischer344", tmp_path, download=False)
    assert found.brain_mask.name == "tpl-Fischer344_desc-brain_mask.nii.gz"
    assert found.t2w.name == "tpl-Fischer344_T2w.nii.gz"


def test_sigma_folder_as_downloaded(tmp_path: Path) -> None:
    folder = tmp_path / "SIGMA_Rat_Functional_EPI_Template"
    names = ("Brain_Template", "Brain_Template_Masked", "Brain_Mask", "GM", "WM", "CSF")
    for name, value in zip(names, (90, 80, 1, 0.4, 0.3, 0.2), strict=True):
        image(folder / f"SIGMA_EPI_{name}.nii", value)
    found = find_template(str(folder))
    assert found.t2w.name == "SIGMA_EPI_Brain_Template.nii"
    assert (found.species, found.name) == ("rattus norvegicus", folder.name)


def test_description_beside_the_images_wins(tmp_path: Path) -> None:
    folder = flow(tmp_path, "Lab", "_cohort-1")
    record = {"Species": "Mus musculus", "Name": "Our mice", "ReferencesAndLinks": ["https://example.org"]}
    (folder.parent / "template_description.json").write_text(json.dumps(record))
    found = find_template("Lab:cohort-1", tmp_path, download=False)
    assert (found.species, found.citation) == ("mus musculus", "Our mice; https://example.org")


def test_missing_template_names_the_offline_ways(tmp_path: Path) -> None:
    folder = flow(tmp_path, "Fischer344")
    (folder / "tpl-Fischer344_label-CSF_probseg.nii.gz").write_bytes(
        b""
    )  # TemplateFlow's mark: not downloaded
    with pytest.raises(UserError) as told:
        find_template("Fischer344", tmp_path, download=False)
    for word in ("missing: CSF map", str(folder), "TEMPLATEFLOW_HOME", "--template DIR", "--segmenter none"):
        assert word in str(told.value)


def test_failed_download_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("bids_alphagan.templates._download", fail)
    with pytest.raises(UserError, match=r"no route to host.*--segmenter none"):
        find_template("Fischer344", tmp_path)


@pytest.mark.parametrize("spec", ["../x", "No Such", "RESILIENT:3", ""])
def test_neither_name_nor_folder(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="neither a folder nor a name"):
        find_template(spec, tmp_path, download=False)


def test_folder_without_parts(tmp_path: Path) -> None:
    image(tmp_path / "T2w.nii.gz")
    with pytest.raises(UserError, match="missing: brain mask, GM map, WM map, CSF map"):
        find_template(str(tmp_path))


@pytest.mark.parametrize(
    ("part", "damage", "reason"),
    [
        ("label-WM_probseg", lambda p: image(p, 40), "not a probability map"),
        ("label-WM_probseg", lambda p: image(p, zoom=0.3), "grid"),
        ("desc-brain_mask", lambda p: image(p, 0), "not all zero"),
        ("label-GM_probseg", lambda p: image(p, np.nan), "finite"),
        ("label-GM_probseg", lambda p: p.write_bytes(p.read_bytes()[:90]), "cannot be read"),
    ],
)
def test_parts_are_checked(tmp_path: Path, part: str, damage, reason: str) -> None:
    folder = flow(tmp_path, "Lab")
    damage(folder / f"tpl-Lab_{part}.nii.gz")
    with pytest.raises(UserError, match=reason):
        find_template("Lab", tmp_path, download=False)
