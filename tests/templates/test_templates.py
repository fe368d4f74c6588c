"""Templates are found offline, by TemplateFlow's names and SIGMA's, and checked."""

import json
import logging
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from template_folders import BRAIN, SHAPE, affine, flow, image, write

from bids_alphagan.common.errors import UserError
from bids_alphagan.templates import find_template, locate
from bids_alphagan.templates.fetch import offered, parts_of
from bids_alphagan.templates.names import complete, sets_of
from bids_alphagan.templates.shrink import shrink

RIM = np.zeros(SHAPE, dtype=bool)
RIM[[0, -1]] = True


def sigma(
    folder: Path, prefix: str, brain: str = "Brain_", template: str = "Template", end: str = ""
) -> Path:
    names = {"t2w": f"SIGMA_{prefix}_{brain}{template}", "mask": f"SIGMA_{prefix}_{brain}Mask"}
    names |= {part: f"SIGMA_{prefix}_{part.upper()}" for part in ("gm", "wm", "csf")}
    return write(folder, {part: f"{name}.nii{end}" for part, name in names.items()})


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
    _, parts = locate(
        "Many", tmp_path, download=False
    )  # no brain of a rat, which `find_template` would refuse
    assert {chosen in path.name for path in parts.values()} == {True}


def test_other_masks_and_contrasts_are_passed_over(tmp_path: Path) -> None:
    folder = flow(tmp_path, "Fischer344")
    for extra in (
        "hemi-L_desc-brain_mask",
        "desc-BrainCerebellumExtraction_mask",
        "atlas-v4_label-GM_probseg",
        "T1w",
    ):
        image(folder / f"tpl-Fischer344_{extra}.nii.gz", 0.9)
    found = find_template("Fischer344", tmp_path, download=False)
    assert found.brain_mask.name == "tpl-Fischer344_desc-brain_mask.nii.gz"
    assert found.gm.name == "tpl-Fischer344_label-GM_probseg.nii.gz"
    assert found.t2w.name == "tpl-Fischer344_T2w.nii.gz"


@pytest.mark.parametrize("word", ["label-other_probseg", "label-BG_probseg", "desc-background_probseg"])
def test_background_class_where_there_is_one(tmp_path: Path, word: str) -> None:
    folder = flow(tmp_path, "Lab")
    assert find_template("Lab", tmp_path, download=False).background is None
    path = image(folder / f"tpl-Lab_{word}.nii.gz", 1.0 - 0.9 * BRAIN)
    assert find_template("Lab", tmp_path, download=False).background == path
    image(path, 1.0 - 0.9 * BRAIN, zoom=0.5)  # of another grid: no use
    assert find_template("Lab", tmp_path, download=False).background is None


@pytest.mark.parametrize(
    ("prefix", "brain", "template", "end"),
    [
        ("EPI", "Brain_", "Template_Masked", ""),  # version 1 has no other
        ("InVivo", "Brain_", "Template", ""),
        ("ExVivo", "Brain_", "Template", ""),
        ("InVivo_Anatomical_Brain", "", "template", ".gz"),  # version 2
        ("ExVivo_Anatomical_Brain", "", "template", ".gz"),
        ("InVivo_Functional_Brain", "", "epi", ".gz"),
        ("ExVivo_Diffusion_Brain", "", "b0", ".gz"),
    ],
)
def test_sigma_as_downloaded(tmp_path: Path, prefix: str, brain: str, template: str, end: str) -> None:
    folder = sigma(tmp_path / "Some_Folder", prefix, brain, template, end)
    for path in list(folder.iterdir()) if end else []:  # version 2 writes gm, wm, csf, mask in small letters
        head, last = path.name.rsplit("_", 1)
        path.rename(folder / f"{head}_{last.lower()}")
    image(folder / f"SIGMA_{prefix}_fa.nii.gz", 1)
    image(folder / f"SIGMA_{prefix}_Atlas.nii", 1)
    found = find_template(str(folder))
    assert found.t2w.name == f"SIGMA_{prefix}_{brain}{template}.nii{end}"
    assert (found.species, found.name) == ("rattus norvegicus", "Some_Folder")
    assert "s41467-019-13575-7" in found.citation


def test_whole_head_goes_before_brain_alone(tmp_path: Path) -> None:
    folder = sigma(tmp_path, "InVivo")
    image(folder / "SIGMA_InVivo_Brain_Template_Masked.nii", 100.0 * BRAIN)
    assert find_template(str(folder)).t2w.name == "SIGMA_InVivo_Brain_Template.nii"


def test_the_one_template_in_an_archive_is_found(tmp_path: Path) -> None:
    deep = sigma(tmp_path / "Version1" / "SIGMA_Rat_Anatomical_Imaging" / "InVivo_Template", "InVivo")
    image(tmp_path / "Version1" / "SIGMA_Rat_Brain_Atlases" / "SIGMA_Anatomical_Brain_Atlas.nii", 3)
    assert find_template(str(tmp_path)).gm == deep / "SIGMA_InVivo_GM.nii"


def test_cohort_by_its_folder(tmp_path: Path) -> None:
    folder = flow(tmp_path, "RESILIENT", "_cohort-2", tissue="desc", suffix="T1w")
    assert find_template(str(folder)).name == find_template(str(folder.parent)).name == "RESILIENT:cohort-2"


def test_several_templates_in_an_archive_are_named(tmp_path: Path) -> None:
    for prefix in ("InVivo", "ExVivo"):
        sigma(tmp_path / f"SIGMA_{prefix}_Template", prefix)
    with pytest.raises(UserError, match=r"holds 2 templates.*SIGMA_ExVivo_Template.*SIGMA_InVivo_Template"):
        find_template(str(tmp_path))


def test_two_templates_in_one_folder_are_not_mixed(tmp_path: Path) -> None:
    sigma(tmp_path, "InVivo")
    sigma(tmp_path, "ExVivo")
    with pytest.raises(UserError, match=r"sigma_exvivo\*.*sigma_invivo\*"):
        find_template(str(tmp_path))
    (tmp_path / "SIGMA_ExVivo_CSF.nii").unlink()
    assert find_template(str(tmp_path)).t2w.name == "SIGMA_InVivo_Brain_Template.nii"


@pytest.mark.parametrize(
    "names",
    [
        ("T2w", "mask", "GM", "WM", "CSF"),
        ("Lab_T2star", "Lab_brain_mask", "Lab_gm", "Lab_wm", "Lab_csf"),
        ("my_rats_T1w", "my_rats_brainmask", "my_rats_Grey", "my_rats_White", "my_rats_CSF"),
    ],
)
def test_plain_names_of_a_lab(tmp_path: Path, names: tuple[str, ...]) -> None:
    parts = dict(zip(("t2w", "mask", "gm", "wm", "csf"), (f"{name}.nii.gz" for name in names), strict=True))
    found = find_template(str(write(tmp_path, parts)))
    assert [path.name for path in found.parts.values()] == list(parts.values())


def test_all_rodents_of_templateflow(tmp_path: Path) -> None:
    """By the names in the client's own list."""
    listing = offered()
    assert {path.name for path in parts_of(listing, "RESILIENT", "cohort-4")} == {
        f"tpl-RESILIENT_cohort-4_{part}.nii.gz"
        for part in ("T1w", "desc-brain_mask", "desc-GM_probseg", "desc-WM_probseg", "desc-CSF_probseg")
    }
    assert {path.name for path in parts_of(listing, "Fischer344", "")} == {
        f"tpl-Fischer344_{part}.nii.gz"
        for part in ("T2w", "desc-brain_mask", "label-GM_probseg", "label-WM_probseg", "label-CSF_probseg")
    }
    assert parts_of(listing, "MouseIn", "")[0].name == "tpl-MouseIn_res-1_UNIT1.nii.gz"
    assert len(complete(sets_of(Path(path) for path in listing if path.parts[0] == "tpl-RESILIENT"))) == 4


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("WHS", "TemplateFlow's WHS is incomplete: it has no GM map, WM map, CSF map"),
        ("RESILIENT", "RESILIENT:cohort-1, RESILIENT:cohort-2"),
        ("fischer344", "no template fischer344, but Fischer344"),
    ],
)
def test_what_templateflow_does_not_have(tmp_path: Path, spec: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        find_template(spec, tmp_path, download=False)


@pytest.mark.parametrize("links", [["https://example.org"], {"paper": "https://example.org"}])
def test_description_beside_the_images_wins(tmp_path: Path, links: object) -> None:
    folder = flow(tmp_path, "Lab", "_cohort-1", zoom=0.7)
    record = {"Species": "Mus musculus", "Name": "Our mice", "ReferencesAndLinks": links}
    (folder.parent / "template_description.json").write_text(json.dumps(record))
    found = find_template("Lab:cohort-1", tmp_path, download=False)
    assert (found.species, found.citation) == ("mus musculus", "Our mice; https://example.org")


def test_missing_template_names_the_offline_ways(tmp_path: Path) -> None:
    folder = flow(tmp_path, "Fischer344")
    # TemplateFlow's marks for what was not downloaded: an empty file, and DataLad's dead link.
    (folder / "tpl-Fischer344_label-CSF_probseg.nii.gz").write_bytes(b"")
    mask = folder / "tpl-Fischer344_desc-brain_mask.nii.gz"
    mask.unlink()
    mask.symlink_to("nowhere")
    with pytest.raises(UserError) as error:
        find_template("Fischer344", tmp_path, download=False)
    for word in (
        "missing: brain mask (",
        "CSF map (tpl-Fischer344_label-CSF_probseg.nii.gz is empty",
        f"put into {folder}, from https://",
        ": tpl-Fischer344_desc-brain_mask.nii.gz, tpl-Fischer344_label-CSF_probseg.nii.gz.",
        f"TEMPLATEFLOW_HOME={tmp_path}",
        "--template DIR",
        "--segmenter none",
    ):
        assert word in str(error.value)
    assert "tpl-Fischer344_T2w.nii.gz" not in str(error.value)  # it is there


def test_failed_download_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("bids_alphagan.templates.fetch.download", fail)
    with pytest.raises(UserError, match=r"no route to host.*--segmenter none"):
        find_template("Fischer344", tmp_path)


@pytest.mark.parametrize("spec", ["../x", "No Such", "RESILIENT:3", ""])
def test_neither_name_nor_folder(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="neither a folder nor a name"):
        find_template(spec, tmp_path, download=False)


def test_folder_without_parts(tmp_path: Path) -> None:
    image(tmp_path / "T2w.nii.gz", 1)
    with pytest.raises(UserError, match="missing: brain mask, GM map, WM map, CSF map"):
        find_template(str(tmp_path))


def reoriented(path: Path, data: bool, header: bool) -> None:
    """Flip the first axis of the data, or of the header about the origin, or of both about the middle."""
    source = nib.load(path)
    values = np.asarray(source.dataobj)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1 if data else 0
    nib.save(
        nib.Nifti1Image(values[::-1] if data else values, source.affine @ flip if header else source.affine),
        path,
    )


def permuted(path: Path) -> None:
    """Axes and header in another order: the same image."""
    source = nib.load(path)
    order = np.eye(4)[:, [2, 0, 1, 3]]
    nib.save(nib.Nifti1Image(np.transpose(source.get_fdata(), (2, 0, 1)), source.affine @ order), path)


def shifted(path: Path) -> None:
    source = nib.load(path)
    moved = source.affine.copy()
    moved[1, 3] += 2.5
    nib.save(nib.Nifti1Image(source.get_fdata(), moved), path)


@pytest.mark.parametrize(
    ("part", "damage", "reason"),
    [
        ("label-WM_probseg", lambda p: image(p, 40 * BRAIN), "probability map.* 0 to 40.* by 100"),
        ("label-WM_probseg", lambda p: image(p, 250 * BRAIN), "probability map.* 0 to 250.* by 255"),
        ("label-WM_probseg", lambda p: image(p, 1.2 * BRAIN), "overshot: clip"),
        ("label-WM_probseg", lambda p: image(p, -0.2 * BRAIN), "not a probability map"),
        ("label-WM_probseg", lambda p: image(p, 4000 * BRAIN), "not a probability map"),
        ("label-WM_probseg", lambda p: image(p, 0.3 * BRAIN, zoom=0.9), "voxels are 0.9 x 0.9 x 0.9 mm and"),
        ("label-WM_probseg", shifted, "lies up to 2.5 mm away"),
        ("label-WM_probseg", permuted, "same grid stored in another orientation, SRA and not RAS"),
        ("label-WM_probseg", lambda p: reoriented(p, True, True), "same grid stored in another orientation"),
        (
            "desc-brain_mask",
            lambda p: reoriented(p, False, True),
            "gives the orientation LAS and not RAS.*flipped",
        ),
        ("label-GM_probseg", lambda p: reoriented(p, True, False), "seems to be flipped along its x"),
        ("label-GM_probseg", lambda p: image(p, 0.5 * RIM), "hardly overlaps the brain mask"),
        ("label-GM_probseg", lambda p: image(p, 1.0 * BRAIN), "more than 1.2 in 100% of the brain"),
        ("label-GM_probseg", lambda p: image(p, 0), "not all zero"),
        ("label-GM_probseg", lambda p: image(p, np.nan), "finite"),
        (
            "label-GM_probseg",
            lambda p: p.write_bytes(p.read_bytes()[:90]),
            "Fetch it again: bids-alphagan-template Lab",
        ),
        ("label-GM_probseg", lambda p: p.write_text("no NIfTI"), "cannot be read"),
        ("T2w", lambda p: image(p, np.inf), "finite"),
        ("desc-brain_mask", lambda p: image(p, 0), "not all zero"),
        ("desc-brain_mask", lambda p: image(p, np.arange(18) * BRAIN), "not a brain mask.* 0 to 15"),
        ("desc-brain_mask", lambda p: image(p, -1.0 * BRAIN), "not a brain mask"),
    ],
)
def test_parts_are_checked(tmp_path: Path, part: str, damage: Callable[[Path], None], reason: str) -> None:
    folder = flow(tmp_path, "Lab")
    find_template("Lab", tmp_path, download=False)
    damage(folder / f"tpl-Lab_{part}.nii.gz")
    with pytest.raises(UserError, match=reason) as error:
        find_template("Lab", tmp_path, download=False)
    assert "Lab" in str(error.value)


def test_data_cut_short_is_damage(tmp_path: Path) -> None:
    """Of which the header can still be read."""
    path = flow(tmp_path, "Lab") / "tpl-Lab_T2w.nii.gz"
    image(path, np.random.default_rng(1).random(SHAPE))
    path.write_bytes(path.read_bytes()[:-2000])
    assert nib.load(path).shape == SHAPE
    with pytest.raises(UserError, match=r"damaged.*Fetch it again: bids-alphagan-template Lab --again"):
        find_template("Lab", tmp_path, download=False)
    with pytest.raises(UserError, match=r"damaged.*Copy it again"):
        find_template(str(path.parent))


def test_maps_that_leave_the_brain_empty(tmp_path: Path) -> None:
    folder = flow(tmp_path, "Lab")
    for part in ("GM", "WM", "CSF"):
        image(folder / f"tpl-Lab_label-{part}_probseg.nii.gz", 0.05 * BRAIN)
    with pytest.raises(UserError, match="fill only 15% of the brain mask"):
        find_template("Lab", tmp_path, download=False)


@pytest.mark.parametrize("mask", [255 * BRAIN, 1 * BRAIN, 0.9 * BRAIN + 0.1])
def test_masks_of_any_scale_and_probabilities(tmp_path: Path, mask: np.ndarray) -> None:
    """And maps of integers with a scale, 4D with one volume, or a little beyond 1."""
    folder = flow(tmp_path, "Lab")
    image(folder / "tpl-Lab_desc-brain_mask.nii.gz", mask)
    scaled = nib.Nifti1Image((128 / 255 * BRAIN).astype(np.float32)[..., None], affine())
    scaled.set_data_dtype(np.uint8)
    nib.save(scaled, folder / "tpl-Lab_label-GM_probseg.nii.gz")
    found = find_template("Lab", tmp_path, download=False)
    assert found.volumes is not None
    assert found.volumes == pytest.approx((1.568, 1.568 * 128 / 255, 1.568 * 0.3, 1.568 * 0.1), rel=1e-4)


def described(folder: Path, species: str | None) -> None:
    if species:
        (folder / "template_description.json").write_text(json.dumps({"Species": species}))


@pytest.mark.parametrize(
    ("zoom", "species", "warned"),
    [
        (1.0, None, None),
        (1.0, "Rattus norvegicus", None),
        (0.68, None, "0.49 mL.*adult rat .no species is given.*If it is a mouse's"),
        (0.68, "Mus musculus", None),
        (0.68, "Rattus norvegicus", "0.49 mL, but that of an adult rat"),
        (1.0, "Mus musculus", "1.57 mL, but that of an adult mouse.*If it is a rat's"),
        (1.35, None, "3.86 mL"),
        (0.9, "Mesocricetus auratus", None),  # of which nothing is known here
    ],
)
def test_unlikely_size_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, zoom: float, species: str | None, warned: str | None
) -> None:
    described(flow(tmp_path, "Lab", zoom=zoom), species)
    logger = logging.getLogger("bids_alphagan.templates.checks")
    logger.addHandler(caplog.handler)  # ours does not propagate once the app has set up its log
    try:
        find_template("Lab", tmp_path, download=False)
    finally:
        logger.removeHandler(caplog.handler)
    assert bool(caplog.text) == bool(warned)
    assert re.search(warned or "", caplog.text)


@pytest.mark.parametrize(
    ("zoom", "species", "reason"),
    [
        (10.0, None, "1568 mL.*enlarged 10 times in each dimension.*from 1.57 mL.*--shrink NEWDIR"),
        (6.8, "Mus musculus", "from 0.49 mL"),
        (10.0, "Homo sapiens", "1.57e[+]03 mL, but a rat's"),
        (0.4, None, "0.1 mL, but a rat's"),
        (2.0, None, "12.5 mL.*in its header in mm"),
        (250.0, None, "mL, but a rat's"),  # micrometres
    ],
)
def test_impossible_size_is_an_error(tmp_path: Path, zoom: float, species: str | None, reason: str) -> None:
    described(flow(tmp_path, "Lab", zoom=zoom), species)
    with pytest.raises(UserError, match=reason):
        find_template("Lab", tmp_path, download=False)


def test_enlarged_template_is_shrunk(tmp_path: Path) -> None:
    """Voxels and positions are a tenth, intensities are the same, and it can be used."""
    folder = flow(tmp_path, "Lab", zoom=10)
    described(folder, "Rattus norvegicus")
    (parts,) = sets_of(folder.glob("*.nii.gz")).values()
    shrink(parts, tmp_path / "small")
    found = find_template(str(tmp_path / "small"))
    before, after = nib.load(parts["gm"]), nib.load(found.gm)
    assert found.species == "rattus norvegicus"
    assert np.array_equal(before.get_fdata(), after.get_fdata())
    assert np.allclose(after.affine, np.diag([0.1, 0.1, 0.1, 1]) @ before.affine, atol=1e-6)
    assert np.allclose(after.get_qform(), after.affine, atol=1e-6)
    with pytest.raises(UserError, match="not empty"):
        shrink(parts, tmp_path / "small")


def test_one_image_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bids_alphagan.templates.checks.SAMPLES", 20_000)
    grow = np.ones((6, 6, 6))
    folder = flow(tmp_path, "Lab")
    for path in folder.glob("*.nii.gz"):
        data = np.kron(nib.load(path).get_fdata(), grow).astype(np.float32)
        nib.save(nib.Nifti1Image(data, affine(1 / 6)), path)
    size = data.nbytes
    tracemalloc.start()
    found = find_template("Lab", tmp_path, download=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * size  # of five
    assert found.volumes is not None
    assert found.volumes.brain == pytest.approx(1.568, rel=1e-3)
